"""otel_shim.attributes: the one place where an identity becomes attributes."""

from __future__ import annotations

import pytest

from otel_shim import attributes, pseudonym
from otel_shim.model import ANONYMOUS, NOBODY, Identity
from tests.unit.telemetry import SECRET

MAKER = pseudonym.pseudonymiser(SECRET)


def test_everything_known() -> None:
    """A user of an organisation: every field under its name of the contract, the id as a pseudonym."""
    identity = Identity("acme", "ada", "user", "admin", "pro", "r-1", {"audit.record.id": "a-1"})
    assert attributes.of(identity, MAKER) == {
        "saas.org.id": "acme",
        "saas.actor.type": "user",
        "saas.actor.role": "admin",
        "saas.plan": "pro",
        "saas.request.id": "r-1",
        "audit.record.id": "a-1",
        "user.hash": MAKER.pseudonym("user", "acme", "ada"),
    }


def test_nobody_has_no_attributes() -> None:
    """What is unknown is absent, never empty."""
    assert attributes.of(NOBODY, MAKER) == {}
    assert attributes.of(Identity(actor_type=ANONYMOUS), MAKER) == {"saas.actor.type": "anonymous"}


def test_a_user_id_alone_gives_a_type_and_no_hash() -> None:
    """Without an organisation there is no pseudonym: it would be linkable across organisations."""
    assert attributes.of(Identity(user_id="ada"), MAKER) == {"saas.actor.type": "user"}


def test_without_a_key_there_is_no_hash() -> None:
    """No key, no pseudonym, and never the clear id in its place."""
    assert attributes.of(Identity("acme", "ada"), None) == {
        "saas.org.id": "acme",
        "saas.actor.type": "user",
    }


@pytest.mark.parametrize("kind", ["api_key", "job"])
@pytest.mark.parametrize("clear", [True, False])
def test_other_actors_have_an_actor_hash(kind: str, clear: bool) -> None:
    """A key or job has ``saas.actor.hash`` of its own purpose, and no ``user.hash``, whatever the choice."""
    assert attributes.of(Identity("acme", "k1", kind), MAKER, clear) == {
        "saas.org.id": "acme",
        "saas.actor.type": kind,
        "saas.actor.hash": MAKER.pseudonym(kind, "acme", "k1"),
    }


def test_clear_ids_only_where_chosen() -> None:
    """The operator's choice puts ``user.id`` in place of the pseudonym, with or without organisation."""
    assert attributes.of(Identity("acme", "ada"), MAKER, clear=True)["user.id"] == "ada"
    assert "user.hash" not in attributes.of(Identity("acme", "ada"), MAKER, clear=True)
    assert attributes.of(Identity(user_id="ada"), None, clear=True)["user.id"] == "ada"


def test_extras_cannot_replace_identity() -> None:
    """What stands under a name of the contract comes from the identity, not from an extra."""
    identity = Identity("acme", extra={"saas.org.id": "other", "user.hash": "forged"})
    assert attributes.of(identity, MAKER)["saas.org.id"] == "acme"


def test_an_actor_type_alone() -> None:
    """Whoever says what they are and not who has a type, and no hash."""
    assert attributes.of(Identity("acme", actor_type="job"), MAKER) == {
        "saas.org.id": "acme",
        "saas.actor.type": "job",
    }
