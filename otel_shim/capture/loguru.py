"""loguru, whose records go past ``logging``: each is sent once, and its ``extra`` says who is behind it.

No sink is added and none is removed. Sinks that hand records on to ``logging`` keep doing so. Where one does
while the call lasts, it is from there that the record is taken; where it does so later, as a coroutine or in the
thread of a queue, the record was sent by then, and is not sent again.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable
from importlib import import_module
from typing import Any

import wrapt

from otel_shim._guard import guarded, logger
from otel_shim.signals import logs

_LOG = ["self", "level", "from_decorator", "options", "message", "args", "kwargs"]
_OPTIONS = ["exception", "depth", "record", "lazy", "colors", "raw", "capture", "patchers", "extra"]
_OF_LOGGING = ("logging", "logging.handlers")
_SINKS = ("CallableSink", "AsyncSink", "StreamSink")
"""The sinks that may hand on what they write; a handler of ``logging`` is looked at before."""
Record = dict[str, Any]


def install(intake: logs.Intake, shown: bool) -> None:
    """Take loguru in when the application imports it; ``shown`` unless formats stay as they are."""
    wrapt.register_post_import_hook(lambda module: _wrap(module.logger, intake, shown), "loguru")


@guarded(default=None)
def _wrap(first: Any, intake: logs.Intake, shown: bool) -> None:
    """Look at each record after all patchers, and send it after all sinks. None of that is public."""
    kind = type(first)
    log = kind._log
    if not _is_known(first):
        logger.warning("this loguru is not known: hand its records on to logging to have them sent")
        return

    def look(self: Any, level: Any, decorated: bool, options: Any, *said: Any) -> None:
        if _is_unwanted(self._core, level):
            log(self, level, decorated, options, *said)
            return
        seen = _Seen(intake, self._core, shown)
        with logs.sinking(seen.sunk):
            log(self, level, decorated, _patched(options, seen.patch), *said)
        if seen.record is not None and seen.sunk.take():
            intake.take(seen.record)

    kind._log = functools.wraps(log)(look)
    _watch_queues(first._core)


@guarded(default=None)
def _watch_queues(core: Any) -> None:
    """Know what is being written where a thread writes what was queued (``enqueue=True``)."""
    sinks = import_module("loguru._simple_sinks")
    for kind in (getattr(sinks, name) for name in _SINKS):
        kind.write = _noting(kind.write, core)


def _noting(write: Callable[[Any, Any], None], core: Any) -> Callable[[Any, Any], None]:
    @functools.wraps(write)
    def noted(self: Any, message: Any) -> None:
        sunk = None if logs.is_sinking() else _queued(message, core)
        if sunk is None:
            write(self, message)
            return
        with logs.sinking(sunk):
            write(self, message)

    return noted


@guarded(default=None)
def _queued(message: Any, core: Any) -> logs.Sinking | None:
    """The record of a message that comes out of a queue; None where it is sent from ``logging`` alone."""
    if _is_handed_on(core):
        return None
    return logs.Sinking(str(message.record["message"]), sinks=1, taken=True)


def _is_known(first: Any) -> bool:
    kind = type(first)
    options = [name for name in inspect.signature(kind.__init__).parameters if name in _OPTIONS]
    told = list(inspect.signature(kind._log).parameters) == _LOG and options == _OPTIONS
    return told and all(hasattr(first._core, n) for n in ("handlers", "levels_lookup", "min_level"))


def _is_unwanted(core: Any, level: Any) -> bool:
    """Whether no sink takes this level; such calls are many, and are to cost as little as without us."""
    try:
        return bool(not core.handlers or core.levels_lookup[level][2] < core.min_level)
    except (KeyError, TypeError):  # loguru says what is wrong with it
        return False


def _patched(options: tuple[Any, ...], patch: Callable[[Record], None]) -> tuple[Any, ...]:
    """Options with one more patcher, for a call from one frame deeper."""
    exception, depth, *others, patchers, extra = options
    return exception, depth + 1, *others, [*patchers, patch], extra


class _Seen:
    """What one call logs; nothing where no sink wants it, or where one hands all on to ``logging``."""

    def __init__(self, intake: logs.Intake, core: Any, shown: bool) -> None:
        self.record: logging.LogRecord | None = None
        self.sunk = logs.Sinking("", len(core.handlers))
        self._intake = intake
        self._core = core
        self._shown = shown

    @guarded(default=None)
    def patch(self, said: Record) -> None:
        """A patcher: note the record, and show in its ``extra`` who is behind it; what it says itself wins."""
        if _is_handed_on(self._core):
            return
        record = _record(said)
        self.sunk.text = record.getMessage()
        self._intake.correlate(record)
        self.record = record
        if self._shown:
            said["extra"].update(logs.correlated(record) | said["extra"])


def _is_handed_on(core: Any) -> bool:
    return any(_hands_on(handler) for handler in core.handlers.values())


def _hands_on(handler: Any) -> bool:
    """Whether a sink is a handler of ``logging`` that somebody wrote: such hand on what they are given."""
    kind = type(getattr(handler._sink, "_handler", None))
    return issubclass(kind, logging.Handler) and kind.__module__ not in _OF_LOGGING


def _record(said: Record) -> logging.LogRecord:
    """A record of loguru as one of ``logging``."""
    error, extra = said["exception"], dict(said["extra"])
    return logging.makeLogRecord(
        {
            logs.FIELDS: extra,
            "error_code": extra.get("error_code"),
            "name": str(said["name"] or "loguru"),
            "levelname": said["level"].name,
            "levelno": said["level"].no,
            "msg": said["message"],
            "args": None,
            "created": said["time"].timestamp(),
            "exc_info": None if error is None else tuple(error),
        }
    )
