"""Identity as telemetry attributes: the one place where they are made, for every signal. Pure."""

from __future__ import annotations

from opentelemetry.semconv._incubating.attributes.user_attributes import USER_HASH, USER_ID

from otel_shim import _semconv as semconv
from otel_shim.model import Identity, Scalar
from otel_shim.pseudonym import Pseudonymiser

IDENTITY_KEYS = (
    semconv.SAAS_ORG_ID,
    semconv.SAAS_ACTOR_TYPE,
    semconv.SAAS_ACTOR_HASH,
    semconv.SAAS_ACTOR_ROLE,
    semconv.SAAS_PLAN,
    USER_HASH,
    USER_ID,
)
"""What is taken off a span that turned out to belong to more than one organisation."""


def of(
    identity: Identity, pseudonymiser: Pseudonymiser | None, clear: bool = False
) -> dict[str, Scalar]:
    """The attributes of an identity; what is unknown is absent.

    Without a key, or without an organisation to which the actor belongs, there is no pseudonym.
    ``clear`` puts ``user.id`` in place of ``user.hash``; only the operator may choose it.
    """
    found = dict(identity.extra)
    if identity.org_id is not None:
        found[semconv.SAAS_ORG_ID] = identity.org_id
    if (kind := actor_type(identity)) is not None:
        found[semconv.SAAS_ACTOR_TYPE] = kind
    if identity.actor_role is not None:
        found[semconv.SAAS_ACTOR_ROLE] = identity.actor_role
    if identity.plan is not None:
        found[semconv.SAAS_PLAN] = identity.plan
    if identity.request_id is not None:
        found[semconv.SAAS_REQUEST_ID] = identity.request_id
    if identity.user_id is not None:
        found |= _actor(identity, pseudonymiser, clear)
    return found


def actor_type(identity: Identity) -> str | None:
    """The actor's type; somebody with an id and no type given is a user."""
    if identity.actor_type is None and identity.user_id is not None:
        return semconv.SAAS_ACTOR_TYPE_USER
    return identity.actor_type


def _actor(
    identity: Identity, pseudonymiser: Pseudonymiser | None, clear: bool
) -> dict[str, Scalar]:
    kind = actor_type(identity)
    if identity.user_id is None or kind is None:
        return {}
    person = kind == semconv.SAAS_ACTOR_TYPE_USER
    if clear and person:
        return {USER_ID: identity.user_id}
    if pseudonymiser is None or identity.org_id is None:
        return {}
    key = USER_HASH if person else semconv.SAAS_ACTOR_HASH
    return {key: pseudonymiser.pseudonym(kind, identity.org_id, identity.user_id)}
