"""The nouns of find: what is asked, and traces as backends answer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from opentelemetry.semconv._incubating.attributes.user_attributes import USER_HASH

from otel_shim import _semconv as semconv
from otel_shim import request_ids, sources

_TRACE_ID = re.compile(r"[0-9a-fA-F]{16}|[0-9a-fA-F]{32}")
_USER_HASH = re.compile(r"[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{43}")
_SPAN_OF_TIME = re.compile(r"(?P<count>[1-9][0-9]{0,5})(?P<unit>[smhd])")
_HEADER = re.compile(r"(?P<name>[A-Za-z0-9-]{1,64}):\s*(?P<value>[\x20-\x7e]{1,4096})")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Unusable(ValueError):
    """What was given cannot be asked for; the text says what can."""


@dataclass(frozen=True)
class Question:
    """What to look for: one trace by its id, or traces with a span that has this attribute."""

    attribute: str | None
    value: str
    seconds: int
    limit: int
    service: str | None = None


@dataclass(frozen=True)
class Backend:
    """Where to ask. ``headers`` may hold credentials and are kept out of ``repr``."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Span:
    """One span; times in microseconds since 1970."""

    trace_id: str
    span_id: str
    parent_id: str | None
    service: str
    name: str
    start_us: int
    duration_us: int
    failed: bool
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class Trace:
    """The spans of a trace, the earliest first; at least one."""

    trace_id: str
    link: str
    spans: tuple[Span, ...]

    def root(self) -> Span:
        """The span that has no parent, else the earliest without one in this answer."""
        known = {span.span_id for span in self.spans}
        tops = [span for span in self.spans if span.parent_id not in known]
        return next((span for span in tops if span.parent_id is None), (tops or self.spans)[0])

    def duration_us(self) -> int:
        """From the first start to the last end."""
        return max(s.start_us + s.duration_us for s in self.spans) - self.spans[0].start_us

    def organisations(self) -> tuple[str, ...]:
        """Whose work it is, in order of appearance."""
        found = (span.attributes.get(semconv.SAAS_ORG_ID) for span in self.spans)
        return tuple(dict.fromkeys(str(org) for org in found if org is not None))

    def failed(self) -> bool:
        """Whether any span failed."""
        return any(span.failed for span in self.spans)

    def outline(self) -> Iterator[tuple[tuple[bool, ...], Span]]:
        """Each span below its parent, with whether it and each ancestor is the last of its siblings.

        Every span comes once, also where parents are missing or go round in a circle.
        """
        children: dict[str | None, list[Span]] = {}
        known = {span.span_id for span in self.spans}
        for span in self.spans:
            parent = span.parent_id if span.parent_id in known - {span.span_id} else None
            children.setdefault(parent, []).append(span)
        tops = reversed(children.pop(None, []))
        waiting: list[tuple[tuple[bool, ...], Span]] = [((), span) for span in tops]
        yield from _downwards(waiting, children)


def _downwards(
    waiting: list[tuple[tuple[bool, ...], Span]], children: dict[str | None, list[Span]]
) -> Iterator[tuple[tuple[bool, ...], Span]]:
    while waiting or children:
        if not waiting:  # what is left goes round in a circle: cut it anywhere
            parent = next(iter(children))
            waiting = [((), span) for span in reversed(children.pop(parent))]
        place, span = waiting.pop()
        yield place, span
        below = children.pop(span.span_id, [])
        lasts = [False] * (len(below) - 1) + [True]
        pairs = zip(lasts, below, strict=False)
        waiting += [((*place, last), child) for last, child in reversed(list(pairs))]


def by_request(value: str) -> tuple[str, str]:
    """The attribute and value for a request id."""
    if request_ids.well_formed(value.encode("utf-8", "replace")) is None:
        raise Unusable("a request id has at most 55 letters, digits, dots, dashes and underscores")
    return semconv.SAAS_REQUEST_ID, value


def by_organisation(value: str) -> tuple[str, str]:
    """The attribute and value for an organisation."""
    if sources.canonical(value) is None:
        raise Unusable(f"an organisation's id has 1 to {sources.MAX_VALUE} printable characters")
    return semconv.SAAS_ORG_ID, value


def by_user(value: str) -> tuple[str, str]:
    """The attribute and value for a user's pseudonym."""
    if _USER_HASH.fullmatch(value) is None:
        raise Unusable(
            "a user is found by user.hash, as spans and logs show it (<key id>.<43 characters>), "
            "not by the application's own id"
        )
    return USER_HASH, value


def trace_id(value: str) -> str:
    """A trace id in its full length."""
    if _TRACE_ID.fullmatch(value) is None or not int(value, 16):
        raise Unusable("a trace id has 32 hexadecimal digits, not all zero")
    return value.lower().zfill(32)


def service(value: str) -> str:
    """The name of a service."""
    if sources.canonical(value) is None:
        raise Unusable(f"a service's name has 1 to {sources.MAX_VALUE} printable characters")
    return value


def seconds(text: str) -> int:
    """A span of time such as ``90s``, ``15m``, ``1h``, ``7d``, in seconds."""
    match = _SPAN_OF_TIME.fullmatch(text)
    if match is None:
        raise Unusable("write a number and a unit: 90s, 15m, 1h, 7d")
    return int(match["count"]) * _SECONDS[match["unit"]]


def base_url(text: str) -> str:
    """The address of a backend's API, without a slash at its end."""
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
        raise Unusable("write an address such as http://localhost:16686")
    if "@" in parts.netloc:
        raise Unusable("give credentials by --header, such as 'Authorization: Basic ...'")
    return text.rstrip("/")


def header(text: str) -> tuple[str, str]:
    """A header to send along, from ``Name: value``."""
    match = _HEADER.fullmatch(text)
    if match is None:
        raise Unusable("write a header as Name: value")
    return match["name"], match["value"]
