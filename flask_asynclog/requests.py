"""The beginning of a request: its ``Request`` record, and what there may be to decide about it before.

Runs on the request's thread.
"""

from __future__ import annotations

import logging
from contextvars import copy_context
from random import Random
from sys import modules

from flask import Request

from flask_asynclog import lifecycle
from flask_asynclog.combined import CombinedFormatter
from flask_asynclog.config import Settings
from flask_asynclog.eventlog import EventLogger
from flask_asynclog.exchange import Exchange
from flask_asynclog.held import HeldRecords
from flask_asynclog.pipeline import Pipeline
from flask_asynclog.tracing import current_span


class _Dice(Random):
    """Of our own: an app may seed that of the module in each request. Forked workers do not throw alike."""

    def after_fork_in_child(self) -> None:
        """Begin anew."""
        self.seed()


_dice = _Dice()
lifecycle.register(_dice)
random = _dice.random


class RequestLog:
    """Logs the requests of one app, as its settings want them."""

    def __init__(self, settings: Settings, pipeline: Pipeline, events: EventLogger) -> None:
        self._pipeline = pipeline
        self._events = events
        self._accept = events.accept
        # A line of the combined format is a response.
        self.wanted = "request" in settings.request_events and not isinstance(
            pipeline.sink.formatter, CombinedFormatter
        )
        #: The least level that a record of an exchange may have.
        self._lowest = min(logging.INFO, settings.client_error_level)
        self._excludes = settings.excludes if settings.exclude_paths else None
        self._rate = settings.sample_rate
        #: Whether there is nothing to decide about the response of a request that is not left out.
        self._plain = (
            "response" in settings.request_events
            and self._rate >= 1
            and not (settings.held or settings.response_headers)
        )
        self._held = settings.held
        # What is not known before the first request, when everything has been imported and set up.
        #: Whether Flask-Login is there.
        self.login: bool | None = None
        #: The same of all requests, and of their responses.
        self._simple = False

    def begin(self, exchange: Exchange, request: Request) -> None:
        """Log a request, in its context, unless that is not wanted."""
        pipeline = self._pipeline
        exchange.alone = alone = self._events.alone(self._lowest)
        exchange.begin(request, pipeline.shows_fields or not alone, pipeline.shows_threads)
        if alone and self._simple and not pipeline.reconfigured and not pipeline.queue.careful:
            exchange.plain = True
            accept = self._accept  # loaded, then called: see `RecordQueue.append`
            accept(exchange, logging.INFO)
        else:
            self._decide(exchange)

    def _decide(self, exchange: Exchange) -> None:
        """What there may be to do before a request is logged, and whether it is."""
        pipeline, alone = self._pipeline, exchange.alone
        if not alone:
            exchange.variables = copy_context()
        if pipeline.reconfigured:
            pipeline.repair()
        if self.login is None:
            login = "flask_login" in modules
            self._plain = self._plain and not login
            self._simple = self._plain and self.wanted and self._excludes is None
            self.login = login  # last: then another thread does not look
        if self._held:
            exchange.held = HeldRecords(self._held, pipeline.queue.accept)
        if self._excludes is not None and self._excludes(exchange.path):
            exchange.silent = True
            return
        if pipeline.queue.careful:
            exchange.own_span = current_span()
        exchange.plain = alone and self._plain
        if self._rate < 1 and random() >= self._rate:
            exchange.sampled = False
        elif self.wanted:
            if alone:
                self._accept(exchange, logging.INFO)
            else:
                self._events.log(exchange)
