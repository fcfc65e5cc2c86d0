"""The records of requests and responses: like any other to levels, filters, handlers and pytest's ``caplog``."""

from __future__ import annotations

import functools
import logging
import os
from typing import Any, Protocol

from flask_asynclog.context import Context
from flask_asynclog.entries import Event, milliseconds_of
from flask_asynclog.recordfields import complete, context_fields, context_of, event_fields
from flask_asynclog.records import EVENT, new_record

_sample = new_record()
#: `logging` counts ``relativeCreated`` from here, seconds since the epoch.
_STARTED = _sample.created - _sample.relativeCreated / 1000


@functools.lru_cache(1)
def _process_name(pid: int) -> str | None:
    """What `multiprocessing` calls this process; a record knows."""
    return new_record().processName


class HookEvent(Event, Protocol):
    """An event that a hook has seen."""

    #: Name of the hook.
    function: str

    @property
    def shown_context(self) -> Context:
        """The one it happened in, with what was bound as it may be shown."""
        ...

    @property
    def thread(self) -> int | None:
        """Number of the thread it was on; ``None``: nobody wants to know."""
        ...

    @property
    def thread_name(self) -> str | None:
        """Name of that thread."""
        ...


class ExchangeRecord(logging.LogRecord):
    """A record of a `HookEvent`, made without the walk up the stack that finds the place of a logging call.

    What the event tells can be had by name, ``getattr(record, "http.response.status_code")``, and costs nothing until
    somebody asks.
    """

    def __init__(self, event: HookEvent) -> None:
        # Each of them, in one order: all these records, and their copies, share one table of names.
        self.name = event.name
        self.msg = event.message
        self.args = (event,)
        self.levelname = logging.getLevelName(event.levelno)
        self.levelno = event.levelno
        self.pathname = __file__
        self.filename = _FILE
        self.module = _MODULE
        self.exc_info = None
        self.exc_text = None
        self.stack_info = None
        self.lineno = _LINE
        self.funcName = event.function
        self.created = created = event.created
        self.msecs = milliseconds_of(created)
        self.relativeCreated = (created - _STARTED) * 1000
        self.thread = event.thread
        self.threadName = event.thread_name
        self.process = os.getpid()
        self.processName = _process_name(self.process)
        for name in _OTHERS:
            setattr(self, name, None)
        self._asynclog_event = event
        self._asynclog_context = event.shown_context

    def __getattr__(self, name: str) -> Any:
        fields = self.__dict__
        if not name.startswith("_") and EVENT in fields:
            known = event_fields(fields) | context_fields(context_of(fields))
            if name in known:
                return known[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy, or what goes to another process: of the standard library's types, with all that the event tells.
        fields = {**self.__dict__, "msg": self.getMessage(), "args": None}
        record = complete(new_record(fields))
        return logging.makeLogRecord, (record.__dict__,)


_FILE = os.path.basename(__file__)
_MODULE = _FILE.removesuffix(".py")
_LINE = ExchangeRecord.__init__.__code__.co_firstlineno
#: What newer Pythons have in a record, beside what is set here.
_OTHERS = [name for name in vars(_sample) if name not in ExchangeRecord.__init__.__code__.co_names]
