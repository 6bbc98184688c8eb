"""What the tests of the relay share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from otel_shim.relay.memory import Memory


@pytest.fixture
def memory() -> Iterator[Memory]:
    """A memory in the process."""
    made = Memory(None)
    yield made
    made.close()
