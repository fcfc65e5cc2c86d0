"""What others have replaced in Flask and `logging`: it is noticed, and does what it is there for."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import closing
from types import FrameType
from typing import Any

import flask.app
import pytest
from flask import Blueprint, Flask

from flask_asynclog import AsyncLog
from flask_asynclog.originals import if_original, only_calls_functions
from support import profiled

MakeApp = Callable[..., tuple[Flask, AsyncLog]]


def in_flask(source: str) -> Any:
    """A ``preprocess_request`` that stands in Flask's own file, as that of a later Flask would."""
    names: dict[str, Any] = {}
    exec(compile(source, Flask.__init__.__code__.co_filename, "exec"), vars(flask.app), names)
    return names["preprocess_request"]


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a replacement of ``Flask.preprocess_request`` has done."""
    calls: list[str] = []
    monkeypatch.setattr(flask.app, "calls", calls, raising=False)
    return calls


def test_what_is_known_of_flask() -> None:
    """Of each Flask that these tests run with: it is not asked to look for functions where there are none."""
    assert only_calls_functions(Flask("known"))


def test_a_later_flask_that_does_more(monkeypatch: pytest.MonkeyPatch, done: list[str], make_app: MakeApp) -> None:
    """It is called for each request."""
    later = in_flask("def preprocess_request(self, *args):\n    calls.append('more')\n")
    monkeypatch.setattr(Flask, "preprocess_request", later)
    app, _ = make_app()
    assert not only_calls_functions(Flask("later"))
    assert app.test_client().get("/").status_code == 404
    assert done == ["more"]


def test_a_later_flask_that_does_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its context as an argument, as Flask's developers have it."""
    later = in_flask("def preprocess_request(self, ctx):\n    return self.before_request_funcs[ctx.request.endpoint]\n")
    monkeypatch.setattr(Flask, "preprocess_request", later)
    assert only_calls_functions(Flask("later"))


def test_a_later_flask_that_does_more_in_a_nested_function(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks into that, so it is called."""
    later = in_flask("def preprocess_request(self, *args):\n    (lambda: calls)()\n")
    monkeypatch.setattr(Flask, "preprocess_request", later)
    assert not only_calls_functions(Flask("later"))


def test_flask_is_called_where_there_are_functions(make_app: MakeApp) -> None:
    """And is not, while there are none."""
    called: list[object] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code is Flask.preprocess_request.__code__:
            called.append(frame.f_locals["self"])

    def get(app: Flask) -> None:
        with profiled(note):
            app.test_client().get("/")

    without, _ = make_app("without")
    get(without)
    assert not called
    app, _ = make_app("with")
    app.before_request(lambda: None)
    get(app)
    assert called == [app]


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


def test_a_proxy_around_the_method(done: list[str]) -> None:
    """Of one app, or of a subclass."""

    class Own(Flask):
        preprocess_request = Proxy(Flask.preprocess_request, done)  # type: ignore[assignment]

    app = Flask("proxy")
    app.preprocess_request = Proxy(app.preprocess_request, done)  # type: ignore[method-assign]
    for each in (app, Own("subclass")):
        done.clear()
        assert each.preprocess_request.__func__ is Flask.preprocess_request  # type: ignore[attr-defined]
        with closing(AsyncLog(each)):
            each.test_client().get("/")
        assert done == ["more"]


def test_a_wrapper_around_flasks(monkeypatch: pytest.MonkeyPatch, make_app: MakeApp) -> None:
    """As tracers put it there: it uses no other names than Flask's, and does more."""
    original = Flask.preprocess_request
    seen: list[object] = []
    note = seen.append

    def wrapper(self: Flask, *args: Any) -> Any:
        note(self)
        return original(self, *args)

    monkeypatch.setattr(Flask, "preprocess_request", wrapper)
    assert not set(wrapper.__code__.co_names)
    app, _ = make_app()
    app.test_client().get("/")
    assert seen == [app]


def test_a_subclass_and_an_instance_with_their_own() -> None:
    """Both are asked."""

    class Own(Flask):
        def preprocess_request(self, *args: Any) -> Any:
            return "of the class"

    own, plain = Own("own"), Flask("plain")
    plain.preprocess_request = lambda *args: "of the instance"  # type: ignore[method-assign]
    assert not only_calls_functions(own)
    assert not only_calls_functions(plain)
    with closing(AsyncLog(own)), closing(AsyncLog(plain)):
        assert own.test_client().get("/").text == "of the class"
        assert plain.test_client().get("/").text == "of the instance"


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
