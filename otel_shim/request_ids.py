"""Ids of requests: which incoming one is well formed, and how a new one is made. Pure but for time and chance."""

from __future__ import annotations

import os
import re
import time
import uuid

_WELL_FORMED = re.compile(rb"[A-Za-z0-9._-]{1,55}")
"""At most 55 characters, so that trace id and request id together fit an OpenMetrics exemplar (128)."""


def well_formed(value: bytes) -> str | None:
    """The id as text if it may be used as it is, else None."""
    return value.decode("ascii") if _WELL_FORMED.fullmatch(value) else None


def new() -> str:
    """A UUIDv7 (RFC 9562): sortable by time in milliseconds, 74 random bits."""
    milliseconds = time.time_ns() // 1_000_000
    number = (milliseconds & (1 << 48) - 1) << 80 | int.from_bytes(os.urandom(10), "big")
    number = number & ~(0xF << 76) | 0x7 << 76
    number = number & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=number))
