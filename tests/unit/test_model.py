"""otel_shim.model: what an identity is, and when two of them disagree."""

from __future__ import annotations

import dataclasses

import pytest

from otel_shim.model import ANONYMOUS, NOBODY, Identity


def test_repr_hides_the_person() -> None:
    """The application's own id of a person is in no repr, so in no log of one."""
    text = repr(Identity(org_id="acme", user_id="ada@example.org", extra={"k": "secret"}))
    assert "acme" in text
    assert "ada" not in text and "secret" not in text


def test_identity_is_frozen() -> None:
    """Nobody can change an identity that somebody else holds."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        NOBODY.org_id = "acme"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("mine", "other", "conflict"),
    [
        (Identity(), Identity(), False),
        (Identity(org_id="a"), Identity(), False),
        (Identity(org_id="a"), Identity(org_id="a"), False),
        (Identity(org_id="a"), Identity(org_id="b"), True),
        (Identity(org_id="a"), Identity(user_id="u"), False),
        (Identity(org_id="a", user_id="u"), Identity(org_id="a", user_id="v"), True),
        (Identity(actor_role="x"), Identity(actor_role="y"), False),
    ],
)
def test_conflict_needs_two_names_for_one_thing(
    mine: Identity, other: Identity, conflict: bool
) -> None:
    """Two identities conflict where both name an organisation or both an actor, and differ."""
    assert mine.conflicts(other) is conflict
    assert other.conflicts(mine) is conflict


def test_update_puts_known_fields_over() -> None:
    """What the other knows wins; what it does not know stays; extras are merged."""
    before = Identity(org_id="a", plan="free", extra={"x": 1, "y": 1})
    after = before.updated(Identity(user_id="u", plan="pro", extra={"y": 2}))
    assert after == Identity(org_id="a", user_id="u", plan="pro", extra={"x": 1, "y": 2})
    assert before.plan == "free"


def test_update_with_nothing_changes_nothing() -> None:
    """An update that says nothing leaves everything as it was."""
    identity = Identity("a", "u", "user", "admin", "pro", "r", {"x": 1})
    assert identity.updated(NOBODY) == identity


def test_anonymous_ends_when_somebody_is_known() -> None:
    """Somebody identified late is not anonymous any more, and may say what they are."""
    anonymous = Identity(actor_type=ANONYMOUS, request_id="r")
    assert anonymous.updated(Identity(org_id="a")).actor_type is None
    named = anonymous.updated(Identity(org_id="a", actor_type="api_key"))
    assert named.actor_type == "api_key"
    assert anonymous.updated(Identity(plan="pro")).actor_type == ANONYMOUS


def test_without_forgets_fields() -> None:
    """Fields taken away are unknown; the rest stays."""
    identity = Identity(org_id="a", user_id="u")
    assert identity.without(["org_id"]) == Identity(user_id="u")
    assert identity.without(()) is identity


def test_known_means_an_organisation_or_an_actor() -> None:
    """A role or a request id alone identifies nobody."""
    assert not Identity(request_id="r", actor_role="admin").known()
    assert Identity(org_id="a").known()
    assert Identity(user_id="u").known()
    assert Identity(org_id="a", plan="p").known_fields() >= {"org_id", "plan"}
