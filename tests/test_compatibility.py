"""With the real packages: ProxyFix, views of every kind, Flask-Login, structlog, loguru, Sentry, python-json-logger."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Blueprint, Flask, Request, g, request, session
from flask.typing import ResponseReturnValue
from flask.views import MethodView, View
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.test import Client

from flask_asynclog import AsyncLog, bind, context
from support import HANG, PRINT_STATS, assert_conserved, log_lines, read_stats, run_python, skip_without

MakeApp = Callable[..., tuple[Flask, AsyncLog]]
Document = dict[str, Any]


def documents(asynclog: AsyncLog) -> list[Document]:
    """The lines so far, as JSON, every record accounted for."""
    assert asynclog.flush(HANG)
    assert_conserved(asynclog.stats())
    return [json.loads(line) for line in log_lines(Path("app.log"))]


def run(code: str, tmp_path: Path) -> tuple[list[str], subprocess.CompletedProcess[str]]:
    """Run a script that leaves ``app.log`` and prints its statistics: what a package changes there stays there."""
    done = run_python(PRINT_STATS + code, cwd=tmp_path)
    assert_conserved(read_stats(done.stdout))
    return log_lines(tmp_path / "app.log"), done


# Werkzeug.

FORWARDED = {
    "X-Forwarded-For": "203.0.113.7, 198.51.100.1",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "shop.example:8443",
    "X-Forwarded-Prefix": "/shop",
}


@pytest.mark.parametrize("order", ["before", "after"])
def test_proxy_fix_decides_whom_to_believe(make_app: MakeApp, order: str) -> None:
    """Put around the app before us or after us: address, scheme, host, port and prefix are those that it leaves."""

    def fix(app: Flask) -> None:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=2, x_proto=1, x_host=1, x_prefix=1)  # type: ignore[method-assign]

    asynclog = AsyncLog(format="json", flush_interval=0.01)
    app = Flask("proxied")
    if order == "before":
        fix(app)
    asynclog.init_app(app)
    if order == "after":
        fix(app)
    seen: list[str | None] = []
    app.add_url_rule("/", "view", lambda: seen.append(request.remote_addr) or "x")
    try:
        app.test_client().get("/", headers=FORWARDED)
        found = documents(asynclog)
    finally:
        asynclog.close()
    assert seen == ["203.0.113.7"]
    assert found[0]["message"].startswith("Request GET https://shop.example:8443/shop/ id=")
    for document in found:
        assert document["client.address"] == "203.0.113.7"
        assert document["url.scheme"] == "https"
        assert document["server.address"] == "shop.example"
        assert document["server.port"] == 8443


def test_without_proxy_fix_no_header_is_believed(make_app: MakeApp) -> None:
    """Anybody can send ``X-Forwarded-For``."""
    app, asynclog = make_app(format="json")
    app.test_client().get("/", headers=FORWARDED)
    for document in documents(asynclog):
        assert document["client.address"] == "127.0.0.1"
        assert document["url.scheme"] == "http"
        assert "203.0.113.7" not in json.dumps(document)


@pytest.mark.parametrize("format_", ["json", "combined", "%(client)s"])
def test_a_request_class_that_knows_better(make_app: MakeApp, format_: str) -> None:
    """``client.address`` is what the app's own `request.remote_addr` says."""

    class Behind(Request):
        remote_addr = property(  # type: ignore[assignment]
            lambda self: self.headers.get("CF-Connecting-IP"), lambda self, value: None
        )

    app, asynclog = make_app(format=format_)
    app.request_class = Behind
    app.test_client().get("/", headers={"CF-Connecting-IP": "203.0.113.9"})
    assert asynclog.flush(HANG)
    assert all("203.0.113.9" in line for line in log_lines(Path("app.log")))


def test_two_apps_behind_a_dispatcher(make_app: MakeApp) -> None:
    """Each request makes the records of the app that answers it, with the mount point in the URL."""
    app, asynclog = make_app(format="json")
    other, _ = make_app("other", format="json")
    other.add_url_rule("/x", "x", lambda: other.logger.info("in other") or "x")
    client = Client(DispatcherMiddleware(app.wsgi_app, {"/other": other.wsgi_app}))
    client.get("/other/x")
    client.get("/y")
    found = documents(asynclog)
    assert [d["logger"] for d in found] == ["other"] * 3 + [app.name] * 2
    assert found[0]["message"].startswith("Request GET http://localhost/other/x id=")
    assert found[0]["url.path"] == "/x"
    assert len({d["request_id"] for d in found}) == 2


# Views.


def test_nested_blueprints(make_app: MakeApp) -> None:
    """Route, endpoint and blueprint by their full names; their own hooks and error handlers log in the request."""
    app, asynclog = make_app(format="json")
    shop, cart = Blueprint("shop", __name__, url_prefix="/shop"), Blueprint("cart", __name__, url_prefix="/cart")
    shop.before_request(lambda: (bind(shop=1) and app.logger.info("shop")) or None)
    cart.before_request(lambda: (bind(cart=1) and app.logger.info("cart")) or None)

    @cart.get("/<int:n>")
    def item(n: int) -> str:
        raise LookupError

    @cart.errorhandler(LookupError)
    def missing(error: LookupError) -> ResponseReturnValue:
        app.logger.info("handler")
        return "no such item", 404

    shop.register_blueprint(cart)
    app.register_blueprint(shop)
    assert app.test_client().get("/shop/cart/7").status_code == 404
    found = documents(asynclog)
    assert [d["message"].split()[0] for d in found] == ["Request", "shop", "cart", "handler", "Response"]
    assert len({d["request_id"] for d in found}) == 1
    response = found[-1]
    assert (response["shop"], response["cart"]) == (1, 1)
    assert response["http.route"] == "/shop/cart/<int:n>"
    assert response["flask.endpoint"] == "shop.cart.item"
    assert response["flask.blueprint"] == "shop.cart"


def test_views_that_are_classes(make_app: MakeApp) -> None:
    """`View` and `MethodView`, decorated and kept over requests: nothing of one request is in another."""
    app, asynclog = make_app(format="json")

    class Plain(View):
        init_every_request = False

        def dispatch_request(self, **values: Any) -> str:
            bind(**values)
            app.logger.info("plain")
            return "x"

    class Things(MethodView):
        decorators = (lambda view: view,)

        def get(self, n: int) -> str:
            app.logger.info("get")
            return "x"

        def post(self, n: int) -> ResponseReturnValue:
            bind(posted=n)
            app.logger.info("post")
            return "made", 201

    app.add_url_rule("/plain/<int:n>", view_func=Plain.as_view("plain"))
    app.add_url_rule("/things/<int:n>", view_func=Things.as_view("things"))
    client = app.test_client()
    assert [client.get("/plain/1").status_code, client.get("/plain/2").status_code] == [200, 200]
    assert [client.open("/things/3", method=m).status_code for m in ("POST", "GET", "HEAD", "PUT")] == [
        201, 200, 200, 405,
    ]  # fmt: skip
    found = documents(asynclog)
    assert [d.get("n") for d in found if d["message"] == "plain"] == [1, 2]
    statuses = [
        (d["http.request.method"], d["http.response.status_code"], d.get("posted"))
        for d in found
        if d["message"].startswith("Response") and d["url.path"] == "/things/3"
    ]
    assert statuses == [("POST", 201, 3), ("GET", 200, None), ("HEAD", 200, None), ("PUT", 405, None)]


ASYNC = """
import asyncio
from flask import Flask, Blueprint, g
from flask.views import MethodView
from flask_asynclog import AsyncLog, bind

app = Flask("async_views")
asynclog = AsyncLog(app, format="json")
log = app.logger.info

@app.before_request
async def before():
    bind(before=1)
    log("before")

@app.after_request
async def after(response):
    log("after")
    return response

@app.teardown_request
async def teardown(error):
    log("teardown")

class Things(MethodView):
    async def get(self, n):
        await asyncio.sleep(0.001)
        bind(n=n)
        async def part(number):
            with bind(part=number):
                await asyncio.sleep(0.001)
                log("part", extra={"expected": number})
        await asyncio.gather(*(part(number) for number in range(3)))
        if n == 2:
            raise ArithmeticError
        return "x"

@app.errorhandler(ArithmeticError)
async def handler(error):
    log("handler")
    return "no", 418

app.add_url_rule("/<int:n>", view_func=Things.as_view("things"))
client = app.test_client()
assert [client.get(f"/{n}").status_code for n in (1, 2)] == [200, 418]
asynclog.flush(60)
print_stats(asynclog.stats())
"""


def test_async_functions_of_every_kind(tmp_path: Path) -> None:
    """Hooks, view, error handler and teardown as coroutines: one id, and what they bind lasts."""
    skip_without("asgiref")
    lines, _ = run(ASYNC, tmp_path)
    found = [json.loads(line) for line in lines]
    ids = list(dict.fromkeys(d["request_id"] for d in found))
    assert len(ids) == 2
    first, second = ([d for d in found if d["request_id"] == one] for one in ids)
    messages = ["Request", "before", "part", "part", "part", "after", "Response", "teardown"]
    assert [d["message"].split()[0] for d in first] == messages
    messages.insert(5, "handler")
    assert [d["message"].split()[0] for d in second] == messages
    for number, records in enumerate((first, second), 1):
        assert all(d["part"] == d["expected"] for d in records if d["message"] == "part")
        assert not any("part" in d for d in records if d["message"] != "part")
        assert all(d["before"] == 1 for d in records[1:])
        assert all(d["n"] == number for d in records[2:])
    assert first[-2]["http.response.status_code"] == 200
    assert second[-2]["http.response.status_code"] == 418


# Flask-Login.


class Users:
    """A database of users that counts each look at it, and each look at an attribute of a user."""

    def __init__(self) -> None:
        self.loads = 0
        self.reads = 0
        #: Whether an attribute of a user that was loaded raises: after a commit, without a session.
        self.detached = False

    def load(self, user_id: str | None) -> Any:
        self.loads += 1
        return None if user_id is None else User(self, user_id)

    def read(self) -> None:
        self.reads += 1
        if self.detached:
            raise LookupError("the instance is not bound to a session")


class User:
    """As a model's object: to look at it is to ask the database."""

    is_anonymous = False

    def __init__(self, users: Users, user_id: str) -> None:
        self._users, self._id = users, user_id

    @property
    def is_active(self) -> bool:
        self._users.read()
        return True

    @property
    def is_authenticated(self) -> bool:
        self._users.read()
        return True

    def get_id(self) -> str:
        self._users.read()
        return self._id


@pytest.fixture
def login() -> Iterator[types.ModuleType]:
    """Flask-Login, for one test: whether it has been imported makes a difference to all later apps."""
    skip_without("flask_login")
    before = set(sys.modules)
    import flask_login  # pyright: ignore[reportMissingTypeStubs]

    yield flask_login
    for name in set(sys.modules) - before:
        if name.partition(".")[0] == "flask_login":
            del sys.modules[name]


LoginApp = tuple[Flask, AsyncLog, Users]


@pytest.fixture
def login_app(make_app: MakeApp, login: Any) -> LoginApp:
    """An app with a real `LoginManager`, and views that do or do not ask for the user."""
    app, asynclog = make_app(format="json")
    app.secret_key = "x"
    users = Users()
    manager = login.LoginManager(app)
    manager.user_loader(users.load)
    manager.request_loader(lambda request: users.load(request.headers.get("X-User")))
    app.add_url_rule("/plain", "plain", lambda: "x")
    app.add_url_rule("/who", "who", lambda: str(getattr(login.current_user, "_id", "nobody")))
    app.add_url_rule("/private", "private", login.login_required(lambda: "x"))
    app.add_url_rule("/logout", "logout", lambda: login.logout_user() and "x")

    @app.get("/login/<name>")
    def log_in(name: str) -> str:
        login.login_user(User(users, name))
        return "x"

    return app, asynclog, users


def user_ids(asynclog: AsyncLog) -> list[str | None]:
    """``user.id`` of the responses so far; no request has one."""
    found = documents(asynclog)
    assert not any("user.id" in d for d in found if d["message"].startswith("Request"))
    return [d.get("user.id") for d in found if d["message"].startswith("Response")]


def test_the_user_who_was_asked_for(login_app: LoginApp) -> None:
    """From the login on, in each request in which somebody asked for the user; not in others."""
    app, asynclog, _ = login_app
    client = app.test_client()
    for path in ("/who", "/login/ann", "/plain", "/who", "/private", "/logout", "/who", "/private"):
        client.get(path)
    assert user_ids(asynclog) == [None, "ann", None, "ann", "ann", None, None, None]


def test_no_user_is_loaded_for_the_log(login_app: LoginApp) -> None:
    """A view that does not ask for the user costs no look at the database; one that asks costs that one."""
    app, asynclog, users = login_app
    client = app.test_client()
    client.get("/login/ann")
    users.loads = users.reads = 0
    client.get("/plain")
    assert (users.loads, users.reads) == (0, 0)
    client.get("/who")
    assert (users.loads, users.reads) == (1, 0)
    assert user_ids(asynclog) == ["ann", None, "ann"]


def test_a_user_whose_attributes_cannot_be_read(login_app: LoginApp, capsys: pytest.CaptureFixture[str]) -> None:
    """A model's object after a commit, or after its session's end: the record is there, with the id of the session."""
    app, asynclog, users = login_app
    client = app.test_client()
    client.get("/login/ann")
    users.detached = True
    client.get("/who")
    app.test_client().get("/who", headers={"X-User": "bob"})
    assert user_ids(asynclog) == ["ann", "ann", None]
    assert capsys.readouterr().err == ""


def test_a_user_by_a_header(login_app: LoginApp) -> None:
    """One whom a ``request_loader`` found, so that the session has none."""
    app, asynclog, users = login_app
    app.test_client().get("/who", headers={"X-User": "bob"})
    app.test_client().get("/plain", headers={"X-User": "bob"})
    assert user_ids(asynclog) == ["bob", None]
    assert users.loads == 1


def test_an_expired_model_by_a_header(login_app: LoginApp) -> None:
    """What SQLAlchemy has expired is not asked: it would read the database again."""
    app, asynclog, users = login_app

    @app.get("/commit")
    def commit() -> str:
        import flask_login  # pyright: ignore[reportMissingTypeStubs]

        flask_login.current_user._sa_instance_state = types.SimpleNamespace(expired=True)
        return "x"

    app.test_client().get("/commit", headers={"X-User": "bob"})
    assert user_ids(asynclog) == [None]
    assert users.reads == 0


@pytest.mark.parametrize("kind", ["class", "function", "broken"])
def test_anonymous_users_of_ones_own(login_app: LoginApp, kind: str) -> None:
    """They are nobody, whatever they are made by, and whatever the session still has."""
    app, asynclog, users = login_app

    class Guest:
        is_authenticated = False
        is_active = False
        is_anonymous = True

        def get_id(self) -> str:
            return "guest"

    class Broken:
        @property
        def is_authenticated(self) -> bool:
            raise LookupError

    makers: dict[str, Any] = {"class": Guest, "function": Guest, "broken": Broken}
    app.login_manager.anonymous_user = makers[kind]  # type: ignore[attr-defined]
    client = app.test_client()
    client.get("/who")
    with client.session_transaction() as kept:
        kept["_user_id"] = "gone"
    users.load = lambda user_id: None  # type: ignore[method-assign]
    app.login_manager.user_loader(users.load)  # type: ignore[attr-defined]
    client.get("/who")
    assert user_ids(asynclog) == [None, None]


def test_the_user_in_the_combined_format_and_in_ones_own(make_app: MakeApp, login: Any) -> None:
    """The third column, and ``%(user)s``, which is ``-`` in other records."""
    for name, format_ in (("combined.log", "combined"), ("own.log", "%(user)s")):
        app, asynclog = make_app(name, filename=name, format=format_, request_logger=name, loggers=(name,))
        app.secret_key = "x"
        users = Users()
        login.LoginManager(app).user_loader(users.load)
        app.add_url_rule("/", "view", lambda users=users: login.login_user(User(users, "ann")) and "x")
        app.test_client().get("/")
        assert asynclog.flush(HANG)
    assert log_lines(Path("combined.log"))[0].startswith("127.0.0.1 - ann [")
    assert log_lines(Path("own.log")) == ["-", "ann"]


def test_flask_login_in_use_without_a_manager(
    make_app: MakeApp, login: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Imported, but not set up on this app; or ``g._login_user`` set by somebody else: no record is lost."""
    app, asynclog = make_app(format="json")

    @app.get("/")
    def view() -> str:
        g._login_user = object()
        return str(dict(session))

    app.test_client().get("/")
    assert user_ids(asynclog) == [None]
    assert capsys.readouterr().err == ""


def test_flask_login_is_not_imported(tmp_path: Path) -> None:
    """By nobody but the app."""
    code = """
import sys
from flask import Flask
from flask_asynclog import AsyncLog

app = Flask("demo")
asynclog = AsyncLog(app)
app.test_client().get("/")
asynclog.flush(60)
others = {"flask_login", "structlog", "loguru", "sentry_sdk", "pythonjsonlogger", "opentelemetry"}
assert not others & sys.modules.keys()
print_stats(asynclog.stats())
"""
    run(code, tmp_path)


# structlog.

STRUCTLOG = """
import logging
import structlog
from flask import Flask
from flask_asynclog import AsyncLog, bind

structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.filter_by_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.stdlib.render_to_log_kwargs,
    ],
    logger_factory=structlog.stdlib.LoggerFactory(),
    wrapper_class=structlog.stdlib.BoundLogger,
    cache_logger_on_first_use=True,
)
log = structlog.get_logger("shop")
app = Flask("demo")
asynclog = AsyncLog(app, format="json")

@app.get("/")
def view():
    bind(user_id=42)
    structlog.contextvars.bind_contextvars(tenant="acme")
    log.info("sold", tea=["green"], password="hunter2")
    log.debug("not logged")
    try:
        raise ArithmeticError("no cups")
    except ArithmeticError:
        log.exception("failed %s", "badly", order=7)
    return "x"

app.test_client().get("/")
structlog.contextvars.clear_contextvars()
log.warning("outside", order=8)
asynclog.flush(60)
print_stats(asynclog.stats())
"""


def test_structlog_with_its_standard_library_backend(tmp_path: Path) -> None:
    """Events become records with their values as fields, and with id, bound fields, traceback and redaction as any."""
    skip_without("structlog")
    lines, done = run(STRUCTLOG, tmp_path)
    assert done.stderr == ""
    _, sold, failed, response, outside = map(json.loads, lines)
    assert (sold["logger"], sold["level"], sold["message"]) == ("shop", "INFO", "sold")
    assert (sold["tea"], sold["tenant"], sold["user_id"], sold["password"]) == (["green"], "acme", 42, "[REDACTED]")
    assert sold["code.function.name"] == "view"
    assert sold["request_id"] == failed["request_id"] == response["request_id"]
    assert (failed["level"], failed["message"], failed["order"]) == ("ERROR", "failed badly", 7)
    assert failed["exception.type"] == "ArithmeticError"
    assert "in view" in failed["exception.stacktrace"]
    assert outside["order"] == 8
    assert "request_id" not in outside
    assert "tenant" not in outside


PROCESSOR_FORMATTER = """
import logging
import structlog
from flask import Flask
from flask_asynclog import AsyncLog, bind

structlog.configure(
    processors=[structlog.stdlib.add_log_level, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
    logger_factory=structlog.stdlib.LoggerFactory(),
    wrapper_class=structlog.stdlib.BoundLogger,
)
formatter = structlog.stdlib.ProcessorFormatter(
    processors=[structlog.stdlib.ExtraAdder(["request_id", "user_id"]),
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(sort_keys=True)],
)
log = structlog.get_logger("shop")
app = Flask("demo")
asynclog = AsyncLog(app, format=formatter, request_events=())

@app.get("/")
def view():
    bind(user_id=42)
    values = ["green"]
    log.info("sold", tea=values, password="hunter2")
    values.append("later")
    app.logger.info("plain %s", "record")
    return "x"

print("ID", app.test_client().get("/").headers["X-Request-ID"])
asynclog.flush(60)
print_stats(asynclog.stats())
"""


def test_structlogs_own_formatter(tmp_path: Path) -> None:
    """`ProcessorFormatter` as the format: it finds event dictionaries as they were, without secrets, and the id."""
    skip_without("structlog")
    lines, done = run(PROCESSOR_FORMATTER, tmp_path)
    assert done.stderr == ""
    (request_id,) = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("ID ")]
    assert [json.loads(line) for line in lines] == [
        {
            "event": "sold", "level": "info", "password": "[REDACTED]", "request_id": request_id, "tea": ["green"],
            "user_id": 42,
        },
        {"event": "plain record", "request_id": request_id, "user_id": 42},
    ]  # fmt: skip


# loguru.

LOGURU = """
import logging
from loguru import logger
from flask import Flask
from flask_asynclog import AsyncLog, bind

class ToLogging(logging.Handler):
    def emit(self, record):
        target = logging.getLogger(record.name)
        if target.isEnabledFor(record.levelno):
            target.handle(record)

logging.addLevelName(25, "SUCCESS")
logger.remove()
logger.add(ToLogging(), format=lambda record: "{message}", level=0)
app = Flask("demo")
asynclog = AsyncLog(app, format="json")

@app.get("/")
def view():
    bind(user_id=42)
    logger.bind(order=7, password="hunter2").success("sold {}", "tea")
    logger.debug("not logged")
    try:
        raise ArithmeticError("no cups")
    except ArithmeticError:
        logger.exception("failed")
    return "x"

app.test_client().get("/")
asynclog.flush(60)
print_stats(asynclog.stats())
"""


def test_loguru_into_logging(tmp_path: Path) -> None:
    """Its records come with request id, bound fields, ``extra``, place and traceback, each once."""
    skip_without("loguru")
    lines, done = run(LOGURU, tmp_path)
    assert done.stderr == ""
    _, sold, failed, response = map(json.loads, lines)
    assert (sold["level"], sold["message"], sold["user_id"]) == ("SUCCESS", "sold tea", 42)
    assert sold["extra"] == {"order": 7, "password": "[REDACTED]"}
    assert sold["code.function.name"] == "view"
    assert sold["request_id"] == failed["request_id"] == response["request_id"]
    assert failed["message"] == "failed"
    assert failed["exception.type"] == "ArithmeticError"
    assert failed["exception.stacktrace"].count("ArithmeticError: no cups") == 1


INTERCEPT = """
import inspect, logging, sys
from loguru import logger
from flask import Flask
from flask_asynclog import AsyncLog, context

class InterceptHandler(logging.Handler):  # as loguru's documentation has it
    def emit(self, record):
        try:
            level = logger.level(record.levelname).name
        except ValueError:
            level = record.levelno
        frame, depth = inspect.currentframe(), 0
        while frame and (depth == 0 or frame.f_code.co_filename == logging.__file__):
            frame = frame.f_back
            depth += 1
        logger.opt(depth=depth, exception=record.exc_info).log(level, record.getMessage())

logger.remove()
logger.configure(patcher=lambda record: record["extra"].update(request_id=context.request_id()))
logger.add(sys.stdout, format="LOGURU {level} {extra[request_id]} {message}", backtrace=False)
logging.basicConfig(handlers=[InterceptHandler()], level=logging.INFO)
app = Flask("demo")
asynclog = AsyncLog(app, format="%(levelname)s %(request_id)s %(message)s")

@app.get("/")
def view():
    app.logger.info("view {not a format}")
    logger.info("loguru's own")
    return "x"

app.test_client().get("/")
asynclog.flush(60)
print_stats(asynclog.stats())
"""


def test_logging_into_loguru_beside_the_file(tmp_path: Path) -> None:
    """An InterceptHandler on root gets every record, request records among them, while the file has them, too."""
    skip_without("loguru")
    lines, done = run(INTERCEPT, tmp_path)
    assert done.stderr == ""
    shown = [line.removeprefix("LOGURU ") for line in done.stdout.splitlines() if line.startswith("LOGURU ")]
    (own,) = (line for line in shown if "loguru's own" in line)
    shown.remove(own)  # which is loguru's only
    assert shown == lines
    assert len(lines) == 3
    assert len({line.split()[1] for line in [*lines, own]}) == 1


# Sentry.

SENTRY = """
import json
import sentry_sdk
from sentry_sdk.integrations.logging import LoggingIntegration, ignore_logger
from flask import Flask
from flask_asynclog import AsyncLog, bind

events = []
WHEN

app = Flask("demo")
asynclog = AsyncLog(app, format="json", request_logger="demo.requests")

@app.get("/")
def view():
    bind(user_id=42)
    app.logger.info("crumb %s", 1)
    app.logger.error("bad %s", "tea", extra={"order": 7})
    return "x"

@app.get("/broken")
def broken():
    raise ArithmeticError

AFTER
app.test_client().get("/")
app.test_client().get("/broken")
for event in events:
    crumbs = [crumb["message"].split()[0] for crumb in event["breadcrumbs"]["values"]]
    print("EVENT", json.dumps([event.get("logger"), event.get("logentry"), event["extra"].get("order"), crumbs]))
asynclog.flush(60)
print_stats(asynclog.stats())
"""
SENTRY_INIT = """
sentry_sdk.init(
    dsn="http://key@localhost/1", default_integrations=False, integrations=[LoggingIntegration()],
    before_send=lambda event, hint: events.append(event), transport=lambda envelope: None,
)
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_sentry_gets_events_and_breadcrumbs(tmp_path: Path, when: str) -> None:
    """Initialised before us or after us, its logging integration sees all records, request records among them."""
    skip_without("sentry_sdk")
    code = SENTRY.replace("WHEN", SENTRY_INIT if when == "before" else "").replace(
        "AFTER", SENTRY_INIT if when == "after" else ""
    )
    lines, done = run(code, tmp_path)
    assert len(lines) == 7
    bad, flasks, response = [json.loads(line[6:]) for line in done.stdout.splitlines() if line.startswith("EVENT ")]
    assert bad == ["demo", {"message": "bad %s", "formatted": "bad tea", "params": ["tea"]}, 7, ["Request", "crumb"]]
    assert flasks[0] == "demo"
    assert response[0] == "demo.requests"
    assert response[1]["message"] == "Response %s"
    assert response[1]["formatted"].startswith("Response 500 INTERNAL SERVER ERROR GET /broken ")
    assert response[1]["params"] == [response[1]["formatted"].removeprefix("Response ")]


def test_sentry_without_the_request_records(tmp_path: Path) -> None:
    """``ignore_logger`` with the name of ``ASYNCLOG_REQUEST_LOGGER`` keeps them out; the file has them."""
    skip_without("sentry_sdk")
    code = SENTRY.replace("WHEN", SENTRY_INIT).replace("AFTER", 'ignore_logger("demo.requests")')
    lines, done = run(code, tmp_path)
    assert len(lines) == 7
    found = [json.loads(line[6:]) for line in done.stdout.splitlines() if line.startswith("EVENT ")]
    assert [event[0] for event in found] == ["demo", "demo"]
    assert found[0][3] == ["crumb"]


# python-json-logger.


def test_python_json_logger_as_the_format(make_app: MakeApp) -> None:
    """Its formatter finds ids, bound fields, the parts of request records and ``extra``; outside requests no id."""
    jsonlogger = pytest.importorskip("pythonjsonlogger.json", reason="python-json-logger is not installed")
    formatter = jsonlogger.JsonFormatter("%(levelname)s %(name)s %(message)s", rename_fields={"levelname": "level"})
    app, asynclog = make_app(format=formatter)

    @app.get("/")
    def view() -> str:
        bind(user_id=42)
        app.logger.info("plain", extra={"order": 7, "password": "hunter2"})
        app.logger.info({"event": "sold", "tea": ["green"], "token": "hunter2"})
        app.logger.error("failed", exc_info=ArithmeticError("no cups"))
        return "x"

    request_id = app.test_client().get("/").headers["X-Request-ID"]
    app.logger.info("outside")
    first, plain, sold, failed, response, outside = documents(asynclog)
    assert first["http.request.method"] == "GET"
    assert plain == {
        "level": "INFO", "name": app.name, "message": "plain", "order": 7, "password": "[REDACTED]",
        "request_id": request_id, "user_id": 42,
    }  # fmt: skip
    assert (sold["event"], sold["tea"], sold["token"]) == ("sold", ["green"], "[REDACTED]")
    assert sold["request_id"] == request_id
    assert "no cups" in failed["exc_info"]
    assert (response["http.response.status_code"], response["user_id"]) == (200, 42)
    assert "request_id" not in outside


def test_python_json_logger_on_a_handler_of_ones_own(make_app: MakeApp) -> None:
    """A handler beside ours, with a filter that asks for the id: the documented way for handlers of others."""
    jsonlogger = pytest.importorskip("pythonjsonlogger.json", reason="python-json-logger is not installed")
    app, _ = make_app(request_events=())
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(jsonlogger.JsonFormatter("%(message)s %(request_id)s"))

    def add_id(record: logging.LogRecord) -> bool:
        record.request_id = context.request_id() or "-"
        return True

    handler.addFilter(add_id)
    app.logger.addHandler(handler)
    app.add_url_rule("/", "view", lambda: app.logger.info("inside") or "x")
    request_id = app.test_client().get("/").headers["X-Request-ID"]
    app.logger.info("outside")
    app.logger.removeHandler(handler)
    inside, outside = map(json.loads, stream.getvalue().splitlines())
    assert inside == {"message": "inside", "request_id": request_id}
    assert outside == {"message": "outside", "request_id": "-"}


# Messages that are dictionaries, as python-json-logger and structlog have them.


def test_a_message_that_is_a_dictionary(make_alone: MakeApp) -> None:
    """In our own formats it is its text as it was, without secrets."""
    app, asynclog = make_alone(format="%(message)s", redact_patterns=[r"\d{4}-\d{4}"])
    values = [1]
    app.logger.info({"a": values, "own": Path("x")})
    values.append(2)
    app.logger.info({"password": "hunter2", "card": "1234-5678", "b": (1, 2)})
    app.logger.info({"a": 1}, "argument")
    assert asynclog.flush(HANG)
    assert log_lines(Path("app.log")) == [
        "{'a': [1], 'own': PosixPath('x')}",
        "{'password': '[REDACTED]', 'card': '[REDACTED]', 'b': [1, 2]}",
        "{'a': 1} ('argument',) [not formatted: TypeError: not all arguments converted during string formatting]",
    ]
