"""structlog: who is behind an event, in what its own renderers write; and events that go past ``logging``.

Over ``logging`` its events are records like all others (``signals.logs``), and what writes them is its
``ProcessorFormatter``. Alone, as it is unless somebody configures it, it prints; then the event is taken
before its last processor renders it, so that what others dropped or masked stays so.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import MutableMapping
from typing import Any

import wrapt

from otel_shim._guard import guarded
from otel_shim.signals import logs

_PRINTS = "structlog._output"
"""The module of loggers that print; all others hand on to some library that may be ``logging``."""
_LEVELS = {
    "exception": "error",
    "warn": "warning",
    "fatal": "critical",
    "msg": "info",
    "log": "info",
}
Event = MutableMapping[str, Any]


def install(intake: logs.Intake, shown: bool) -> None:
    """Take structlog in when the application imports it; ``shown`` unless formats stay as they are."""

    def take(module: Any) -> None:
        if shown:
            _wrap_formatter(module.stdlib.ProcessorFormatter)
        _wrap_logger(module.BoundLoggerBase, _Printed(intake, shown))

    wrapt.register_post_import_hook(take, "structlog")


@guarded(default=None)
def _wrap_formatter(kind: Any) -> None:
    initialise = kind.__init__

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        initialise(self, *args, **kwargs)
        _show_first(self)

    kind.__init__ = functools.wraps(initialise)(init)


@guarded(default=None)
def _show_first(formatter: Any) -> None:
    formatter.processors = (show, *formatter.processors)


def show(_: Any, __: str, event: Event) -> Event:
    """A processor: adds what was noted on the record; what the event says itself wins."""
    _show(event, event.get("_record"))
    return event


@guarded(default=None)
def _show(event: Event, record: logging.LogRecord | None) -> None:
    for name in logs.INJECTED:  # ``ExtraAdder`` copies whatever a record has
        event.pop(name, None)
    if record is not None:
        for name, value in logs.correlated(record).items():
            event.setdefault(name, value)


@guarded(default=None)
def _wrap_logger(kind: Any, printed: _Printed) -> None:
    process = kind._process_event

    def process_event(self: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        return process(_with(self, printed) or self, method, *args, **kwargs)

    kind._process_event = functools.wraps(process)(process_event)


@guarded(default=None)
def _with(logger: Any, printed: _Printed) -> Any:
    """A logger that prints, with one more processor before the last one; None for any other kind.

    Its own processors stay as they are: tests change them under loggers that exist.
    """
    if type(logger._logger).__module__ != _PRINTS or not logger._processors:
        return None
    *processors, renderer = logger._processors
    seen = object.__new__(type(logger))
    vars(seen).update(vars(logger), _processors=[*processors, printed, renderer])
    return seen


class _Printed:
    """A processor that takes an event."""

    def __init__(self, intake: logs.Intake, shown: bool) -> None:
        self._intake = intake
        self._shown = shown

    def __call__(self, _: Any, method: str, event: Event) -> Event:
        """Take the event, and show in it who is behind it."""
        self._take(method, event)
        return event

    @guarded(default=None)
    def _take(self, method: str, event: Event) -> None:
        if not isinstance(event, dict):  # rendered by a processor that is not the last
            return
        record = _record(method, event)
        self._intake.take(record)
        if self._shown:
            _show(event, record)


def _record(method: str, event: Event) -> logging.LogRecord:
    """An event as a record of ``logging``; both mark it as structlog does."""
    level = str(event.get("level", _LEVELS.get(method, method))).upper()
    number = logging.getLevelName(level)
    return logging.makeLogRecord(
        {
            "name": str(event.get("logger", "structlog")),
            "levelname": level,
            "levelno": number if isinstance(number, int) else logging.INFO,
            "msg": dict(event),
            "_logger": None,
            "_name": method,
        }
    )
