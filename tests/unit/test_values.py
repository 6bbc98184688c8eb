"""otel_shim.values: whatever is given, what comes out can be written."""

from __future__ import annotations

import datetime as dt
import decimal
import json
from typing import Any

import pytest

from otel_shim.values import encodable, exportable


class Raises:
    """Cannot be written."""

    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (7, 7),
        (2**63, str(2**63)),
        (1.5, 1.5),
        (float("inf"), "inf"),
        ("text", "text"),
        ("ünï", "ünï"),
        ("a\ud800", "a?"),
        ((1, [2, {3: "x"}]), [1, [2, {"3": "x"}]]),
        (dt.date(2026, 1, 2), "2026-01-02"),
        (decimal.Decimal("1.10"), "1.10"),
        (b"\xff", "b'\\xff'"),
        (Raises(), "<Raises>"),
        ({Raises(): Raises()}, {"<Raises>": "<Raises>"}),
        (10**5000, "<int>"),
    ],
    ids=lambda v: type(v).__name__,
)
def test_nearest_value(value: Any, expected: Any) -> None:
    """What both formats can hold stays; the rest becomes text, or the name of its type."""
    assert exportable(value) == expected
    json.dumps(exportable(value), allow_nan=False).encode()


def test_what_contains_itself_ends() -> None:
    """Depth is bounded, and so is the text at the end of it."""
    cycle: dict[str, Any] = {}
    cycle["self"] = cycle
    assert len(json.dumps(exportable(cycle))) < 10_000


def test_long_text_of_an_object_is_cut() -> None:
    """Text itself stays; the text of other objects has a bound."""
    assert len(exportable(b"x" * 100_000)) == 8192
    assert len(encodable("x" * 100_000)) == 100_000
