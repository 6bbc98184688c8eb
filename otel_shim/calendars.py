"""Synchronisations with calendars: what one is, how it ended, what its errors are called. Pure.

    tokens, items, errors ─▶ Synchronisation ─▶ attributes of the span `calendar.synchronize`

Errors are typed by their class names and by the status they carry, so that no library is imported:
caldav has four transports with exceptions of their own, and Google's client a fifth.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE

from otel_shim import _semconv as semconv
from otel_shim._guard import guarded
from otel_shim.model import Scalar

AUTH = "auth"
NOT_FOUND = "not_found"
CONFLICT = "conflict"
TOKEN_LOST = "token_lost"  # noqa: S105 - the name of an error
RATE_LIMITED = "rate_limited"
REFUSED = "refused"
SERVER_ERROR = "server_error"
UNREACHABLE = "unreachable"
TIMEOUT = "timeout"
TLS = "tls"
MALFORMED = "malformed"
NOT_A_CALENDAR = "not_a_calendar"
REDIRECTED = "redirected"
ERROR_TYPES = frozenset(
    {
        *(AUTH, NOT_FOUND, CONFLICT, TOKEN_LOST, RATE_LIMITED, REFUSED, SERVER_ERROR),
        *(UNREACHABLE, TIMEOUT, TLS, MALFORMED, NOT_A_CALENDAR, REDIRECTED),
    }
)
"""The types of errors that have a name of their own; any other error is named by its class."""
EMULATED_TOKEN = "fake-"  # noqa: S105 - caldav's mark of a token that it made itself
_MOST_DIGITS = 16
_VALID_SYNC_TOKEN = "valid-sync-token"  # noqa: S105 - RFC 6578, section 3.2
_OF_STATUS = {
    **dict.fromkeys((401, 403, 407), AUTH),
    **dict.fromkeys((404, 410), NOT_FOUND),
    **dict.fromkeys((409, 412), CONFLICT),
    **dict.fromkeys((408, 504), TIMEOUT),
    429: RATE_LIMITED,
}
_OF_CLASS = {
    **dict.fromkeys(("RateLimitError",), RATE_LIMITED),
    **dict.fromkeys(
        ("ETagMismatchError", "ScheduleTagMismatchError", "UidConflictError"), CONFLICT
    ),
    **dict.fromkeys(("TimeoutError", "Timeout", "TimeoutException"), TIMEOUT),
    **dict.fromkeys(("SSLError",), TLS),
    **dict.fromkeys(("ConnectionError", "TransportError", "gaierror"), UNREACHABLE),
    **dict.fromkeys(("ServerNotFoundError", "herror"), UNREACHABLE),
    **dict.fromkeys(("XMLSyntaxError", "ParseError", "JSONDecodeError"), MALFORMED),
    **dict.fromkeys(("UnicodeDecodeError", "ContentDecodingError", "DecodingError"), MALFORMED),
    **dict.fromkeys(("ResponseError",), MALFORMED),
    **dict.fromkeys(("NotFoundError",), NOT_FOUND),
    **dict.fromkeys(("AuthorizationError", "RefreshError"), AUTH),
}
_FIRST_CLASSES = ("RateLimitError", "ETagMismatchError", "ScheduleTagMismatchError")
"""Classes that say more than the status they carry."""


@dataclass(frozen=True, slots=True)
class Items:
    """What became of the items of a calendar."""

    created: int = 0
    changed: int = 0
    deleted: int = 0
    failed: int = 0

    def states(self) -> Iterator[tuple[str, int]]:
        """Each state with its number, those without items left out."""
        counts = (self.created, self.changed, self.deleted, self.failed)
        return ((state, count) for state, count in zip(_STATES, counts, strict=True) if count > 0)


_STATES = (
    semconv.SAAS_CALENDAR_ITEM_STATE_CREATED,
    semconv.SAAS_CALENDAR_ITEM_STATE_CHANGED,
    semconv.SAAS_CALENDAR_ITEM_STATE_DELETED,
    semconv.SAAS_CALENDAR_ITEM_STATE_FAILED,
)
NOTHING = Items()


@dataclass(frozen=True, slots=True)
class Synchronisation:
    """One synchronisation that has ended.

    ``wait``, ``delay`` and ``age`` are seconds: slept for the server's limit of rate, since the last
    complete synchronisation, since the content of a feed last changed. ``error`` is a type of error.
    """

    provider: str
    mode: str
    items: Items = NOTHING
    received: int = 0
    requests: int = 0
    wait: float = 0.0
    conflicts: int = 0
    token_lost: bool = False
    delay: float | None = None
    stale: bool | None = None
    age: float | None = None
    error: str | None = None

    def outcome(self) -> str:
        """How it ended, in the words of the contract."""
        if self.error is not None:
            return semconv.SAAS_CALENDAR_SYNC_OUTCOME_FAILURE
        if self.items.failed:
            return semconv.SAAS_CALENDAR_SYNC_OUTCOME_PARTIAL
        return semconv.SAAS_CALENDAR_SYNC_OUTCOME_SUCCESS

    def complete(self) -> bool:
        """Whether the copy is now as new as the calendar, but for items that failed."""
        return self.error is None and self.mode != semconv.SAAS_CALENDAR_SYNC_MODE_TRUNCATED


def attributes(sync: Synchronisation) -> dict[str, Scalar]:
    """What the span of a synchronisation carries; what is unknown is absent."""
    return {key: value for key, value in _pairs(sync) if value is not None}


def _pairs(sync: Synchronisation) -> Iterable[tuple[str, Scalar | None]]:
    items = sync.items
    return (
        (semconv.SAAS_CALENDAR_PROVIDER, sync.provider),
        (semconv.SAAS_CALENDAR_SYNC_MODE, sync.mode),
        (semconv.SAAS_CALENDAR_SYNC_OUTCOME, sync.outcome()),
        (semconv.SAAS_CALENDAR_ITEMS_CREATED, items.created),
        (semconv.SAAS_CALENDAR_ITEMS_CHANGED, items.changed),
        (semconv.SAAS_CALENDAR_ITEMS_DELETED, items.deleted),
        (semconv.SAAS_CALENDAR_ITEMS_FAILED, items.failed),
        (semconv.SAAS_CALENDAR_BYTES, sync.received),
        (semconv.SAAS_CALENDAR_REQUESTS, sync.requests),
        (semconv.SAAS_CALENDAR_CONFLICTS, sync.conflicts),
        (semconv.SAAS_CALENDAR_TOKEN_LOST, sync.token_lost),
        (semconv.SAAS_CALENDAR_WAIT, sync.wait or None),
        (semconv.SAAS_CALENDAR_DELAY, sync.delay),
        (semconv.SAAS_CALENDAR_FEED_STALE, sync.stale),
        (semconv.SAAS_CALENDAR_FEED_AGE, sync.age),
        (ERROR_TYPE, sync.error),
    )


def emulated(token: object) -> bool:
    """Whether caldav made this token itself, because the server has none or lost the one given."""
    return isinstance(token, str) and token.startswith(EMULATED_TOKEN)


def mode_of_tokens(before: object, after: object, truncated: bool) -> tuple[str, bool]:
    """The mode of a CalDAV synchronisation, and whether its token was lost.

    caldav hides the loss: it downloads everything and hands back a token of its own.
    """
    if before and not emulated(before) and emulated(after):
        return semconv.SAAS_CALENDAR_SYNC_MODE_FULL_RESYNC, True
    if emulated(before) or emulated(after):
        return semconv.SAAS_CALENDAR_SYNC_MODE_EMULATED, False
    if truncated:
        return semconv.SAAS_CALENDAR_SYNC_MODE_TRUNCATED, False
    return expected_mode(before), False


def expected_mode(token: object) -> str:
    """The mode of a synchronisation that begins with this token."""
    if emulated(token):
        return semconv.SAAS_CALENDAR_SYNC_MODE_EMULATED
    if token:
        return semconv.SAAS_CALENDAR_SYNC_MODE_INCREMENTAL
    return semconv.SAAS_CALENDAR_SYNC_MODE_INITIAL


def listed_items(mode: str, listed: int, deleted: int) -> Items:
    """The items of a list of what is there or has changed, which tells new ones from changed ones by the mode only."""
    present = max(0, listed - deleted)
    if mode == semconv.SAAS_CALENDAR_SYNC_MODE_INITIAL:
        return Items(created=present, deleted=deleted)
    return Items(changed=present, deleted=deleted)


def merged_items(before: int, after: int, updated: int, deleted: int) -> Items:
    """The items of a copy that was brought up to date, from its sizes and from what it reports."""
    created = min(updated, max(0, after - before + deleted))
    return Items(created=created, changed=updated - created, deleted=deleted)


def error_type(error: BaseException) -> str:
    """The type of an error: one of ``ERROR_TYPES``, else the name of its class."""
    classes = [cls.__name__ for cls in type(error).__mro__]
    if _says_token_lost(error):
        return TOKEN_LOST
    for name in classes:
        if name in _FIRST_CLASSES:
            return _OF_CLASS[name]
    if (status := status_of(error)) is not None and status >= 400:
        return error_type_of_status(status)
    known = (_OF_CLASS[name] for name in classes if name in _OF_CLASS)
    return next(known, type(error).__qualname__)


def error_type_of_status(status: int) -> str:
    """The type of an HTTP status that is an error."""
    return _OF_STATUS.get(status) or (SERVER_ERROR if status >= 500 else REFUSED)


@guarded(default=None)
def status_of(error: BaseException) -> int | None:
    """The HTTP status that an error carries, in one of the ways of its library; its properties may raise."""
    found = (
        getattr(error, "status", None),
        getattr(getattr(error, "response", None), "status_code", None),
        getattr(getattr(error, "resp", None), "status", None),
    )
    return next((status for status in found if type(status) is int), None)


@guarded(default=False)
def _says_token_lost(error: BaseException) -> bool:
    found = getattr(error, "preconditions", None)
    tags = found if isinstance(found, (list, tuple)) else ()
    return any(str(tag).endswith(_VALID_SYNC_TOKEN) for tag in tags)


def size(header: object, read: int) -> int:
    """Bytes of a body as its header announces them, where it is a sensible number; else as they were read."""
    text = str(header) if header is not None else ""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < _MOST_DIGITS else read


def without_login(url: str) -> str:
    """An address without login, query's order and fragment untouched; for pseudonyms, never for telemetry."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl()
