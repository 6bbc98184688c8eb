"""What telemetry did not do as hoped, counted in this process.

Names: ``internal_errors``, ``identity_conflicts``, ``identity_rejected``, ``operation_rejected``,
``bind_without_root``, ``job_declaration_rejected``, ``job_report_rejected``, ``job_report_without_run``,
``job_report_left_out`` (of a work horse of RQ: more than its pipe holds),
``job_run_rejected``, ``jobs_not_watched``, ``capture_target_absent``, ``queue_rejected``, ``queue_unread``,
``<signal>_exported``, ``<signal>_export_failed``, ``<signal>_queue_dropped``,
``<signal>_unencodable``.
"""

from __future__ import annotations

import threading
from collections import Counter

from otel_shim import locks

_lock = threading.Lock()
_counts: Counter[str] = Counter()


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()  # a thread of the parent may have held the other


locks.in_children(_after_fork)


def add(name: str, count: int = 1) -> None:
    """Add to a counter."""
    with _lock:
        _counts[name] += count


def snapshot() -> dict[str, int]:
    """Every counter that moved since the process started."""
    with _lock:
        return dict(_counts)
