"""otel_shim.capture.patches: what is wrapped, what is left as it was, and what is said to be missing."""

from __future__ import annotations

import logging
import sys
from types import ModuleType
from typing import Any

import pytest

from otel_shim import counters
from otel_shim.capture import patches
from otel_shim.capture.patches import Patches


class Base:
    @classmethod
    def read(cls, text: str) -> str:
        return f"{cls.__name__} {text}"


class Kind(Base):
    pass


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A library, imported already."""
    made: Any = ModuleType("a_library")
    made.Kind, made.Base = Kind, Base
    monkeypatch.setitem(sys.modules, "a_library", made)
    monkeypatch.setattr(patches, "_absent", {})
    monkeypatch.setattr(counters, "_counts", type(counters._counts)())
    return made


def louder(wrapped: Any, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return str(wrapped(*args, **kwargs)).upper()


def test_what_is_inherited_is_wrapped_where_it_was_asked_for(library: Any) -> None:
    """As icalendar before 6.3 has ``Calendar.from_ical`` from its base; the base stays as it is."""
    wrapped = Patches()
    wrapped.when_imported("a_library", "Kind.read", louder)
    assert (Kind.read("x"), Base.read("x")) == ("KIND X", "Base x")
    wrapped.remove()
    assert Kind.read("x") == "Kind x"
    assert "read" not in vars(Kind)


def test_what_is_not_there_is_said_once(library: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A target that the installed version does not have is counted, logged, and shown by the doctor."""
    with caplog.at_level(logging.WARNING, "otel_shim"):
        for _ in range(2):
            missing = Patches()
            missing.when_imported("a_library", "Kind.gone", louder)
            missing.when_imported("a_library", "Gone.read", louder)
            missing.replace_when_imported("a_library", "gone", louder)
    expected = ("a_library.Kind.gone", "a_library.Gone.read", "a_library.gone")
    assert patches.absent() == expected
    assert [record.args for record in caplog.records] == [(each,) for each in expected]
    assert counters.snapshot() == {"capture_target_absent": 3}


def test_modules_that_are_not_imported_yet() -> None:
    """The doctor imports them, to see what is missing."""
    Patches().when_imported("a_library_that_nobody_has", "x", louder)
    assert "a_library_that_nobody_has" in patches.waiting()
