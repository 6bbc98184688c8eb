"""What is queued is sent when the process is ended by SIGTERM and the application has no handler of its own.

Python's default for SIGTERM is to die at once: no exit handlers, and the last batch is lost. That is how
scripts and worker loops end in a container, and `uvicorn --lifespan off`, which ends by the signal that it was
sent. Servers and schedulers with a handler of their own replace ours and are not affected.
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


@guarded(default=None)
def install() -> None:
    """Take SIGTERM where its action is the default. Nothing is done outside of the main thread, or on Windows."""
    if os.name != "posix" or threading.current_thread() is not threading.main_thread():
        return
    if _getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminated)
        signal.getsignal = _hide(_getsignal)


def _hide(getsignal: Any) -> Any:
    """Libraries look whether the default is in place before they set a handler of their own: for them it is."""

    @functools.wraps(getsignal)
    def seen(signalnum: int, /) -> Any:
        handler = getsignal(signalnum)
        return signal.SIG_DFL if handler is _terminated else handler

    return seen


def _terminated(signum: int, frame: Any) -> None:
    """Send what is queued, for seconds at most, then die of the signal as ever.

    Where a handler of the application has replaced this one and calls it, dying is left to that one.
    """
    ours = _getsignal(signum) is _terminated
    if ours:
        signal.signal(signum, signal.SIG_DFL)  # a second one ends the process at once
    _flush()
    if ours:
        os.kill(os.getpid(), signum)


@guarded(default=None)
def _flush() -> None:
    # In threads of its own: whatever the main thread was doing, it may hold a lock of the SDK.
    export.flush()
