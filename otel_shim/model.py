"""The nouns: who is behind the work, as far as it is known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from otel_shim import _semconv as semconv

ANONYMOUS = semconv.SAAS_ACTOR_TYPE_ANONYMOUS
Scalar = str | bool | int | float


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the work is done for and by whom; every field may be unknown.

    ``user_id`` is the application's own id of the actor. It stays in the process: telemetry
    carries a keyed pseudonym of it, and it is left out of ``repr``.
    ``extra`` maps attribute names of the contract to their values.
    """

    org_id: str | None = None
    user_id: str | None = field(default=None, repr=False)
    actor_type: str | None = None
    actor_role: str | None = None
    plan: str | None = None
    request_id: str | None = None
    extra: Mapping[str, Scalar] = field(default_factory=dict, repr=False)

    def known(self) -> bool:
        """Whether somebody was identified: an organisation or an actor."""
        return self.org_id is not None or self.user_id is not None

    def conflicts(self, other: Identity) -> bool:
        """Whether both name an organisation, or both an actor, and not the same one."""
        return differ(self.org_id, other.org_id) or differ(self.user_id, other.user_id)

    def known_fields(self) -> frozenset[str]:
        """The names of the fields that are known."""
        return frozenset(name for name in _FIELDS if getattr(self, name) is not None)

    def without(self, names: Iterable[str]) -> Identity:
        """This identity with some fields unknown."""
        unknown: dict[str, Any] = dict.fromkeys(names)
        return replace(self, **unknown) if unknown else self

    def updated(self, other: Identity) -> Identity:
        """This identity with every known field of the other put over it."""
        if other is NOBODY:
            return self
        actor_type = None if self.actor_type == ANONYMOUS and other.known() else self.actor_type
        return Identity(
            org_id=_over(self.org_id, other.org_id),
            user_id=_over(self.user_id, other.user_id),
            actor_type=_over(actor_type, other.actor_type),
            actor_role=_over(self.actor_role, other.actor_role),
            plan=_over(self.plan, other.plan),
            request_id=_over(self.request_id, other.request_id),
            extra={**self.extra, **other.extra} if other.extra else self.extra,
        )


# The fields that say who or what; ``extra`` is not one of them.
_FIELDS = ("org_id", "user_id", "actor_type", "actor_role", "plan", "request_id")


def _over(mine: str | None, other: str | None) -> str | None:
    return mine if other is None else other


def differ(mine: str | None, other: str | None) -> bool:
    """Whether both are known, and not the same."""
    return mine is not None and other is not None and mine != other


NOBODY = Identity()
"""The identity of which nothing is known."""
