"""What is queued is sent when the process is ended by SIGTERM and the application has no handler of its own.

Python's default for SIGTERM is to die at once: no exit handlers, and the last batch is lost. That is how
scripts and worker loops end in a container, and `uvicorn --lifespan off`, which ends by the signal that it was
sent. Servers and schedulers with a handler of their own replace ours and are not affected: to them it is the
default, when they ask for it, when they replace it, and when they put it back.
"""

from __future__ import annotations

import functools
import os
import signal
import threading
from typing import Any

from otel_shim._guard import guarded
from otel_shim.signals import export

_getsignal = signal.getsignal
_setsignal = signal.signal


@guarded(default=None)
def install() -> None:
    """Take SIGTERM where its action is the default. Nothing is done outside of the main thread, or on Windows."""
    if os.name != "posix" or threading.current_thread() is not threading.main_thread():
        return
    if _getsignal(signal.SIGTERM) is signal.SIG_DFL:
        _setsignal(signal.SIGTERM, _terminated)
        signal.getsignal = _hide(_getsignal)
        signal.signal = _stay(_setsignal)


def _hide(getsignal: Any) -> Any:
    """Libraries look whether the default is in place before they set a handler of their own: for them it is."""

    @functools.wraps(getsignal)
    def seen(signalnum: int) -> Any:
        return _shown(getsignal(signalnum))

    return seen


def _stay(setsignal: Any) -> Any:
    """Whoever sets the default sets ours; whoever replaces ours is given the default.

    A handler that calls what was there before, and ends the process itself where that was the default, would
    otherwise call ours, which leaves dying to it. Errors, and other signals, are those of ``signal.signal``.
    """

    @functools.wraps(setsignal)
    def set_handler(signalnum: int, handler: Any) -> Any:
        return _shown(
            setsignal(signalnum, _terminated if _is_default(signalnum, handler) else handler)
        )

    return set_handler


def _is_default(signalnum: object, handler: object) -> bool:
    """Whether the default action of SIGTERM is asked for; what is no number is left to be refused."""
    numbers = isinstance(signalnum, int) and isinstance(handler, int)
    return numbers and signalnum == signal.SIGTERM and handler == signal.SIG_DFL


def _shown(handler: Any) -> Any:
    return signal.SIG_DFL if handler is _terminated else handler


def _terminated(signum: int, frame: Any) -> None:
    """Send what is queued, for seconds at most, then die of the signal as ever.

    Where a handler has replaced this one past our eyes and calls it, dying is left to that one.
    """
    ours = _getsignal(signum) is _terminated
    if ours:
        _setsignal(signum, signal.SIG_DFL)  # a second one ends the process at once
    _flush()
    if ours:
        os.kill(os.getpid(), signum)


@guarded(default=None)
def _flush() -> None:
    # In threads of its own: whatever the main thread was doing, it may hold a lock of the SDK.
    export.flush()
