"""The end of a request: its ``Response`` record, now or when all has been sent, and what depends on how it ended.

Runs on the request's thread, or on whichever the server sends from. Its own errors are said once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextvars import Context as Variables
from contextvars import copy_context
from functools import partial
from sys import modules
from time import perf_counter
from typing import TYPE_CHECKING

from flask_asynclog.body import Sent, StreamedBody, watch_file
from flask_asynclog.config import Settings
from flask_asynclog.context import Context, get_current, set_current
from flask_asynclog.eventlog import EventLogger
from flask_asynclog.exchange import Exchange
from flask_asynclog.headers import number_of
from flask_asynclog.outcome import Outcome, SentOutcome, has_body
from flask_asynclog.pipeline import Pipeline
from flask_asynclog.records import own_record
from flask_asynclog.report import Once
from flask_asynclog.values import show_error

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_once = Once()


def say_failure(where: str, error: Exception) -> None:
    """Say that a hook has failed; the request has not."""
    _once.say(f"{where} {type(error)}", f"{where}() failed: {show_error(error)}")


class ResponseLog:
    """Logs the responses of one app, as its settings want them.

    :param requests: whether requests are logged, too.
    """

    def __init__(self, settings: Settings, pipeline: Pipeline, events: EventLogger, *, requests: bool) -> None:
        self._pipeline = pipeline
        self._events = events
        self._requests = requests
        self._wanted = "response" in settings.request_events
        self._held = settings.held
        self._headers = frozenset(name.lower() for name in settings.response_headers)
        #: What is made of a response that is whole.
        self.outcome = SentOutcome if self._headers else Outcome
        #: It sends the status when it has it.
        self._in_uwsgi = "uwsgi" in modules

    def log(self, outcome: Outcome, headers: Iterable[tuple[str, str]], error: BaseException | None = None) -> None:
        """Log what came of a request, unless that is not wanted; in the request's context."""
        exchange = outcome.exchange
        if exchange.held is not None:
            self.settle(exchange, wanted=outcome.notable)
        if exchange.silent:
            return
        if not exchange.sampled:
            if not outcome.notable:
                return
            if self._requests:  # now that it is known
                self._log(exchange)
        if not self._wanted:
            return
        if isinstance(outcome, SentOutcome):
            outcome.headers = [pair for pair in headers if pair[0].lower() in self._headers]
        self._log(outcome, error)

    def _log(self, event: Exchange | Outcome, error: BaseException | None = None) -> None:
        if error is None and event.exchange.alone:
            self._events.accept(event, event.levelno)
        else:
            self._events.log(event, error)

    def settle(self, exchange: Exchange, *, wanted: bool) -> None:
        """Write what was held for a request, or forget it; once that is known, nothing changes it."""
        left_out = 0 if exchange.held is None else exchange.held.settle(wanted=wanted)
        if left_out:
            text = "%d older records of this request were not held: ASYNCLOG_BUFFER_SIZE=%d"
            self._pipeline.handler.handle(own_record(text, left_out, self._held))

    def follow(
        self,
        exchange: Exchange,
        environ: WSGIEnvironment,
        body: Iterable[bytes],
        begin: Callable[[Exchange, WSGIEnvironment], object],
    ) -> Iterable[bytes]:
        """Log a response when it has been sent, which is now where all of it is there.

        :param begin: logs the request, where that has not been done yet.
        """
        context, whole = get_current(), partial(_whole, exchange)
        end: Callable[[Sent], None] = partial(self._end, exchange)
        if not exchange.begun:  # a generator around the app: it runs when the server asks for the body
            end = partial(self._end_late, partial(begin, exchange, environ), exchange)
        if isinstance(body, (list, tuple)):
            size, most = sum(map(len, body)), whole()
            end(Sent(size if most is None else min(size, most)))
            return body
        return body if watch_file(body, environ, context, whole, end) else StreamedBody(body, context, whole, end)

    def _end_late(self, begin: Callable[[], object], exchange: Exchange, sent: Sent) -> None:
        if sent.error is not None:  # it may not have come to the app
            begin()
        self._end(exchange, sent)

    def _end(self, exchange: Exchange, sent: Sent) -> None:
        try:
            to_come, exchange.to_come = exchange.to_come, None
            variables, exchange.variables = exchange.variables, None
            first_byte = sent.first_byte if exchange.first_write is None else exchange.first_write
            if to_come is None and (sent.error is None or not exchange.begun):
                return  # no status: it is the server that answers; or there was one at once
            if to_come is None and exchange.responded and sent.error is not None:  # of a generator around the app
                if exchange.error != show_error(sent.error):  # or it is what has been logged for the response
                    _variables(variables).run(self._log_late, exchange, get_current(), sent.error)
                return
            if sent.error is not None:
                exchange.note_error(sent.error)
            unsent = first_byte is None and not (sent.aborted or self._in_uwsgi)
            if to_come is None or (sent.error is not None and unsent):
                # As of PEP 3333 no server has sent a status before the first byte.
                to_come, sent.size = ("500 INTERNAL SERVER ERROR", None, ()), None
            status, size, headers = to_come
            outcome = SentOutcome(exchange, status, size, get_current())
            outcome.sent, outcome.aborted = sent.size, sent.aborted
            if outcome.sent is not None:
                outcome.sent += exchange.written
            if first_byte is not None:
                outcome.first_byte = first_byte - exchange.started
            if exchange.alone or variables is None:
                self.log(outcome, headers, sent.error)
            else:  # as if its context were still there, for filters that look at it
                variables.run(self._log_afterwards, outcome, headers, sent.error)
        except Exception as error:
            say_failure("close", error)

    def _log_afterwards(
        self, outcome: Outcome, headers: Iterable[tuple[str, str]], error: BaseException | None = None
    ) -> None:
        set_current(outcome.context)  # in the copy
        self.log(outcome, headers, error)

    def _log_late(self, exchange: Exchange, context: Context | None, error: BaseException) -> None:
        set_current(context)  # in the copy
        if self._wanted and not exchange.silent:
            self._events.log_late(exchange, error)

    def fail(self, exchange: Exchange, error: BaseException) -> None:
        """Log the response that the server makes of an exception, with its traceback, which nobody else logs.

        Where one was handed over and is logged already, that stays, and the exception has a record of its own.
        """
        try:
            # As if its context were still there, for filters that look at it.
            run = _variables(exchange.variables).run
            exchange.variables = None  # they lead to the environment, and that back to the exchange
            if exchange.responded and exchange.to_come is None:
                late, exchange.late_error = exchange.late_error, show_error(error)
                if late != exchange.late_error:  # otherwise it was given to ``start_response``, and raised again
                    run(self._log_late, exchange, get_current(), error)
                return
            exchange.responded, exchange.to_come = True, None
            if exchange.error is None:
                exchange.note_error(error)
            outcome = Outcome(exchange, "500 INTERNAL SERVER ERROR", None, get_current())
            run(self._log_afterwards, outcome, (), error)
        except Exception as own:
            say_failure("wsgi_app", own)
        finally:
            exchange.variables = None  # it may wait in the queue for long

    def upgraded(self, exchange: Exchange) -> bool:
        """Log the end of a WebSocket: Flask-Sock and others serve it within the request, beside ``start_response``.

        :returns: whether that is all there is to log of the request.
        """
        if exchange.error is not None or exchange.to_come is not None:
            return False
        if exchange.responded:
            return True
        exchange.responded = True
        try:
            self.log(Outcome(exchange, "101 SWITCHING PROTOCOLS", None, get_current()), ())
        except Exception as error:
            say_failure("wsgi_app", error)
        finally:
            exchange.variables = None  # it may wait in the queue for long
        return True


def _variables(kept: Variables | None) -> Variables:
    """Those of a request, or what they are now."""
    return copy_context() if kept is None else kept


def _whole(exchange: Exchange) -> int | None:
    """Bytes that a body should have, beside what was written before it; ``None``: not known."""
    if exchange.to_come is None:
        return None
    status, size, _ = exchange.to_come
    whole = number_of(size) if has_body(exchange.method, status) else 0
    return None if whole is None else max(0, whole - exchange.written)


def write_to(exchange: Exchange, write: Callable[[bytes], object], part: bytes) -> object:
    """What ``start_response`` returns, for apps that do not return their body."""
    if exchange.first_write is None and part:
        exchange.first_write = perf_counter()
    result = write(part)
    exchange.written += len(part)
    return result
