"""otel_shim.request_ids: which ids are taken over, and what a new one looks like."""

from __future__ import annotations

import time
import uuid

import pytest

from otel_shim import request_ids


@pytest.mark.parametrize(
    "value", [b"a", b"A-b_c.9", b"x" * 55, b"0199f0a2-6a3c-7bd2-9f0e-3f1f5a3c9a10"]
)
def test_well_formed_is_taken(value: bytes) -> None:
    """At most 55 characters of letters, digits, dot, underscore and hyphen are used as they are."""
    assert request_ids.well_formed(value) == value.decode()


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"x" * 56,
        b"a b",
        b"a\n",
        b"a\r\nSet-Cookie: x",
        b"a/b",
        b"a:b",
        "é".encode(),
        b"\xff",
        b"a\x00",
        b"<a>",
    ],
)
def test_malformed_is_refused(value: bytes) -> None:
    """Anything else is refused as a whole, line breaks at the end included."""
    assert request_ids.well_formed(value) is None


def test_new_is_a_uuid_version_7() -> None:
    """A new id is a UUIDv7 (RFC 9562): its first 48 bits are the time in milliseconds."""
    before = time.time_ns() // 1_000_000
    made = uuid.UUID(request_ids.new())
    after = time.time_ns() // 1_000_000
    assert made.version == 7
    assert made.variant == uuid.RFC_4122
    assert before <= made.int >> 80 <= after


def test_new_ids_differ_and_are_well_formed() -> None:
    """Ids of one millisecond differ, and each would be accepted by another service."""
    ids = {request_ids.new() for _ in range(2000)}
    assert len(ids) == 2000
    assert all(request_ids.well_formed(i.encode()) for i in ids)
