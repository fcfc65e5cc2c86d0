"""`bind`: fields of your own on every later record of a request, and on no record of another."""

from __future__ import annotations

import contextlib
import contextvars
import datetime
import gc
import io
import json
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, copy_current_request_context, got_request_exception, request, stream_with_context

from flask_asynclog import AsyncLog, bind, context
from flask_asynclog.formatters import JSONFormatter
from flask_asynclog.handlers import AsyncQueueHandler, AsyncRotatingFileHandler
from flask_asynclog.listener import BatchQueueListener
from flask_asynclog.queue import RecordQueue
from flask_asynclog.records import snapshot
from support import HANG, PRINT_STATS, assert_conserved, log_lines, read_stats, run_python, run_threads

MakeApp = Callable[..., tuple[Flask, AsyncLog]]
Document = dict[str, Any]


@pytest.fixture(autouse=True)
def nothing_bound() -> Iterator[None]:
    """Each test starts with nothing bound, and leaves nothing: what is bound outside of requests lasts for ever."""
    outer = context.current.get()
    yield
    left, _ = context.current.get(), context.current.set(outer)
    assert left is outer


def logged(asynclog: AsyncLog) -> list[str]:
    """The lines so far, every record accounted for."""
    assert asynclog.flush(HANG)
    assert_conserved(asynclog.stats())
    return log_lines(Path("app.log"))


def documents(asynclog: AsyncLog) -> list[Document]:
    """The lines so far, as JSON."""
    return [json.loads(line) for line in logged(asynclog)]


def by_message(asynclog: AsyncLog, *names: str) -> dict[str, Any]:
    """The first word of each message, and what its record has of these fields: one value, or all of them."""
    found: dict[str, Any] = {}
    for document in documents(asynclog):
        values = tuple(document.get(name) for name in names)
        found[document["message"].split()[0]] = values[0] if len(names) == 1 else values
    return found


# Where it is called.


def test_from_the_call_to_the_end_of_the_request(make_app: MakeApp) -> None:
    """Records before the call do not have the field; all later ones have it, the response and teardown included."""
    app, asynclog = make_app(format="json")

    @app.get("/")
    def view() -> str:
        app.logger.info("before")
        bind(user_id=42)
        app.logger.info("after")
        return "x"

    app.teardown_request(lambda error: app.logger.info("teardown"))
    app.test_client().get("/")
    app.logger.info("outside")
    assert by_message(asynclog, "user_id") == {
        "Request": None, "before": None, "after": 42, "Response": 42, "teardown": 42, "outside": None,
    }  # fmt: skip


def test_in_every_function_of_a_request(make_app: MakeApp) -> None:
    """Each function sees what those before it have bound, and adds to it; a teardown's own is on what it logs."""
    app, asynclog = make_app(format="json")
    log = app.logger.info
    app.url_value_preprocessor(lambda endpoint, values: bind(first=0))
    app.before_request(lambda: log("before_request") or (bind(second=1) and None))

    @app.after_request
    def after(response: Response) -> Response:
        log("after_request")
        bind(fourth=3)
        return response

    @app.teardown_request
    def teardown(error: BaseException | None) -> None:
        bind(fifth=4)
        log("teardown")

    @app.get("/")
    def view() -> str:
        log("view")
        bind(third=2)
        return "x"

    app.test_client().get("/")
    assert by_message(asynclog, "first", "second", "third", "fourth", "fifth") == {
        "Request": (None, None, None, None, None),
        "before_request": (0, None, None, None, None),
        "view": (0, 1, None, None, None),
        "after_request": (0, 1, 2, None, None),
        "Response": (0, 1, 2, 3, None),
        "teardown": (0, 1, 2, 3, 4),
    }


def test_before_the_request_is_logged(make_app: MakeApp) -> None:
    """What a session interface binds, which Flask asks before all other functions, is on the Request record too."""
    app, asynclog = make_app(format="json")

    class Sessions(type(app.session_interface)):  # type: ignore[misc]
        def open_session(self, app: Flask, request: Any) -> Any:
            bind(tenant="acme")
            app.logger.info("opening")
            return super().open_session(app, request)

    app.session_interface = Sessions()
    app.add_url_rule("/", "view", lambda: "x")
    app.test_client().get("/")
    assert by_message(asynclog, "tenant") == {"opening": "acme", "Request": "acme", "Response": "acme"}
    assert len({d["request_id"] for d in documents(asynclog)}) == 1


@pytest.mark.parametrize("keeps_context", [False, True], ids=["plain", "stream_with_context"])
def test_in_a_streamed_body(make_app: MakeApp, keeps_context: bool) -> None:
    """A generator has what the view bound; what it binds lasts from part to part, and is on the Response record."""
    app, asynclog = make_app(format="json")

    @app.get("/")
    def view() -> Response:
        bind(view=1)

        def generate() -> Iterator[bytes]:
            app.logger.info("first")
            bind(part=1)
            yield b"1"
            with bind(part=2):
                app.logger.info("second")
                yield b"2"
                app.logger.info("third")
            app.logger.info("fourth")

        return Response(stream_with_context(generate()) if keeps_context else generate())

    assert app.test_client().get("/").data == b"12"
    assert by_message(asynclog, "view", "part") == {
        "Request": (None, None),
        "first": (1, None),
        "second": (1, 2),
        "third": (1, 2),
        "fourth": (1, 1),
        "Response": (1, 1),
    }


def test_two_streamed_bodies_at_a_time(make_app: MakeApp) -> None:
    """Two generators in turn on one thread keep their fields apart."""
    app, asynclog = make_app(format="json")

    @app.get("/<name>")
    def view(name: str) -> Response:
        def generate() -> Iterator[bytes]:
            bind(name=name)  # as a field, "name" is free in JSON lines
            for part in range(3):
                app.logger.info("part %d of %s", part, name)
                yield b"x"

        return Response(generate())

    client = app.test_client()
    bodies = [iter(client.get(f"/{name}", buffered=False).response) for name in "ab"]
    for _ in range(3):
        for body in bodies:
            next(body)
        assert context.current.get() is None
    for body in bodies:
        assert list(body) == []
    found = [(d["message"][-1], d["name"]) for d in documents(asynclog) if d["message"].startswith("part")]
    assert len(found) == 6
    assert all(of == name for of, name in found)
    assert [d["name"] for d in documents(asynclog) if d["message"].startswith("Response")] == ["a", "b"]


def test_in_an_async_view(tmp_path: Path) -> None:
    """What an async view binds is on its records and on the Response; tasks have it, and keep theirs for themselves."""
    pytest.importorskip("asgiref", reason="flask[async] is not installed")
    # In a process of its own: asgiref leaves a thread behind.
    done = run_python(PRINT_STATS + ASYNC_VIEW, cwd=tmp_path)
    assert_conserved(read_stats(done.stdout))
    found = {d["message"].split()[0]: (d.get("a"), d.get("b")) for d in map(json.loads, log_lines(Path("app.log")))}
    assert found == {
        "Request": (None, None), "before": (1, None), "view": (1, None), "task": (1, 2), "late": (1, None),
        "copy": (1, None), "after": (3, None), "Response": (3, None), "outside": (None, None),
    }  # fmt: skip


ASYNC_VIEW = """
import asyncio
from contextvars import copy_context
from concurrent.futures import ThreadPoolExecutor
from flask import Flask, copy_current_request_context
from flask_asynclog import AsyncLog, bind

app = Flask("async_view")
asynclog = AsyncLog(app, format="json")

async def task():
    bind(b=2)
    await asyncio.sleep(0)
    app.logger.info("task")

pool = ThreadPoolExecutor(1)

async def coroutine():
    bind(b=9)

def in_copy(text):
    # What Flask's copies do not have: it runs in a copy of its own.
    pool.submit(copy_context().run, app.ensure_sync(coroutine)).result(60)
    pool.submit(copy_current_request_context(lambda: app.logger.info(text))).result(60)

@app.before_request
async def before():
    bind(a=1)
    in_copy("before")

@app.get("/")
async def view():
    app.logger.info("view")
    await asyncio.create_task(task())
    app.logger.info("late")
    in_copy("copy")
    return "x"

@app.after_request
def after(response):
    bind(a=3)
    in_copy("after")
    return response

assert app.test_client().get("/").data == b"x"
app.logger.info("outside")
assert asynclog.flush(60)
print_stats(asynclog.stats())
"""


def test_in_a_handler_of_exceptions(make_app: MakeApp) -> None:
    """A receiver of ``got_request_exception`` has the fields and the id, and what it binds is on the Response."""
    app, asynclog = make_app(format="json")

    @app.get("/")
    def view() -> str:
        bind(a=1)
        raise ArithmeticError

    def receive(sender: Flask, exception: BaseException) -> None:
        app.logger.info("received")
        bind(b=2)

    with got_request_exception.connected_to(receive, app):
        app.test_client().get("/")
    assert by_message(asynclog, "a", "b") == {
        "Request": (None, None), "received": (1, None), "Exception": (1, 2), "Response": (1, 2),
    }  # fmt: skip
    assert len({d["request_id"] for d in documents(asynclog)}) == 1


def test_an_exception_that_leaves_the_app(make_app: MakeApp) -> None:
    """Where Flask lets it out, the Response record has what was bound, and nothing is left behind."""
    app, asynclog = make_app(format="json")
    app.testing = True

    @app.get("/")
    def view() -> str:
        bind(a=1)
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        app.test_client().get("/")
    app.logger.info("outside")
    assert by_message(asynclog, "a") == {"Request": None, "Response": 1, "outside": None}


# Threads, pools, greenlets.


def test_on_a_thread_of_the_request(make_app: MakeApp) -> None:
    """With a copy of the context it has fields and id, and what it binds stays there; without one it has nothing."""
    app, asynclog = make_app(format="json")

    def work(name: str) -> None:
        app.logger.info(name)
        bind(thread=name)
        app.logger.info("more-%s", name)

    @app.get("/")
    def view() -> str:
        bind(a=1)
        copied = contextvars.copy_context()
        run_threads(lambda: copied.run(work, "copied"), lambda: contextvars.Context().run(work, "none"))
        app.logger.info("back")
        return "x"

    app.test_client().get("/")
    found = by_message(asynclog, "a", "thread")
    assert found == {
        "Request": (None, None),
        "copied": (1, None),
        "more-copied": (1, "copied"),
        "none": (None, None),
        "more-none": (None, "none"),
        "back": (1, None),
        "Response": (1, None),
    }
    ids = by_message(asynclog, "request_id")
    assert ids["copied"] == ids["back"] is not None
    assert ids["none"] is None


def test_on_a_thread_that_outlives_the_request(make_app: MakeApp) -> None:
    """Its copy of the context stays that of its request, while the next request runs on the first one's thread."""
    app, asynclog = make_app(format="json")
    go_on = threading.Event()
    threads: list[threading.Thread] = []

    def work() -> None:
        assert go_on.wait(HANG)
        app.logger.info("late")

    @app.get("/<int:n>")
    def view(n: int) -> str:
        bind(n=n)
        if n == 1:
            threads.append(threading.Thread(target=contextvars.copy_context().run, args=(work,)))
            threads[0].start()
        else:
            go_on.set()
            threads[0].join()
        return "x"

    first, _ = (app.test_client().get(f"/{n}") for n in (1, 2))
    assert by_message(asynclog, "n", "request_id")["late"] == (1, first.headers["X-Request-ID"])


def test_on_a_thread_of_a_pool(make_app: MakeApp) -> None:
    """A copy per job keeps the jobs of a pool's one thread apart; nothing stays on the thread."""
    app, asynclog = make_app(format="json")

    def job(number: int) -> None:
        bind(job=number)
        app.logger.info("job-%d", number)

    with ThreadPoolExecutor(1) as pool:

        @app.get("/<int:n>")
        def view(n: int) -> str:
            bind(n=n)
            pool.submit(contextvars.copy_context().run, job, n).result(HANG)
            return "x"

        for n in range(3):
            app.test_client().get(f"/{n}")
        pool.submit(app.logger.info, "idle").result(HANG)
    found = by_message(asynclog, "n", "job", "request_id")
    assert [found[f"job-{n}"][:2] for n in range(3)] == [(n, n) for n in range(3)]
    assert found["idle"] == (None, None, None)


def test_in_a_copy_of_flasks_request_context(make_app: MakeApp) -> None:
    """`copy_current_request_context` takes id and fields along to another thread, and takes them away at its end."""
    app, asynclog = make_app(format="json")

    def job() -> None:
        app.logger.info("in %s", request.path)
        bind(job=1)
        app.logger.info("later")
        assert context.request_id() is not None

    with ThreadPoolExecutor(1) as pool:

        @app.get("/")
        def view() -> str:
            bind(a=1)
            pool.submit(copy_current_request_context(job)).result(HANG)
            pool.submit(app.logger.info, "idle").result(HANG)
            app.logger.info("back")
            return "x"

        request_id = app.test_client().get("/").headers["X-Request-ID"]
    assert by_message(asynclog, "a", "job", "request_id") == {
        "Request": (None, None, request_id),
        "in": (1, None, request_id),
        "later": (1, 1, request_id),
        "idle": (None, None, None),
        "back": (1, None, request_id),
        "Response": (1, None, request_id),
    }


def test_what_a_copy_binds_is_not_in_another(make_app: MakeApp) -> None:
    """A thread or a call in a copy of the variables binds for itself: Flask's copies have what the view has bound."""
    app, asynclog = make_app(format="json")

    def shard(n: int) -> None:
        with bind(shard=n):
            bind(inner=n)

    def job(name: str) -> None:
        app.logger.info(name)

    with ThreadPoolExecutor(4) as pool:

        @app.get("/")
        def view() -> str:
            bind(a=1)
            for future in [pool.submit(contextvars.copy_context().run, shard, n) for n in range(8)]:
                future.result(HANG)
            pool.submit(copy_current_request_context(job), "first").result(HANG)
            contextvars.copy_context().run(bind, shard=9)
            bind(b=2)
            pool.submit(contextvars.copy_context().run, shard, 10).result(HANG)
            pool.submit(copy_current_request_context(job), "second").result(HANG)
            with bind(a=3):
                pool.submit(copy_current_request_context(job), "third").result(HANG)
            pool.submit(copy_current_request_context(job), "fourth").result(HANG)
            return "x"

        app.test_client().get("/")
    assert by_message(asynclog, "a", "b", "shard", "inner") == {
        "Request": (None, None, None, None),
        "first": (1, None, None, None),
        "second": (1, 2, None, None),
        "third": (3, 2, None, None),
        "fourth": (1, 2, None, None),
        "Response": (1, 2, None, None),
    }


def test_what_a_copy_binds_while_a_body_is_sent(make_app: MakeApp) -> None:
    """A stream runs the request as a view does."""
    app, asynclog = make_app(format="json")

    with ThreadPoolExecutor(1) as pool:

        def parts() -> Iterator[str]:
            bind(a=1)
            pool.submit(contextvars.copy_context().run, bind, n=1).result(HANG)
            pool.submit(copy_current_request_context(lambda: app.logger.info("copy"))).result(HANG)
            yield "x"

        app.add_url_rule("/", "view", lambda: Response(stream_with_context(parts())))
        assert app.test_client().get("/").text == "x"
    assert by_message(asynclog, "a", "n") == {"Request": (None, None), "copy": (1, None), "Response": (1, None)}


def test_threads_bind_while_the_view_does(make_app: MakeApp, switching: None) -> None:
    """None of them fails, and each keeps its own."""
    app, asynclog = make_app(format="json", queue_size=10_000)
    going = threading.Event()

    def work(n: int) -> None:
        while not going.is_set():
            with bind(n=n):
                app.logger.info("thread-%d", n)

    @app.get("/")
    def view() -> str:
        with ThreadPoolExecutor(3) as pool:
            copies = [pool.submit(contextvars.copy_context().run, work, n) for n in range(3)]
            for n in range(100):
                with bind(mine=n):
                    app.logger.info("view")
            going.set()
            for copy in copies:
                copy.result(HANG)
        return "x"

    assert app.test_client().get("/").status_code == 200
    found = documents(asynclog)
    assert [d["mine"] for d in found if d["message"] == "view"] == list(range(100))
    assert all((d.get("n"), d.get("mine")) == (int(d["message"][7:]), None) for d in found if "thread-" in d["message"])


def test_a_thread_binds_in_the_middle_of_the_views_bind(make_app: MakeApp) -> None:
    """When that has used the token, and not yet set another one: the thread's is done all the same."""
    app, asynclog = make_app(format="json")

    @app.get("/")
    def view() -> str:
        origin = context.get_current()
        assert origin is not None
        assert origin.token is not None
        context.current.reset(origin.token)
        context.set_current(origin)
        with ThreadPoolExecutor(1) as pool:
            pool.submit(contextvars.copy_context().run, bind, n=1).result(HANG)
        bind(mine=2)
        return "x"

    app.test_client().get("/")
    assert by_message(asynclog, "n", "mine") == {"Request": (None, None), "Response": (None, 2)}


def test_a_copy_of_flasks_context_that_asks_the_app_itself(make_app: MakeApp) -> None:
    """A request made by such a job has its own id; the job's, and its fields, are there again after it."""
    app, asynclog = make_app(format="json")
    app.add_url_rule("/inner", "inner", lambda: app.logger.info("inner") or "y")

    def job() -> None:
        bind(job=1)
        app.test_client().get("/inner")
        app.logger.info("job")

    with ThreadPoolExecutor(1) as pool:

        @app.get("/")
        def view() -> str:
            pool.submit(copy_current_request_context(job)).result(HANG)
            pool.submit(app.logger.info, "idle").result(HANG)
            return "x"

        request_id = app.test_client().get("/").headers["X-Request-ID"]
    found = by_message(asynclog, "job", "request_id")
    assert found["job"] == (1, request_id)
    assert found["inner"][0] is None
    assert found["inner"][1] not in (None, request_id)
    assert found["idle"] == (None, None)


def test_a_copy_of_flasks_context_that_outlives_the_request(make_app: MakeApp) -> None:
    """It keeps the request's id and fields."""
    app, asynclog = make_app(format="json")
    go_on = threading.Event()

    def job() -> None:
        assert go_on.wait(HANG)
        with bind(job=1):
            app.logger.info("late")
        app.logger.info("later")

    @app.get("/")
    def view() -> str:
        bind(a=1)
        threads.append(threading.Thread(target=copy_current_request_context(job)))
        threads[0].start()
        return "x"

    threads: list[threading.Thread] = []
    request_id = app.test_client().get("/").headers["X-Request-ID"]
    go_on.set()
    threads[0].join()
    found = by_message(asynclog, "a", "job", "request_id")
    assert (found["late"], found["later"]) == ((1, 1, request_id), (1, None, request_id))


def test_a_client_that_keeps_its_context(make_app: MakeApp) -> None:
    """``with app.test_client()`` keeps Flask's context after the request: what is logged there is not the request's."""
    app, asynclog = make_app(format="json")
    app.add_url_rule("/", "view", lambda: bind(a=1) and "x")
    with app.test_client() as client:
        client.get("/")
        assert request.path == "/"
        app.logger.info("kept")
        with bind(b=1):
            app.logger.info("bound")
    app.logger.info("outside")
    found = by_message(asynclog, "a", "b", "request_id")
    assert found["kept"] == found["outside"] == (None, None, None)
    assert found["bound"] == (None, 1, None)


GREENLETS = """
from gevent import monkey; monkey.patch_all()
import contextvars
import gevent
from gevent.pool import Pool
from flask import Flask, request
from flask_asynclog import AsyncLog, bind, context

app = Flask("greenlets")
asynclog = AsyncLog(app, format="json")

@app.get("/<int:n>")
def view(n):
    gevent.sleep(0)
    bind(n=n)
    gevent.sleep(0.001 * (n % 3))
    app.logger.info("view", extra={"expected": n})
    def child():
        gevent.sleep(0)
        app.logger.info("child", extra={"expected": n})
    gevent.spawn(contextvars.copy_context().run, child).join()
    if n % 5 == 0:
        raise ArithmeticError
    return "x"

def worker(first):  # several requests on one greenlet, as a server does
    for n in range(first, first + 10):
        app.test_client().get(f"/{n}")
        gevent.sleep(0)
        assert context.current.get() is None
        app.logger.info("between")

pool = Pool(10)
for first in range(0, 100, 10):
    pool.spawn(worker, first)
pool.join(raise_error=True)
assert asynclog.flush(60)
print_stats(asynclog.stats())
"""


def test_on_greenlets(tmp_path: Path) -> None:
    """A hundred requests on ten greenlets in turn: each record has its own request's fields, the rest have none."""
    pytest.importorskip("gevent", reason="gevent has no release for this Python")
    done = run_python(PRINT_STATS + GREENLETS, cwd=tmp_path)
    assert_conserved(read_stats(done.stdout))
    found = [json.loads(line) for line in log_lines(Path("app.log"))]
    inside = [d for d in found if d["message"] in ("view", "child")]
    assert len(inside) == 200
    assert all(d["n"] == d["expected"] for d in inside)
    responses = [d for d in found if d["message"].startswith("Response")]
    assert sorted(d["n"] for d in responses) == list(range(100))
    assert all(d["url.path"] == f"/{d['n']}" for d in responses)
    assert not any("n" in d or "request_id" in d for d in found if d["message"] == "between")
    assert not any("n" in d for d in found if d["message"].startswith("Request"))


def test_many_threads_keep_their_fields_apart(make_app: MakeApp, switching: None) -> None:
    """400 requests on 8 threads, some of which fail: no field is on another's record."""
    app, asynclog = make_app(format="json")

    @app.get("/<int:n>")
    def view(n: int) -> str:
        bind(n=n)
        app.logger.info("view", extra={"expected": n})
        if n % 7 == 0:
            raise ArithmeticError
        return "x"

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: app.test_client().get(f"/{n}"), range(400)))
    found = documents(asynclog)
    assert all(d["n"] == d["expected"] for d in found if d["message"] == "view")
    assert all(d["url.path"] == f"/{d['n']}" for d in found if d["message"].startswith("Response"))
    assert not any("n" in d for d in found if d["message"].startswith("Request"))


# As a context manager.


def test_to_the_end_of_a_block(make_app: MakeApp) -> None:
    """Within the block, and also when it ends by an exception, no longer."""
    app, asynclog = make_app(format="json")

    @app.get("/")
    def view() -> str:
        with bind(a=1, b=1):
            app.logger.info("outer")
            with contextlib.suppress(LookupError), bind(a=2):
                app.logger.info("inner")
                raise LookupError
            app.logger.info("outer-again")
        app.logger.info("end")
        return "x"

    app.test_client().get("/")
    found = by_message(asynclog, "a", "b")
    assert found["outer"] == found["outer-again"] == (1, 1)
    assert found["inner"] == (2, 1)
    assert found["end"] == found["Response"] == (None, None)


def test_a_block_takes_away_its_own_fields_only(make_app: MakeApp) -> None:
    """What is bound to the request inside a block stays to the end of the request."""
    app, asynclog = make_app(format="json")

    @app.get("/")
    def view() -> str:
        with bind(step="load"):
            bind(user_id=42)
        app.logger.info("end")
        return "x"

    app.test_client().get("/")
    found = by_message(asynclog, "step", "user_id")
    assert found["end"] == found["Response"] == (None, 42)


def test_blocks_that_end_in_another_order(make_app: MakeApp) -> None:
    """Each takes its own fields away."""
    app, asynclog = make_app(format="json")

    @app.get("/")
    def view() -> str:
        first, second = bind(a=1), bind(b=2)
        first.__exit__()
        app.logger.info("second")
        second.__exit__()
        app.logger.info("none")
        return "x"

    app.test_client().get("/")
    found = by_message(asynclog, "a", "b")
    assert found["second"] == (None, 2)
    assert found["none"] == (None, None)


def test_a_block_that_ends_in_another_request(make_app: MakeApp) -> None:
    """A generator that was left in the middle of a block, and is thrown away later, changes nothing elsewhere."""
    app, asynclog = make_app(format="json")
    left: list[Iterator[int]] = []

    def steps() -> Iterator[int]:
        with bind(step=1):
            yield 1

    @app.get("/start")
    def start() -> str:
        left.append(steps())
        next(left[0])
        return "x"

    @app.get("/end")
    def end() -> str:
        bind(mine=1)
        left.clear()
        gc.collect()
        app.logger.info("end")
        return "x"

    app.test_client().get("/start")
    request_id = app.test_client().get("/end").headers["X-Request-ID"]
    assert by_message(asynclog, "mine", "step", "request_id")["end"] == (1, None, request_id)


def test_outside_of_requests(make_app: MakeApp) -> None:
    """A block in a script or a command; a request inside starts without, and the block goes on after it."""
    app, asynclog = make_app(format="json")
    app.add_url_rule("/", "view", lambda: app.logger.info("view") or (bind(inner=1) and "x"))
    with bind(job="resize"):
        app.logger.info("start")
        app.test_client().get("/")
        app.logger.info("end")
    app.logger.info("outside")
    found = by_message(asynclog, "job", "inner", "request_id")
    assert found["start"] == found["end"] == ("resize", None, None)
    assert found["view"][:2] == (None, None)
    assert found["Response"][:2] == (None, 1)
    assert found["outside"] == (None, None, None)


def test_without_an_app() -> None:
    """With a handler alone, as in scripts and workers, it is the same."""
    handler = AsyncRotatingFileHandler("app.log", format="json")
    logger = logging.getLogger("worker")
    logger.addHandler(handler)
    try:
        with bind(job=7):
            logger.warning("inside")
        logger.warning("outside")
        handler.flush()
    finally:
        logger.removeHandler(handler)
        handler.close()
    inside, outside = map(json.loads, log_lines(Path("app.log")))
    assert inside["job"] == 7
    assert "job" not in outside


def test_a_thread_has_its_own_for_ever(make_app: MakeApp) -> None:
    """Outside of requests a call without a block lasts as long as the thread; other threads do not have it."""
    app, asynclog = make_app(format="json")

    def work() -> None:
        bind(worker=1)
        app.logger.info("worker")
        app.test_client().get("/")
        app.logger.info("after")

    contextvars.copy_context().run(work)
    app.logger.info("other")
    found = by_message(asynclog, "worker")
    assert found == {"worker": 1, "Request": None, "Response": None, "after": 1, "other": None}


# Never in the next request.


@pytest.mark.parametrize("ends", ["answers", "raises", "aborts", "is ended"])
@pytest.mark.parametrize("testing", [False, True], ids=["production", "testing"])
def test_nothing_is_left_to_the_next_request(make_app: MakeApp, ends: str, testing: bool) -> None:
    """However the first request ends, the next one on the thread, and what is between them, have nothing of it."""
    app, asynclog = make_app(format="json")
    app.testing = testing

    @app.get("/first")
    def first() -> str:
        bind(a=1)
        app.logger.info("first")
        if ends == "aborts":
            app.aborter(404)
        if ends == "raises":
            raise ArithmeticError
        if ends == "is ended":
            raise SystemExit
        return "x"

    app.add_url_rule("/second", "second", lambda: app.logger.info("second") or "x")
    with contextlib.suppress(ArithmeticError, SystemExit):
        app.test_client().get("/first")
    app.logger.info("between")
    app.test_client().get("/second")
    having = [d["message"].split()[0] for d in documents(asynclog) if "a" in d]
    assert having == ["first", "Response"] or having == ["first", "Exception", "Response"]
    assert [d.get("a") for d in documents(asynclog) if d.get("url.path") == "/second"] == [None, None]


def test_nested_requests_have_their_own(make_app: MakeApp) -> None:
    """A request made inside a request starts with nothing; the outer one goes on with its fields."""
    app, asynclog = make_app(format="json")
    app.add_url_rule("/inner", "inner", lambda: (bind(inner=1) and app.logger.info("inner")) or "y")

    @app.get("/outer")
    def outer() -> str:
        bind(outer=1)
        app.test_client().get("/inner")
        app.logger.info("outer")
        return "x"

    app.test_client().get("/outer")
    found = by_message(asynclog, "outer", "inner")
    assert found["inner"] == (None, 1)
    assert found["outer"] == (1, None)


# Values and names.


def test_values_are_those_of_the_call(make_app: MakeApp) -> None:
    """Later changes of what was bound do not show; proxies and other objects are what they were then."""
    app, asynclog = make_app(format="json")
    moment = datetime.datetime(2026, 11, 22, 15, tzinfo=datetime.UTC)

    class Own:
        def __repr__(self) -> str:
            return "<Own>"

    class Broken:
        def __repr__(self) -> str:
            raise ArithmeticError

    @app.get("/")
    def view() -> str:
        items, nested = ["a"], {"deep": {"x": [1]}}
        bind(items=items, nested=nested, method=request.method, own=Own(), broken=Broken(), moment=moment)
        items.append("b")
        nested["deep"]["x"].append(2)
        app.logger.info("view")
        return "x"

    app.test_client().get("/")
    (found,) = (d for d in documents(asynclog) if d["message"] == "view")
    assert found["items"] == ["a"]
    assert found["nested"] == {"deep": {"x": [1]}}
    assert found["method"] == "GET"
    assert found["own"] == "<Own>"
    assert "ArithmeticError" in found["broken"]
    assert found["moment"].startswith("2026-11-22")


#: Names that records, fields and this library use themselves.
TAKEN = {
    "name": "n", "msg": "m", "args": (1,), "message": "forged", "level": "FORGED", "levelname": "l", "exc_info": 1,
    "exc_text": "e", "stack_info": "s", "created": 0, "request_id": "forged", "trace_id": "forged", "asctime": "t",
    "url.path": "/forged", "timestamp": "forged", "_asynclog_event": 1, "_asynclog_context": 2, "self": 3,
    "logger": "forged",
}  # fmt: skip


@pytest.mark.parametrize("format_", ["json", "ecs", "logfmt", "text", "%(request_id)s %(path)s %(message)s"])
def test_names_that_are_taken(make_app: MakeApp, format_: str, capsys: pytest.CaptureFixture[str]) -> None:
    """None of them changes what a record says of itself, in any format; nothing fails."""
    app, asynclog = make_app(format=format_)
    app.add_url_rule("/", "view", lambda: (bind(**TAKEN) and app.logger.info("in %s", "view")) or "x")
    request_id = app.test_client().get("/").headers["X-Request-ID"]
    lines = logged(asynclog)
    assert len(lines) == 3
    assert capsys.readouterr().err == ""
    if format_ in ("json", "ecs"):
        plain, response = (json.loads(line) for line in lines[1:])
        id_, level, path = (
            ("request_id", "level", "url.path") if format_ == "json" else ("http.request.id", "log.level", "url.path")
        )
        for document in (plain, response):
            assert document[id_] == request_id
            assert document["extra.message"] == "forged"
            assert document[level].upper() == "INFO"
        assert plain["message"] == "in view"
        assert response[path] == "/"
    elif format_.startswith("%"):
        assert lines[1] == f"{request_id} / in view"
    else:
        assert "in view" in lines[1]
        assert "Response 200 OK GET /" in lines[2]


def test_taken_names_and_formatters_of_others(make_app: MakeApp) -> None:
    """A formatter of `logging` finds what was bound as attributes, but none in place of the record's own."""
    format_ = logging.Formatter("%(levelname)s %(request_id)s %(user_id)s %(name)s %(message)s")
    app, asynclog = make_app(format=format_, request_events=())
    app.add_url_rule("/", "view", lambda: (bind(**TAKEN, user_id=42) and app.logger.info("view")) or "x")
    request_id = app.test_client().get("/").headers["X-Request-ID"]
    assert logged(asynclog) == [f"INFO {request_id} 42 {app.name} view"]


def test_taken_names_and_handlers_of_others() -> None:
    """Several handlers behind one queue get the same record: what was bound comes between none of them and it."""
    streams = [io.StringIO(), io.StringIO()]
    formatters = (logging.Formatter("%(levelname)s %(user_id)s %(message)s"), JSONFormatter())
    handlers = [logging.StreamHandler(stream) for stream in streams]
    for handler, formatter in zip(handlers, formatters, strict=True):
        handler.setFormatter(formatter)
    queue = RecordQueue()
    listener = BatchQueueListener(queue, *handlers)
    logger = logging.Logger("worker")
    logger.addHandler(AsyncQueueHandler(queue))
    with bind(**TAKEN, user_id=42):
        logger.warning("hello")
    listener.stop()
    assert streams[0].getvalue() == "WARNING 42 hello\n"
    document = json.loads(streams[1].getvalue())
    assert (document["level"], document["user_id"], document["extra.level"]) == ("WARNING", 42, "FORGED")


def test_extra_wins_over_what_is_bound(make_app: MakeApp) -> None:
    """What a single call says counts more than what was said for all of them; both stay visible in JSON."""
    app, asynclog = make_app(format="json")
    with bind(user="bound"):
        app.logger.info("view", extra={"user": "extra"})
    (document,) = documents(asynclog)
    assert document["user"] == "extra"


def test_in_formats_of_your_own(make_app: MakeApp) -> None:
    """``%(name)s`` shows what was bound, and ``-`` where nothing was; a number's place has 0."""
    app, asynclog = make_app(format="%(user_id)s %(count)03d %(message)s", request_events=())
    app.logger.info("none")
    with bind(user_id="u1", count=7):
        app.logger.info("bound")
    assert logged(asynclog) == ["- 000 none", "u1 007 bound"]


def test_a_bound_name_that_is_a_field_of_requests(make_app: MakeApp) -> None:
    """In a %-format it fills the place where the record has no such field, and gives way where it has."""
    app, asynclog = make_app(format="%(user)s %(path)s %(status)s %(message).8s")
    app.add_url_rule(
        "/", "view", lambda: (bind(user="ann", path="/bound", status="s") and app.logger.info("view")) or "x"
    )
    with bind(path="/job"):
        app.logger.info("outside")
    app.test_client().get("/")
    assert logged(asynclog) == ["- /job - outside", "- / - Request ", "ann / s view", "ann / 200 Response"]


@pytest.mark.parametrize("format_", ["json", "ecs", "logfmt", "%(password)s %(nested)s %(url)s %(message)s"])
def test_secrets_that_are_bound(make_app: MakeApp, format_: str) -> None:
    """They are redacted by name, in containers and URLs too, in every record that has them."""
    app, asynclog = make_app(format=format_)

    @app.get("/")
    def view() -> str:
        bind(password="hunter2", nested={"api_key": "hunter2"}, url="https://x/?token=hunter2", kept="kept-value")
        app.logger.info("plain")
        app.logger.info("%s", ["not immutable"])
        app.logger.error("failed", exc_info=ArithmeticError())
        return "x"

    app.test_client().get("/")
    text = Path("app.log").read_text() if asynclog.flush(HANG) else ""
    assert "hunter2" not in text
    assert len([line for line in text.splitlines() if "[REDACTED]" in line]) == 4
    assert format_.startswith("%") or text.count("kept-value") == 4


def test_patterns_reach_what_is_bound(make_app: MakeApp) -> None:
    """``REDACT_PATTERNS`` apply to bound texts, those of the Response record included."""
    app, asynclog = make_app(format="json", redact_patterns=[r"\d{4}-\d{4}"])
    app.add_url_rule("/", "view", lambda: (bind(card="no. 1234-5678") and app.logger.info("view")) or "x")
    app.test_client().get("/")
    assert by_message(asynclog, "card") == {"Request": None, "view": "no. [REDACTED]", "Response": "no. [REDACTED]"}


def test_the_record_of_others_is_not_touched(make_app: MakeApp) -> None:
    """Handlers of others see a record as `logging` made it; `snapshot` keeps the fields beside it."""
    app, _ = make_app(request_events=())
    seen: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record)

    app.logger.addHandler(keep := Keep())
    with bind(a=1):
        app.logger.info("x")
        copied = snapshot(seen[0])
    app.logger.removeHandler(keep)
    assert not hasattr(seen[0], "a")
    assert not hasattr(copied, "a")


def test_held_records_have_what_was_bound_when_they_were_logged(make_app: MakeApp) -> None:
    """Records below the level, written because the request failed, show the fields of their moment."""
    app, asynclog = make_app(format="json", buffer_level="DEBUG")
    app.logger.setLevel("DEBUG")

    @app.get("/")
    def view() -> str:
        app.logger.debug("early")
        bind(a=1)
        app.logger.debug("late")
        raise ArithmeticError

    app.test_client().get("/")
    app.logger.setLevel(logging.NOTSET)
    found = by_message(asynclog, "a")
    assert (found["early"], found["late"], found["Response"]) == (None, 1, 1)
