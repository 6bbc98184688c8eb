"""Telemetry never breaks the application: the one guard around everything user code passes through."""

from __future__ import annotations

import functools
import logging
import traceback
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from otel_shim import counters

_P = ParamSpec("_P")
_R = TypeVar("_R")
_D = TypeVar("_D")

logger = logging.getLogger("otel_shim")
if logger.level == logging.NOTSET:
    logger.setLevel(logging.INFO)  # a handful of lines at the start: what identity is taken from
_reported: set[str] = set()
_CAUSES = 8
"""How far causes are followed; a chain may be a ring."""
_TIME_LIMITS = (
    ("billiard.exceptions", "SoftTimeLimitExceeded"),
    ("rq.timeouts", "BaseTimeoutException"),
)


def guarded(default: _D) -> Callable[[Callable[_P, _R]], Callable[_P, _R | _D]]:
    """Make a function return ``default`` where it would raise an ``Exception``.

    Each fault is counted; the first one of a function is logged, with its kind and place.
    Only code of ours may stand under it: errors of the application must pass unchanged, and so does
    its time limit (``is_time_limit``).
    """

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R | _D]:
        @functools.wraps(function)
        def call(*args: _P.args, **kwargs: _P.kwargs) -> _R | _D:
            try:
                return function(*args, **kwargs)
            except Exception as error:  # whatever else it is, it is ours, not the app's
                if is_time_limit(error):
                    raise
                report(function, error)
                return default

        return call

    return decorate


def is_time_limit(error: BaseException | None) -> bool:
    """Whether this is the time limit of Celery or RQ, or a kind of it.

    A signal raises it wherever the process is at the moment, so also in our code; it is meant for the
    application. Told by name: neither library is imported for that.
    """
    if error is None:
        return False
    kinds = type(error).__mro__
    return any((kind.__module__, kind.__name__) in _TIME_LIMITS for kind in kinds)


def described(error: BaseException) -> str:
    """What kind of error it is, and what the system says of its cause.

    Not its own text: that may quote a header, an address with a password, or whatever the application holds.
    """
    cause: BaseException = error
    for _ in range(_CAUSES):
        if (deeper := cause.__cause__ or cause.__context__) is None:
            break
        cause = deeper
    kinds = dict.fromkeys(type(each).__name__ for each in (error, cause))
    said = [cause.strerror] if isinstance(cause, OSError) and cause.strerror else []
    return ": ".join([" from ".join(kinds), *map(str, said)])


def _places(error: BaseException) -> str:
    """Where an error was raised, the outermost place first."""
    frames = traceback.StackSummary.extract(
        traceback.walk_tb(error.__traceback__), lookup_lines=False
    )
    return ", ".join(f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames)


def report(where: Callable[..., Any], error: Exception) -> None:
    """Count a fault of ours and log the first one of each place; its text at DEBUG only."""
    counters.add("internal_errors")
    name = f"{where.__module__}.{where.__qualname__}"
    if name not in _reported:
        _reported.add(name)
        logger.warning(
            "%s failed; the application is unaffected (%s, at %s)",
            name,
            described(error),
            _places(error),
            exc_info=error if logger.isEnabledFor(logging.DEBUG) else None,
        )
