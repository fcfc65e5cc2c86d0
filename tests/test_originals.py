"""What others have replaced in Flask and `logging`: it is noticed, and does what it is there for."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import closing
from types import FrameType
from typing import Any

import flask.app
import pytest
from flask import Blueprint, Flask, Response, after_this_request, session
from flask.sessions import SecureCookieSessionInterface

from flask_asynclog import AsyncLog
from flask_asynclog.originals import after_request, if_original, only_calls_functions
from support import profiled

MakeApp = Callable[..., tuple[Flask, AsyncLog]]

#: The methods of an app that are not called while there is nothing for them to do.
METHODS = ("preprocess_request", "process_response")
each_method = pytest.mark.parametrize("name", METHODS)


def is_known(app: Flask, name: str) -> bool:
    """Whether it is known when that method has nothing to do."""
    return only_calls_functions(app) if name == "preprocess_request" else after_request(app) is not None


def in_flask(name: str, source: str) -> Any:
    """A method that stands in Flask's own file, as that of a later Flask would."""
    names: dict[str, Any] = {}
    exec(compile(f"def {name}{source}", Flask.__init__.__code__.co_filename, "exec"), vars(flask.app), names)
    return names[name]


def calls(app: Flask, name: str, path: str = "/") -> int:
    """How often Flask's own method is called in one request."""
    code, found = getattr(Flask, name).__code__, 0

    def note(frame: FrameType, event: str, _: object) -> None:
        nonlocal found
        found += event == "call" and frame.f_code is code

    with profiled(note):
        app.test_client().get(path)
    return found


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a replacement of Flask's method has done."""
    calls: list[str] = []
    monkeypatch.setattr(flask.app, "calls", calls, raising=False)
    return calls


@each_method
def test_what_is_known_of_flask(name: str) -> None:
    """Of each Flask that these tests run with: it is not asked to look for functions where there are none."""
    assert is_known(Flask("known"), name)


@each_method
def test_a_later_flask_that_does_more(
    monkeypatch: pytest.MonkeyPatch, done: list[str], make_app: MakeApp, name: str
) -> None:
    """It is called for each request."""
    later = in_flask(name, "(self, *args):\n    calls.append('more')\n    return args[-1] if args else None\n")
    monkeypatch.setattr(Flask, name, later)
    app, _ = make_app()
    assert not is_known(Flask("later"), name)
    assert app.test_client().get("/").status_code == 404
    assert done == ["more"]


def test_a_later_flask_that_does_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its context as an argument, as Flask's developers have it."""
    source = (
        "(self, ctx):\n    self.url_value_preprocessors\n    return self.before_request_funcs[ctx.request.endpoint]\n"
    )
    monkeypatch.setattr(Flask, "preprocess_request", in_flask("preprocess_request", source))
    assert only_calls_functions(Flask("later"))


@each_method
def test_a_later_flask_that_keeps_its_functions_elsewhere(
    monkeypatch: pytest.MonkeyPatch, make_app: MakeApp, name: str
) -> None:
    """So that those which are looked at say nothing: it is called."""
    monkeypatch.setattr(
        Flask, name, in_flask(name, "(self, *args):\n    request\n    return args[-1] if args else None\n")
    )
    assert not is_known(Flask("later"), name)
    app, _ = make_app()
    assert calls(app, name) == 1


def test_a_response_processed_by_hand(make_app: MakeApp) -> None:
    """By position or by name, as Flask's method takes it."""
    app, _ = make_app()
    app.after_request(lambda response: response)
    response = Response("a")
    with app.test_request_context("/"):
        assert app.process_response(response) is response
        assert app.process_response(response=response) is response


def test_a_later_flask_whose_context_is_an_argument(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is known of where its session is, so it is called, with all that it is given."""
    source = "(self, ctx, response):\n    response.headers['seen'] = ctx\n    return response\n"
    monkeypatch.setattr(Flask, "process_response", in_flask("process_response", source))
    app, _ = make_app()
    assert after_request(Flask("later")) is None
    process: Any = app.process_response
    with app.test_request_context("/"):
        assert process("the context", Response("a")).headers["seen"] == "the context"


@each_method
def test_a_later_flask_that_does_more_in_a_nested_function(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Nobody looks into that, so it is called."""
    monkeypatch.setattr(Flask, name, in_flask(name, "(self, *args):\n    request_ctx\n    (lambda: calls)()\n"))
    assert not is_known(Flask("later"), name)


def test_an_older_flask_whose_session_is_an_attribute(monkeypatch: pytest.MonkeyPatch) -> None:
    """To look at which is no access to the session, there."""
    source = """(self, response):
    context = request_ctx._get_current_object()
    for function in (*context._after_request_functions, *self.after_request_funcs[None]):
        response = function(response)
    if not self.session_interface.is_null_session(context.session):
        self.session_interface.save_session(self, context.session, response)
    return response
"""
    monkeypatch.setattr(Flask, "process_response", in_flask("process_response", source))
    app = Flask("older")
    after = after_request(app)
    assert after is not None
    with app.test_request_context("/") as context:
        assert after.context() is context
        assert after.session(context) is context.session
        assert after.has_nothing(app)


@each_method
def test_flask_is_not_called_where_there_is_nothing_to_do(make_app: MakeApp, name: str) -> None:
    """For a view as for an error."""
    app, _ = make_app()
    app.add_url_rule("/", "view", lambda: "the view")
    assert calls(app, name) == 0
    assert calls(app, name, "/missing") == 0


def test_flask_is_called_where_there_are_functions(make_app: MakeApp) -> None:
    """Before requests."""
    app, _ = make_app()
    app.before_request(lambda: None)
    assert calls(app, "preprocess_request") == 1
    assert calls(app, "process_response") == 0


def test_flask_is_called_where_there_are_functions_after_requests(make_app: MakeApp) -> None:
    """Of the app, or of a blueprint; and those that a view has registered for its own request."""

    def mark(response: Response) -> Response:
        response.headers["marked"] = "yes"
        return response

    def once() -> str:
        after_this_request(mark)
        return "once"

    app, _ = make_app("this")
    app.add_url_rule("/once", "once", once)
    client = app.test_client()
    assert "marked" not in client.get("/").headers
    assert client.get("/once").headers["marked"] == "yes"
    assert (calls(app, "process_response", "/once"), calls(app, "process_response")) == (1, 0)
    app, _ = make_app("app")
    app.after_request(mark)
    assert app.test_client().get("/").headers["marked"] == "yes"
    app, _ = make_app("blueprint")
    blueprint = Blueprint("blueprint", __name__)
    blueprint.after_request(mark)
    blueprint.add_url_rule("/in", "view", lambda: "in")
    app.register_blueprint(blueprint)
    assert app.test_client().get("/in").headers["marked"] == "yes"
    assert "marked" not in app.test_client().get("/").headers


def test_flask_is_called_where_there_is_a_session(make_app: MakeApp) -> None:
    """Which it saves; to look whether there is one is no access to it, which would show as ``Vary: Cookie``."""
    app, _ = make_app()

    def count() -> str:
        session["count"] = session.get("count", 0) + 1
        return str(session["count"])

    app.add_url_rule("/count", "count", count)
    app.add_url_rule("/", "view", lambda: "the view")
    assert calls(app, "process_response") == 0
    app.secret_key = "abc"
    client = app.test_client()
    assert [client.get("/count").text for _ in range(2)] == ["1", "2"]
    untouched = client.get("/")
    assert "Vary" not in untouched.headers
    assert "Set-Cookie" not in untouched.headers
    assert calls(app, "process_response") == 1


def test_a_session_interface_of_its_own(make_app: MakeApp) -> None:
    """It may have a session without a secret key: it is asked, as often as Flask asks it."""
    asked: list[object] = []
    saved: list[object] = []

    class Interface(SecureCookieSessionInterface):
        def is_null_session(self, obj: object) -> bool:
            asked.append(obj)
            return False

        def save_session(self, app: Flask, session: object, response: Response) -> None:
            saved.append(session)

    app, _ = make_app()
    app.session_interface = Interface()
    app.test_client().get("/")
    assert len(asked) == 1
    assert saved == asked


class Proxy:
    """A wrapper as wrapt makes them: it shows all that the method has, and does more when it is called."""

    def __init__(self, method: Callable[..., Any], done: list[str]) -> None:
        self._method = method
        self._done = done

    def __getattr__(self, name: str) -> Any:
        return getattr(self._method, name)

    def __get__(self, instance: object, owner: type) -> Proxy:
        return Proxy(self._method.__get__(instance, owner), self._done)

    def __call__(self, *args: Any) -> Any:
        self._done.append("more")
        return self._method(*args)


@each_method
def test_a_proxy_around_the_method(done: list[str], name: str) -> None:
    """Of one app, or of a subclass."""
    original = getattr(Flask, name)
    own = type("Own", (Flask,), {name: Proxy(original, done)})
    app = Flask("proxy")
    setattr(app, name, Proxy(getattr(app, name), done))
    for each in (app, own("subclass")):
        done.clear()
        assert getattr(each, name).__func__ is original
        with closing(AsyncLog(each)):
            each.test_client().get("/")
        assert done == ["more"]


@each_method
def test_a_wrapper_around_flasks(monkeypatch: pytest.MonkeyPatch, make_app: MakeApp, name: str) -> None:
    """As tracers put it there: it uses no other names than Flask's, and does more."""
    original = getattr(Flask, name)
    seen: list[object] = []
    note = seen.append

    def wrapper(self: Flask, *args: Any) -> Any:
        note(self)
        return original(self, *args)

    monkeypatch.setattr(Flask, name, wrapper)
    assert not set(wrapper.__code__.co_names)
    app, _ = make_app()
    app.test_client().get("/")
    assert seen == [app]


def test_a_subclass_and_an_instance_with_their_own() -> None:
    """Both are asked, before requests and after."""

    class Own(Flask):
        def preprocess_request(self, *args: Any) -> Any:
            return "of the class"

        def process_response(self, *args: Any) -> Any:
            args[-1].headers["by"] = "the class"
            return args[-1]

    own, plain = Own("own"), Flask("plain")
    plain.preprocess_request = lambda *args: "of the instance"  # type: ignore[method-assign]
    plain.process_response = lambda *args: Response("another")  # type: ignore[method-assign, assignment]
    for app in (own, plain):
        assert not any(is_known(app, name) for name in METHODS)
    with closing(AsyncLog(own)), closing(AsyncLog(plain)):
        found = own.test_client().get("/")
        assert (found.text, found.headers["by"]) == ("of the class", "the class")
        assert plain.test_client().get("/").text == "another"


def test_functions_that_come_and_go(make_app: MakeApp) -> None:
    """Of the app and of blueprints, of both kinds, whenever they are registered."""
    app, _ = make_app()
    app.add_url_rule("/", "view", lambda: "the view")
    client = app.test_client()
    assert client.get("/").text == "the view"
    functions: dict[Any, Any] = {None: [lambda: "a function"]}
    before, app.before_request_funcs = app.before_request_funcs, functions
    assert client.get("/").text == "a function"
    app.before_request_funcs = before
    assert client.get("/").text == "the view"
    values: list[object] = []
    app.url_value_preprocessors[None].append(lambda endpoint, arguments: values.append(endpoint))
    assert client.get("/").text == "the view"
    assert values == ["view"]


def test_functions_of_a_blueprint(make_app: MakeApp) -> None:
    """Its own are called for its own requests only, as ever."""
    app, _ = make_app()
    blueprint = Blueprint("blueprint", __name__)
    blueprint.before_request(lambda: "refused")
    blueprint.add_url_rule("/in", "view", lambda: "in")
    app.register_blueprint(blueprint)
    app.add_url_rule("/out", "view", lambda: "out")
    assert [app.test_client().get(path).text for path in ("/in", "/out")] == ["refused", "out"]


def test_originals_are_told_by_the_place_of_their_code() -> None:
    """Neither a function of another file nor something that is no function."""
    neighbour = logging.getLevelName
    assert if_original(logging.Logger.handle, neighbour) is logging.Logger.handle
    assert if_original(only_calls_functions, neighbour) is None
    assert if_original(logging.getLogger().handle, neighbour) is None
    assert if_original(logging.Logger.handle, len) is None
