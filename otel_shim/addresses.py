"""What may be said of an HTTP request to a calendar: its method and its server. Pure.

Addresses of calendars hold logins and secrets; the path of one is never exported.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple
from urllib.parse import urlsplit

_PORTS = {"http": 80, "https": 443}
_REDACTED = "/REDACTED"
_SHORTEST_ORIGIN = len("http://a")
# RFC 9110 and 5789; RFC 4918 (WebDAV), 3253 (REPORT), 4791 (MKCALENDAR), 3744 (ACL), 5323 (SEARCH).
_METHODS = frozenset(
    {
        *("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"),
        *("PROPFIND", "PROPPATCH", "MKCOL", "COPY", "MOVE", "LOCK", "UNLOCK"),
        *("REPORT", "MKCALENDAR", "ACL", "SEARCH"),
    }
)
OTHER = "_OTHER"
"""The method that is none of HTTP's."""


class Target(NamedTuple):
    """What may be said of an address: its server, and that there was a path."""

    scheme: str
    host: str
    port: int | None
    shown: str


def target(url: str) -> Target:
    """What may be said of an address: no login, path, query and fragment."""
    end = url.find("/", _SHORTEST_ORIGIN)
    if end > 0 and url[end + 1 : end + 2].isalnum():  # there is a path, so all else is its origin
        found = _target_of_origin(url[:end])
        if found is not None:
            return found
    parts = urlsplit(url)
    has_path = parts.path not in ("", "/") or bool(parts.query)
    return _target(parts.scheme or "http", parts.netloc, has_path)


@functools.lru_cache(256)
def _target_of_origin(origin: str) -> Target | None:
    """The target of addresses that begin so and have a path; None where this is no origin and no more."""
    parts = urlsplit(origin)
    plain = origin == f"{parts.scheme}://{parts.netloc}"
    return _target(parts.scheme, parts.netloc, has_path=True) if plain else None


@functools.lru_cache(256)
def _target(scheme: str, netloc: str, has_path: bool) -> Target:
    parts = urlsplit(f"//{netloc}")
    host, port = parts.hostname or "", parts.port
    named = f"[{host}]" if ":" in host else host
    shown = f":{port}" if port is not None else ""
    address = f"{scheme}://{named}{shown}{_REDACTED if has_path else '/'}"
    return Target(scheme, host, port or _PORTS.get(scheme), address)


def absolute(url: object, client: Any) -> str:
    """The address of a request by a client; one without a server is the client's own."""
    text = str(url)
    return text if "//" in text else str(client.url)


def method_of(name: str) -> str:
    """A method as telemetry names it."""
    return name if name in _METHODS else OTHER
