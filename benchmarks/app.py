"""The app that is measured, and requests to it without a server. Used in a block's own process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter_ns
from typing import Any

from flask import Flask
from werkzeug.test import EnvironBuilder

from benchmarks.contenders import Contender, Logging
from benchmarks.sink import Expected, mark

Environ = dict[str, Any]

#: Records of each request whose view logs.
MANY = 20


def make(contender: Contender, directory: Path, **options: Any) -> tuple[Flask, Logging]:
    """A small app with a small JSON view, one that logs `MANY` records, and one that logs a WARNING."""
    app = Flask("bench")
    its = contender.start(app, directory, **options)
    info, warning = its.info, its.warning
    text = its.message("record %s of %s")

    @app.get("/item/<item>")
    def item(item: str) -> dict[str, object]:
        return {"item": item, "found": True, "tags": ["a", "b"]}

    @app.get("/many/<item>")
    def many(item: str) -> dict[str, object]:
        tag, _, number = item.strip("~").rpartition("-")
        for each in range(int(number) * MANY, (int(number) + 1) * MANY):
            info(text, mark(f"view.{tag}", each), "many")
        return {"item": item, "found": True, "tags": ["a", "b"]}

    @app.get("/warn/<item>")
    def warn(item: str) -> dict[str, object]:
        number = int(item.strip("~").rpartition("-")[2])
        warning(text, mark("warned", number), "one")
        return {"item": item, "found": True, "tags": ["a", "b"]}

    return app, its


def environs(tag: str, count: int, view: str = "item") -> Iterator[Environ]:
    """The environments of ``count`` requests, each with a mark of its own.

    Made when they are asked for, as a server does: what has lain around for long is cold, and Werkzeug keeps the whole
    request in it.
    """
    base = EnvironBuilder(path="/", headers=[("User-Agent", "bench"), ("Accept", "*/*")]).get_environ()
    for number in range(count):
        path = f"/{view}/{mark(tag, number)}"
        yield {**base, "PATH_INFO": path, "REQUEST_URI": path, "RAW_URI": path}


def answer(app: Flask, environ: Environ) -> None:
    """One request, from the environment to the closed body."""
    body = app.wsgi_app(environ, _start_response)
    for _ in body:
        pass
    close: Callable[[], object] | None = getattr(body, "close", None)
    if close is not None:
        close()


def _start_response(status: str, headers: object, error: object = None) -> Callable[[bytes], object]:
    if not status.startswith("200"):
        raise RuntimeError(f"the app answered {status}")
    return lambda _: None


def timed(app: Flask, environ: Environ) -> float:
    """Seconds that one request took."""
    began = perf_counter_ns()
    answer(app, environ)
    return (perf_counter_ns() - began) / 1e9


def expected_of_requests(contender: Contender, its: Logging, counts: dict[str, int], view: str = "item") -> Expected:
    """What is to be in the files after so many requests of each tag."""
    if not contender.writes:
        return Expected({}, {})
    marked = {f"Request/{tag}": count for tag, count in counts.items()}
    unmarked: dict[str, int] = {}
    if its.own_requests:
        marked |= {f"Response/{tag}": count for tag, count in counts.items()}
    else:
        unmarked["Response"] = sum(counts.values())
    if view == "many":
        marked |= {f"record/view.{tag}": count * MANY for tag, count in counts.items()}
    if view == "warn":
        marked["record/warned"] = sum(counts.values())
    return Expected(marked, unmarked)
