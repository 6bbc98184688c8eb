"""otel_shim: who is behind every span and log of a Python backend, with pseudonyms in the place of people.

The application needs none of this: under ``opentelemetry-instrument`` identity is found by itself.
These functions say more, where the application knows more. Each is safe anywhere, also without the
shim configured, and none raises into the application.

All else is imported by the first use, so that importing this package costs next to nothing: the launcher
does so in a process that only starts the application's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from datetime import datetime, timedelta, tzinfo

    from otel_shim.binding import ScopedIdentity
    from otel_shim.counters import snapshot as counters_snapshot
    from otel_shim.model import Identity
    from otel_shim.operations import Job, Operation
    from otel_shim.queues import QueueReading

__all__ = [
    "Identity",
    "QueueReading",
    "bind",
    "counters_snapshot",
    "current_identity",
    "enqueued",
    "finished",
    "identity",
    "job",
    "job_backlog",
    "job_items",
    "operation",
    "queue",
    "recovery_point",
    "sql_queue",
    "taken",
]
_PLACES = {
    "Identity": ("otel_shim.model", "Identity"),
    "QueueReading": ("otel_shim.queues", "QueueReading"),
    "counters_snapshot": ("otel_shim.counters", "snapshot"),
}


def __getattr__(name: str) -> Any:
    """The classes and functions that are offered here as they are; kept, so that this is asked once."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415

    module, attribute = _PLACES[name]
    found = globals()[name] = getattr(import_module(module), attribute)
    return found


def bind(
    *,
    org_id: Any = None,
    user_id: Any = None,
    actor_type: str | None = None,
    actor_role: str | None = None,
    plan: str | None = None,
    **extra: Any,
) -> None:
    """Say who the current work is for, as soon as it is known.

    Reaches the open spans of the request, those that follow, its logs, threads, background tasks and
    streams. Under a job it holds from here on in this task or thread. Where somebody else is bound
    already, that is not overwritten: the new identity holds from here on in this task only, what is
    open belongs to nobody, and the case is counted.

    Ids may be text, integers, UUIDs or enumerations of these, at most 256 characters. ``user_id``
    never leaves the process: telemetry carries ``user.hash``; with ``actor_type`` ``api_key`` or
    ``job`` it is that actor's id and becomes ``saas.actor.hash``. ``extra`` takes
    ``audit_record_id``, ``processing_activity_id``, ``legal_basis`` and ``retention_class``; any
    other keyword becomes ``saas.extra.<keyword>`` and must not be personal data.
    """
    from otel_shim import binding  # noqa: PLC0415

    binding.bind(
        {
            "org_id": org_id,
            "user_id": user_id,
            "actor_type": actor_type,
            "actor_role": actor_role,
            "plan": plan,
            **extra,
        }
    )


def identity(
    *,
    org_id: Any = None,
    user_id: Any = None,
    actor_type: str | None = None,
    actor_role: str | None = None,
    plan: str | None = None,
    **extra: Any,
) -> ScopedIdentity:
    """A block whose spans and logs belong to somebody; outside of it nothing changes.

    Travels with the OpenTelemetry context into tasks and threads started inside, so a job may walk
    over organisations one by one, with ``asyncio.gather`` or with threads. Arguments as ``bind``.
    """
    from otel_shim.binding import ScopedIdentity  # noqa: PLC0415

    return ScopedIdentity(
        {
            "org_id": org_id,
            "user_id": user_id,
            "actor_type": actor_type,
            "actor_role": actor_role,
            "plan": plan,
            **extra,
        }
    )


def current_identity() -> Identity:
    """Who the current work is for, as far as it is known; all fields None where nothing is."""
    from otel_shim import binding  # noqa: PLC0415

    return binding.current()


def operation(name: str) -> Operation:
    """Name the work ``<domain>.<verb>``, as a block or as a decorator of any kind of function.

    Makes a span of that name with ``saas.operation``; the first operation of a request also names
    the request's server span. Exceptions pass unchanged and mark the span as failed.
    """
    from otel_shim.operations import Operation  # noqa: PLC0415

    return Operation(name)


def job(
    name: str,
    *,
    schedule: str | None = None,
    timezone: tzinfo | str | None = None,
    max_runtime: float | timedelta | None = None,
    critical: bool = False,
    processing_activity_id: str | None = None,
    legal_basis: str | None = None,
    retention_class: str | None = None,
) -> Job:
    """Declare a job ``<domain>.<verb>``, as a decorator of any kind of function, or as a block.

    Each call is a run: a trace of its own with a link to the request or job that called it, whose
    identity does not enter; say inside for whom the run is, with ``bind`` or ``identity``. The run's
    outcome, duration, items and backlog are on its span and in metrics; when it last started and
    succeeded is told all the time, so that somebody outside sees it missing.

    ``schedule`` is five-field cron in ``timezone`` (UTC by default) or ``every 15m``: what a run is
    missed by, not what starts it. ``max_runtime`` is in seconds or a ``timedelta``; a longer run is an
    overrun and goes on. ``critical`` jobs wake somebody. The other three are GDPR references, set on the
    run and all below. What cannot be read is logged once with the fix, counted, and left out.
    """
    from otel_shim import operations  # noqa: PLC0415

    references = {
        "processing_activity_id": processing_activity_id,
        "legal_basis": legal_basis,
        "retention_class": retention_class,
    }
    return operations.Job(
        operations.declared(
            name,
            schedule,
            timezone,
            max_runtime=max_runtime,
            critical=critical,
            references=references,
        )
    )


def job_items(
    *,
    read: int | None = None,
    written: int | None = None,
    rejected: int | None = None,
    filtered: int | None = None,
) -> None:
    """Add to the items of the run at work. With rejected ones a run that ends well is ``partial``.

    Call it as often as is convenient: for each batch, or once. Those read are those written, rejected
    and filtered together.
    """
    from otel_shim import jobs  # noqa: PLC0415

    jobs.add_items({"read": read, "written": written, "rejected": rejected, "filtered": filtered})


def job_backlog(*, before: int | None = None, after: int | None = None) -> None:
    """Say how many items waited for the job when the run at work started, and how many do as it ends."""
    from otel_shim import jobs  # noqa: PLC0415

    jobs.report_backlog(before, after)


def recovery_point(at: datetime | float) -> None:
    """Say of when the data is that the run at work proves to be restorable.

    What a backup would lose is not told by when it was verified but by how old the verified copy is. Say
    the time of that copy's data: a datetime (a naive one is in UTC), or seconds since 1970. It counts when
    the run ends well; of several in one run the earliest, and of several runs the last.
    """
    from otel_shim import jobs  # noqa: PLC0415

    jobs.report_recovery_point(at)


def queue(name: str, read: Callable[[], QueueReading]) -> None:
    """Have a queue read whenever metrics are collected: depth by state, age of its oldest item, workers.

    ``read`` runs in a thread of its own, without a span and without anybody's identity, and says in a
    ``QueueReading`` what the broker or table has now. Metrics wait at most a second for it; one that
    raises or hangs is counted (``saas.queue.unreadable``), and the application never waits. Each
    process that declares the queue reads it: depth and age are the largest of what they say, workers
    their sum. A queue of the same name takes the place of an earlier one.
    """
    from otel_shim import queues  # noqa: PLC0415

    queues.register(name, read)


def enqueued(name: str, items: int = 1) -> None:
    """Count items that were put into a queue."""
    from otel_shim import queues  # noqa: PLC0415

    queues.enqueued(name, items)


def taken(name: str, waited_seconds: float) -> None:
    """Note that a worker took an item from a queue, and how long that had waited, in seconds."""
    from otel_shim import queues  # noqa: PLC0415

    queues.taken(name, waited_seconds)


def finished(name: str, items: int = 1) -> None:
    """Count items of a queue that workers are done with, failed ones too."""
    from otel_shim import queues  # noqa: PLC0415

    queues.finished(name, items)


def sql_queue(
    engine: Any,
    *,
    state: Any = None,
    states: Mapping[str, Collection[Any]] | None = None,
    enqueued_at: Any = None,
    due_at: Any = None,
    counts: Any = None,
    oldest: Any = None,
) -> Callable[[], QueueReading]:
    """What ``queue`` reads where the queue is a table: one statement for depths, one for the age.

    ``state`` is the column that says where an item stands, ``states`` which of its values mean
    ``ready``, ``in_flight``, ``delayed`` and ``dead``, ``enqueued_at`` the column with the time an
    item was put in, ``due_at`` the one before which it is not to be taken (ready items before it count
    as delayed). Times are datetimes (naive ones in UTC) or seconds since 1970. Other shapes give
    statements instead: ``counts``, one row with columns named after states, and ``oldest``, one time.

    ``engine`` is SQLAlchemy's, sync or async; an async one is connected to anew for each reading,
    because its pool belongs to the application's event loop.
    """
    from otel_shim.capture import sql_queue as adapter  # noqa: PLC0415

    columns = {"state": state, "states": states, "enqueued_at": enqueued_at, "due_at": due_at}
    return adapter.read_of(engine, columns, counts, oldest)
