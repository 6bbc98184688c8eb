"""What is queued is sent when a child process of ``multiprocessing`` ends.

Such a child ends without the exit handlers of the interpreter where it was forked, and the SDK's own flush
is one of those.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.util
import os

from otel_shim._guard import guarded
from otel_shim.signals import export

_FIRST = 100
"""The priority of the flush among the finalizers: before queues and pipes are closed."""
_registered_in: int | None = None


@guarded(default=None)
def flush_at_exit_of_child() -> None:
    """Send what is queued when this process ends, if it is such a child; once is enough."""
    global _registered_in
    if _registered_in == os.getpid() or multiprocessing.parent_process() is None:
        return
    _registered_in = os.getpid()
    multiprocessing.util.Finalize(None, _flush, exitpriority=_FIRST)


@guarded(default=None)
def _flush() -> None:
    export.flush()
