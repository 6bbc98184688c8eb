"""Feeds: recognised, compared, their intervals; in linear time whatever they hold."""

from __future__ import annotations

import random
import time

import pytest

from otel_shim import feeds
from otel_shim.calendars import Items


def event(uid: str, summary: str = "x", stamp: str = "20260101T000000Z", more: str = "") -> str:
    """An event of a feed."""
    return (
        f"BEGIN:VEVENT\r\nUID:{uid}\r\nDTSTAMP:{stamp}\r\nSUMMARY:{summary}\r\n{more}END:VEVENT\r\n"
    )


def feed(*events: str, head: str = "") -> bytes:
    """A feed."""
    return f"BEGIN:VCALENDAR\r\n{head}{''.join(events)}END:VCALENDAR\r\n".encode()


def look(body: bytes) -> dict[int, int]:
    """The items of a feed."""
    return feeds.snapshot(feeds.content(body))


@pytest.mark.parametrize(
    ("url", "accept", "expected"),
    [
        ("https://h/team.ics", "", True),
        ("https://h/TEAM.ICS?x=1", "", True),
        ("webcal://h/team", "", True),
        ("https://h/export", "text/calendar, */*", True),
        ("https://h/export", "*/*", False),
        ("https://h/ics", "", False),
        ("https://h/?file=x.ics", "", False),
    ],
)
def test_expected(url: str, accept: str, expected: bool) -> None:
    """By the ending of the path, the scheme, or what is asked for."""
    assert feeds.expected(url, accept) is expected


@pytest.mark.parametrize(
    ("body", "calendar"),
    [
        (feed(), True),
        (b"\xef\xbb\xbf" + feed(), True),
        (b"\r\n\r\n" + feed().lower(), True),
        (b"<html>BEGIN:VCALENDAR</html>", False),
        (b"", False),
        (b"{}", False),
    ],
)
def test_is_calendar(body: bytes, calendar: bool) -> None:
    """A line of its own at the beginning; not a page that speaks of it."""
    assert feeds.is_calendar(body) is calendar


def test_fingerprint_is_of_the_content() -> None:
    """Text and bytes, charsets and ends of lines do not matter; what is written does."""
    body = feed(event("a", "Müller"))
    text = body.decode()
    same = (body, text, text.replace("\r\n", "\n"), text.encode("latin-1"), text.strip())
    assert len({feeds.fingerprint(each) for each in same}) == 1
    assert feeds.fingerprint(feed(event("a", "Muller"))) != feeds.fingerprint(body)
    assert feeds.fingerprint("\ud800" + text) is not None


def test_compare() -> None:
    """New, changed and gone; when it was exported is no change."""
    before = look(feed(event("a"), event("b"), event("c")))
    after = look(
        feed(event("a", stamp="20270101T000000Z"), event("b", "y"), event("d"), event("e"))
    )
    assert feeds.compare(before, after) == Items(created=2, changed=1, deleted=1)
    assert feeds.compare(None, after) == Items(created=4)
    assert feeds.compare(after, after) == Items()


def test_occurrences_are_items_of_their_own() -> None:
    """An occurrence that was moved has the UID of its series; alarms inside are part of their event."""
    moved = event("a", more="RECURRENCE-ID:20260105T000000Z\r\n")
    alarm = event("b", more="BEGIN:VALARM\r\nACTION:DISPLAY\r\nEND:VALARM\r\n")
    assert len(look(feed(event("a"), moved, alarm))) == 3


def test_long_uids_are_read_to_their_end() -> None:
    """Those of Outlook begin alike and go on in the next line."""
    uids = (f"{'0400' * 17}\r\n {number}" for number in range(3))
    assert len(look(feed(*(event(uid) for uid in uids)))) == 3


@pytest.mark.parametrize(
    ("head", "seconds"),
    [
        ("REFRESH-INTERVAL;VALUE=DURATION:PT1H\r\n", 3600),
        ("X-PUBLISHED-TTL:P1DT12H\r\n", 129_600),
        ("refresh-interval;value=duration:p2w\r\n", 1_209_600),
        ("REFRESH-INTERVAL;VALUE=DURATION:PT0S\r\n", None),
        ("REFRESH-INTERVAL;VALUE=DURATION:soon\r\n", None),
        ("", None),
    ],
)
def test_interval(head: str, seconds: float | None) -> None:
    """RFC 7986 and Microsoft's older property; nonsense is no interval."""
    assert feeds.interval(feed(event("a"), head=head)) == seconds


@pytest.mark.parametrize(
    ("delay", "wanted", "stale"),
    [(None, 60.0, None), (10.0, None, None), (89.0, 60.0, False), (91.0, 60.0, True)],
)
def test_stale(delay: float | None, wanted: float | None, stale: bool | None) -> None:
    """Half again the interval is too long."""
    assert feeds.is_stale(delay, wanted) is stale


HOSTILE = {
    "begins": b"BEGIN:VEVENT\r\n",
    "spaces": b" " * 64 + b"\r\n",
    "digits": b"REFRESH-INTERVAL:P" + b"1" * 64,
    "uids": b"UID:",
    "stamps": b"DTSTAMP",
    "zeros": b"\0",
    "letters": b"P",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bodies_take_linear_time(name: str) -> None:
    """Sixteen times the length takes no more than some sixteen times the work: counted in CPU, not judged by a clock."""

    def work(size: int) -> float:
        body = b"BEGIN:VCALENDAR\r\n" + (HOSTILE[name] * size)[: size * 16]
        best = float("inf")
        for _ in range(3):
            began = time.process_time()
            feeds.is_calendar(body), look(body), feeds.interval(body)
            feeds.fingerprint(body), feeds.is_whole(body)
            best = min(best, time.process_time() - began)
        return best

    small, large = work(4_000), work(64_000)
    assert large < 0.05 or large / max(small, 1e-4) < 100


def test_any_bytes() -> None:
    """Random bytes with words of the format in between never raise."""
    chance = random.Random(7)
    words = [b"BEGIN:VEVENT\n", b"END:VEVENT", b"UID:", b"\r\n", b"DTSTAMP", b"\xff\xfe", b":"]
    for _ in range(500):
        body = b"".join(
            chance.choice(words) if chance.random() < 0.6 else chance.randbytes(4)
            for _ in range(40)
        )
        items = look(body)
        assert feeds.compare(items, items) == Items()
        feeds.is_calendar(body), feeds.interval(body), feeds.fingerprint(body)
