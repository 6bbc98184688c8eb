"""Ids of requests: which incoming one is well formed, and how a new one is made. Pure but for time and chance."""

from __future__ import annotations

import random
import re
import time

from otel_shim import locks

_WELL_FORMED = re.compile(rb"[A-Za-z0-9._-]{1,55}")
"""At most 55 characters, so that trace id and request id together fit an OpenMetrics exemplar (128)."""
# Ids must differ, not be secret; asking the kernel for each would cost more than all the rest. A
# generator of our own, so that an application that seeds the global one does not repeat our ids.
_random = random.Random()  # noqa: S311
locks.in_children(_random.seed)


def well_formed(value: bytes) -> str | None:
    """The id as text if it may be used as it is, else None."""
    return value.decode("ascii") if _WELL_FORMED.fullmatch(value) else None


def new() -> str:
    """A UUIDv7 (RFC 9562): sortable by time in milliseconds, 74 random bits."""
    milliseconds = time.time_ns() // 1_000_000 & (1 << 48) - 1
    chance = _random.getrandbits(74)
    version_and_12_bits = 0x7000 | chance >> 62
    variant_and_14_bits = 0x8000 | chance >> 48 & 0x3FFF
    return (
        f"{milliseconds >> 16:08x}-{milliseconds & 0xFFFF:04x}-{version_and_12_bits:04x}"
        f"-{variant_and_14_bits:04x}-{chance & (1 << 48) - 1:012x}"
    )
