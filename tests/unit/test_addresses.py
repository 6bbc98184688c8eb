"""otel_shim.addresses: what may be said of an address, found the short way and the long way alike."""

from __future__ import annotations

import pytest

from otel_shim import addresses
from otel_shim.addresses import Target, method_of, target

HIDDEN = "https://calendars.example/REDACTED"
ADDRESSES = {
    "https://calendars.example/alice/work/1.ics": Target("https", "calendars.example", 443, HIDDEN),
    "https://alice:secret@calendars.example/a": Target("https", "calendars.example", 443, HIDDEN),
    "http://127.0.0.1:5232/a?b=/c": Target(
        "http", "127.0.0.1", 5232, "http://127.0.0.1:5232/REDACTED"
    ),
    "http://[::1]:5232/a": Target("http", "::1", 5232, "http://[::1]:5232/REDACTED"),
    "HTTPS://Calendars.Example/a": Target("https", "calendars.example", 443, HIDDEN),
    "http://h/": Target("http", "h", 80, "http://h/"),
    "http://h": Target("http", "h", 80, "http://h/"),
    "http://h/#a": Target("http", "h", 80, "http://h/"),
    "http://h#a/b": Target("http", "h", 80, "http://h/"),
    "http://h?a/b": Target("http", "h", 80, "http://h/REDACTED"),
    "http://h/?a/b": Target("http", "h", 80, "http://h/REDACTED"),
    "http://h//a": Target("http", "h", 80, "http://h/REDACTED"),
    "webcal://h/a": Target("webcal", "h", None, "webcal://h/REDACTED"),
    "a://b/c": Target("a", "b", None, "a://b/REDACTED"),
    "/alice/work/1.ics": Target("http", "", 80, "http:///REDACTED"),
    "http:///alice/work": Target("http", "", 80, "http:///REDACTED"),
    "ht\ntp://h/alice/b": Target("http", "h", 80, "http://h/REDACTED"),
    "http://h\t1/alice/b": Target("http", "h1", 80, "http://h1/REDACTED"),
}


@pytest.mark.parametrize("url", ADDRESSES)
def test_target(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No login, path, query and fragment, whichever way is taken."""
    assert target(url) == ADDRESSES[url]
    monkeypatch.setattr(addresses, "_target_of_origin", lambda origin: None)
    assert target(url) == ADDRESSES[url]


@pytest.mark.parametrize("url", ["http://[h/alice", "http://h:port/alice"])
def test_what_is_no_address_is_refused(url: str) -> None:
    """Both ways alike."""
    with pytest.raises(ValueError, match=r"IPv6|port"):
        target(url)


def test_method() -> None:
    """Methods of WebDAV are named; what is none of HTTP's may be anything, also a secret."""
    assert method_of("REPORT") == "REPORT"
    assert method_of("secret") == addresses.OTHER
