"""Feeds of iCalendar text (RFC 5545): recognised, compared with what was there before, and how often they want to be asked. Pure.

Every pass over a body is linear in its length, whatever is in it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from otel_shim.calendars import Items

MEDIA_TYPE = "text/calendar"
LARGEST = 64 << 20
"""Bytes of the largest body that is looked at."""
TOLERANCE = 1.5
"""How many of its intervals a feed may wait for a synchronisation before its copy is stale."""
_SUFFIXES = (".ics", ".ical", ".icalendar", ".ifb")
_SCHEMES = ("webcal", "webcals")
_HEAD = 4096
_HEADER = 65_536
_BEGIN = re.compile(rb"(?im)^(?:\xef\xbb\xbf)?[ \t]*BEGIN:VCALENDAR\b")
_ITEM = re.compile(rb"(?im)^BEGIN:(?:VEVENT|VTODO|VJOURNAL|VFREEBUSY)\b")
_STAMP = re.compile(rb"(?i)\nDTSTAMP[^\n]*")
_INTERVAL = re.compile(rb"(?im)^(?:REFRESH-INTERVAL|X-PUBLISHED-TTL)[;:][^\n]*?(P[0-9WDTHMS]+)\s*$")
_FOLDS = (b" ", b"\t")
_DURATION = re.compile(r"P(?:(\d+)W)?(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?)?")
_SECONDS = (604_800, 86_400, 3600, 60, 1)
_PRINTABLE = bytes(range(0x21, 0x7F))
_OTHERS = bytes(set(range(256)) - set(_PRINTABLE))
Snapshot = Mapping[int, int]
"""Each item of a feed, by its UID and recurrence, with its content; both as hashes."""


def expected(url: str, accept: str = "") -> bool:
    """Whether a feed is to be expected at an address, by its ending, its scheme or what was asked for."""
    parts = urlsplit(url)
    return (
        parts.path.lower().endswith(_SUFFIXES)
        or parts.scheme.lower() in _SCHEMES
        or MEDIA_TYPE in accept.lower()
    )


def is_calendar(body: bytes) -> bool:
    """Whether a body begins as iCalendar text does; a login page does not."""
    return _BEGIN.search(body[:_HEAD]) is not None


def is_whole(body: bytes) -> bool:
    """Whether iCalendar text ends as it must."""
    return body[-_HEAD:].rstrip().upper().endswith(b"END:VCALENDAR")


def fingerprint(content: str | bytes) -> tuple[int, int]:
    """What text and bytes of one calendar have in common, however decoded, stripped or with which ends of lines."""
    data = content.encode("utf-8", "replace") if isinstance(content, str) else content
    kept = data.translate(None, _OTHERS)
    return len(kept), hash(kept)


def content(body: bytes) -> bytes:
    """What a feed says: when its items were exported (DTSTAMP) is no part of it."""
    end = body.rfind(b"END:VCALENDAR")
    return _STAMP.sub(b"", body[:end] if end >= 0 else body)


def snapshot(said: bytes) -> dict[int, int]:
    """The items of what a feed says."""
    _, *items = _ITEM.split(said)
    return {_key(item): hash(item) for item in items}


def _key(item: bytes) -> int:
    """What an item is known by: its UID, and which recurrence it is; without a UID, its content."""
    uid = _line(item, b"\nUID")
    return hash((uid, _line(item, b"\nRECURRENCE-ID"))) if uid else hash(item)


def identity(content: str | bytes) -> tuple[int, ...]:
    """What one item is known by, however it is written: its UID; without one, its content."""
    data = content.encode("utf-8", "replace") if isinstance(content, str) else content
    uid = _line(data, b"\nUID").strip()
    return (hash(uid),) if uid else fingerprint(data)


def _line(item: bytes, name: bytes) -> bytes:
    """A line with those that continue it (RFC 5545, 3.1); empty where there is none of this name."""
    start = item.find(name)
    if start < 0:
        return b""
    end = item.find(b"\n", start + 1)
    while end >= 0 and item[end + 1 : end + 2] in _FOLDS:
        end = item.find(b"\n", end + 1)
    return item[start:end] if end >= 0 else item[start:]


def compare(before: Snapshot | None, after: Snapshot) -> Items:
    """What became of the items since an earlier look; all are new where there was none."""
    if before is None:
        return Items(created=len(after))
    if before is after:
        return Items()
    common = before.keys() & after.keys()
    return Items(
        created=len(after) - len(common),
        changed=sum(1 for key in common if before[key] != after[key]),
        deleted=len(before) - len(common),
    )


def interval(body: bytes) -> float | None:
    """Seconds after which a feed wants to be asked again: REFRESH-INTERVAL (RFC 7986, 5.7) or X-PUBLISHED-TTL."""
    first = body.find(b"BEGIN:VEVENT", 0, _HEADER)
    found = _INTERVAL.search(body[: first if first >= 0 else _HEADER])
    return seconds_of(found.group(1).decode("ascii").upper()) if found is not None else None


def seconds_of(duration: str) -> float | None:
    """Seconds of a duration of RFC 5545; None where it is none, or of no length."""
    found = _DURATION.fullmatch(duration)
    if found is None:
        return None
    parts = (int(part[:9]) if part else 0 for part in found.groups())
    total = sum(count * unit for count, unit in zip(parts, _SECONDS, strict=True))
    return float(total) or None


def is_stale(delay: float | None, wanted: float | None) -> bool | None:
    """Whether a copy was older than its feed allows; None where either is unknown."""
    if delay is None or wanted is None:
        return None
    return delay > TOLERANCE * wanted
