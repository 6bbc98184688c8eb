"""What a report may say about an address."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

MASK = "***"


def masked_url(url: str) -> str:
    """An address without user, password and query, which may hold secrets."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return MASK
    user = f"{MASK}@" if "@" in parts.netloc else ""
    return urlunsplit((parts.scheme, user + host, parts.path, MASK if parts.query else "", ""))
