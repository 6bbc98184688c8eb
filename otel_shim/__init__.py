"""otel_shim: who is behind every span and log of a Python backend, without leaking personal data.

The application needs none of this: under ``opentelemetry-instrument`` identity is found by itself.
These functions say more, where the application knows more. Each is safe anywhere, also without the
shim configured, and none raises into the application.

OpenTelemetry is imported by the first call, so that importing this package costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otel_shim.counters import snapshot as counters_snapshot
from otel_shim.model import Identity

if TYPE_CHECKING:
    from otel_shim.binding import ScopedIdentity
    from otel_shim.operations import Operation

__all__ = ["Identity", "bind", "counters_snapshot", "current_identity", "identity", "operation"]


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
