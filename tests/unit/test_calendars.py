"""Synchronisations as nouns: outcomes, modes by tokens, items, types of errors."""

from __future__ import annotations

import socket
import ssl
from typing import Any

import pytest

from otel_shim import calendars
from otel_shim.calendars import Items, Synchronisation

REAL, FAKE = "http://server/sync/1", "fake-0123"


def named(name: str, *bases: type[Exception], **fields: Any) -> Exception:
    """An error of somebody's library."""
    made: Exception = type(name, bases or (Exception,), fields)()
    return made


@pytest.mark.parametrize(
    ("before", "after", "truncated", "mode", "lost"),
    [
        (None, REAL, False, "initial", False),
        ("", REAL, False, "initial", False),
        (REAL, REAL, False, "incremental", False),
        (REAL, REAL, True, "truncated", False),
        (None, REAL, True, "truncated", False),
        (REAL, FAKE, False, "full_resync", True),
        (FAKE, FAKE, False, "emulated", False),
        (None, FAKE, False, "emulated", False),
        (FAKE, REAL, False, "emulated", False),
    ],
)
def test_mode_by_tokens(
    before: str | None, after: str, truncated: bool, mode: str, lost: bool
) -> None:
    """A real token that comes back as caldav's own was lost; every other way has its mode."""
    assert calendars.mode_of_tokens(before, after, truncated) == (mode, lost)


@pytest.mark.parametrize(
    ("sizes", "items"),
    [
        ((3, 4, 2, 1), Items(created=2, deleted=1)),
        ((3, 3, 2, 1), Items(created=1, changed=1, deleted=1)),
        ((0, 0, 0, 0), Items()),
        ((5, 0, 0, 5), Items(deleted=5)),
        ((0, 9, 3, 0), Items(created=3)),
        ((9, 3, 1, 0), Items(changed=1)),
    ],
)
def test_items_of_a_copy(sizes: tuple[int, int, int, int], items: Items) -> None:
    """New ones are told from changed ones by the sizes; never more than were reported, never less than none."""
    assert calendars.merged_items(*sizes) == items


def test_items_of_a_list() -> None:
    """Only the first list says that all of it is new."""
    assert calendars.listed_items("initial", 3, 0) == Items(created=3)
    assert calendars.listed_items("incremental", 3, 1) == Items(changed=2, deleted=1)
    assert calendars.listed_items("incremental", 0, 2) == Items(deleted=2)


@pytest.mark.parametrize(
    ("sync", "outcome", "complete"),
    [
        (Synchronisation("ics", "initial"), "success", True),
        (Synchronisation("ics", "initial", Items(failed=1)), "partial", True),
        (Synchronisation("ics", "initial", error="timeout"), "failure", False),
        (Synchronisation("caldav", "truncated"), "success", False),
    ],
)
def test_outcome(sync: Synchronisation, outcome: str, complete: bool) -> None:
    """Items that failed make it partial; a part of a calendar is not complete."""
    assert (sync.outcome(), sync.complete()) == (outcome, complete)


def test_attributes_leave_out_what_is_unknown() -> None:
    """Counts are there, also where they are 0; what does not apply is not."""
    found = calendars.attributes(Synchronisation("caldav", "initial", wait=0.0))
    assert found["saas.calendar.items.created"] == 0
    assert found["saas.calendar.token.lost"] is False
    for absent in ("wait", "delay", "feed.stale", "feed.age", "hash"):
        assert f"saas.calendar.{absent}" not in found
    assert "error.type" not in found


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (named("AuthorizationError", status=401), "auth"),
        (named("AuthorizationError", status=None), "auth"),
        (
            named("AuthorizationError", status=403, preconditions=["{DAV:}valid-sync-token"]),
            "token_lost",
        ),
        (
            named("ReportError", status=412, preconditions=["{DAV:}valid-sync-token", "x"]),
            "token_lost",
        ),
        (named("ReportError", status=500), "server_error"),
        (named("ReportError", status=507), "server_error"),
        (named("NotFoundError", status=404), "not_found"),
        (named("ETagMismatchError", status=412), "conflict"),
        (named("ScheduleTagMismatchError"), "conflict"),
        (
            named("UidConflictETagMismatchError", type(named("ETagMismatchError")), status=409),
            "conflict",
        ),
        (named("RateLimitError", status=503), "rate_limited"),
        (named("PutError", status=415), "refused"),
        (named("HttpError", resp=type("R", (), {"status": 429})()), "rate_limited"),
        (named("HTTPStatusError", response=type("R", (), {"status_code": 404})()), "not_found"),
        (
            named("ConnectTimeout", type(named("ConnectionError")), type(named("Timeout"))),
            "unreachable",
        ),
        (named("ReadTimeout", type(named("TimeoutException"))), "timeout"),
        (named("ConnectError", type(named("TransportError"))), "unreachable"),
        (ConnectionRefusedError(), "unreachable"),
        (socket.gaierror(), "unreachable"),
        (TimeoutError(), "timeout"),
        (ssl.SSLCertVerificationError(), "tls"),
        (named("XMLSyntaxError", SyntaxError), "malformed"),
        (named("ResponseError", status=None), "malformed"),
        (named("RefreshError"), "auth"),
        (KeyError("x"), "KeyError"),
        (named("AuthorizationError", status="401", preconditions="valid-sync-token"), "auth"),
    ],
)
def test_error_types(error: Exception, kind: str) -> None:
    """By precondition, status and class, whatever library it comes from; hostile fields are passed over."""
    assert calendars.error_type(error) == kind


def test_names_of_types_are_documented() -> None:
    """Every status that is an error has a type with a name of its own."""
    assert {calendars.error_type_of_status(s) for s in range(400, 600)} <= calendars.ERROR_TYPES


@pytest.mark.parametrize(
    ("header", "size"),
    [
        ("170", 170),
        (170, 170),
        (None, 7),
        ("", 7),
        ("-1", 7),
        ("²", 7),
        ("9" * 5000, 7),
        ("1e3", 7),
    ],
)
def test_announced_sizes_are_hostile(header: object, size: int) -> None:
    """Only a sensible number counts."""
    assert calendars.size(header, 7) == size


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://alice:secret@h/x/?a=1#f", "https://h/x/?a=1"),
        ("https://alice@h:8443/", "https://h:8443/"),
        ("https://h/x", "https://h/x"),
        ("/alice/work/", "/alice/work/"),
    ],
)
def test_logins_are_no_part_of_an_address(url: str, kept: str) -> None:
    """The same calendar with another login is the same calendar."""
    assert calendars.without_login(url) == kept


class _Hostile(Exception):
    """An error whose own properties raise, as a lazy client's may."""

    @property
    def response(self) -> object:
        raise RuntimeError("not read yet")

    preconditions = status = resp = response


class _HostileConnection(_Hostile, ConnectionError):
    pass


def test_errors_whose_properties_raise() -> None:
    """What cannot be asked is typed by its class; nothing of it reaches the application."""
    assert calendars.error_type(_Hostile()) == "_Hostile"
    assert calendars.error_type(_HostileConnection()) == "unreachable"
    assert calendars.status_of(_Hostile()) is None
