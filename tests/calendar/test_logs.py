"""What caldav logs is exported without people's data, whoever bridges its records."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import caldav
import pytest
from opentelemetry.instrumentation.logging.handler import LoggingHandler
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor

from otel_shim.capture.caldav import CaldavInstrumentor
from otel_shim.capture.ics import IcalendarInstrumentor
from otel_shim.signals.calendar_logs import WITHHELD

from .clients import Account, account, settled
from .recording import Recording
from .servers import LOGIN, PASSWORD, CalendarServer
from .test_feeds import CLIENTS, SECRET_PATH, Site, site

__all__ = ["site"]


def instrument(provider: LoggerProvider) -> None:
    """All again, for this provider."""
    for instrumentor in (CaldavInstrumentor, IcalendarInstrumentor):
        instrumentor().uninstrument()
        instrumentor().instrument(logger_provider=provider)


@pytest.fixture
def exported(recording: Recording) -> Iterator[InMemoryLogRecordExporter]:
    """OpenTelemetry's own bridge on the root logger at DEBUG, as one would have it without the distro."""
    exporter = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    instrument(provider)
    handler = LoggingHandler(level=logging.DEBUG, logger_provider=provider)
    root, caldav_logger = logging.getLogger(), logging.getLogger("caldav")
    levels = root.level, caldav_logger.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    caldav_logger.setLevel(logging.DEBUG)
    yield exporter
    root.removeHandler(handler)
    root.setLevel(levels[0])
    caldav_logger.setLevel(levels[1])


def texts(exporter: InMemoryLogRecordExporter) -> list[tuple[str, str]]:
    """Logger and text of every record."""
    found = []
    for data in exporter.get_finished_logs():
        assert data.instrumentation_scope is not None
        record = data.log_record
        found.append((data.instrumentation_scope.name, f"{record.body!s} {record.attributes}"))
    return found


async def test_bodies_at_debug(
    radicale: CalendarServer,
    exported: InMemoryLogRecordExporter,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The application's own handlers see what they always see; telemetry sees that something was logged."""
    made: Account = await account("sync", radicale)
    await made.put("one", summary="Oncology")
    await settled(made.calendar.get_objects(load_objects=True))
    assert "Oncology" in caplog.text and "bob@example.com" in caplog.text
    records = [text for logger, text in texts(exported) if logger.startswith("caldav")]
    assert len(records) > 10
    assert all(text.startswith(WITHHELD) for text in records)
    for _, text in texts(exported):
        for secret in ("Oncology", "bob@example.com", "alice", "correct horse"):
            assert secret not in text, text


def test_what_is_not_below_warning(exported: InMemoryLogRecordExporter) -> None:
    """Warnings keep their first line, without addresses; other loggers keep everything."""
    logging.getLogger("caldav").warning("cannot read http://h/alice/x.ics\nSUMMARY:Oncology")
    logging.getLogger("planning").debug("http://h/alice/x.ics")
    logging.getLogger().info(
        "Expected some valid XML from the server, but got this: \nb'SUMMARY:Oncology'"
    )
    assert [text.partition(" {")[0] for _, text in texts(exported)] == [
        "cannot read http://REDACTED",
        "http://h/alice/x.ics",
        WITHHELD,
    ]


@pytest.mark.parametrize(
    ("written", "exported_as"),
    [
        ("No calendar with name 'Anna O'Brien' found", "No calendar with name REDACTED found"),
        (
            "Problems fetching calendar anna@example.com: 404",
            "Problems fetching calendar REDACTED 404",
        ),
        ("The path alice/Anna Roe/x.ics was not found", "The path REDACTED was not found"),
        ("paths found: ['/alice/', \"/bob's/\"]", "paths found: [REDACTED]"),
        ("got b'SUMMARY:Oncology", "got REDACTED"),
        ("of “Anna Roe” <anna%40example.com>", "of REDACTED REDACTED"),
        (f"at '({'x' * 300} Anna Roe' reason", "at REDACTED reason"),
        ("Server did not return DAV header", "Server did not return DAV header"),
    ],
)
def test_names_in_warnings(
    written: str, exported_as: str, exported: InMemoryLogRecordExporter
) -> None:
    """Names of calendars, addresses of people and paths are in what caldav writes when something fails."""
    logging.getLogger("caldav").warning(written)
    logging.getLogger("caldav.lib.error").error(written)
    assert [text.partition(" {")[0] for _, text in texts(exported)] == [exported_as] * 2


def test_templates_of_warnings(
    exported: InMemoryLogRecordExporter, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a message with arguments only the template goes; a record that cannot be formatted harms nobody."""
    log = logging.getLogger("caldav")
    log.warning("%s: gave up waiting for %s", "Anna", "Oncology")
    log.warning("Anna waits")
    assert "Anna: gave up waiting for Oncology" in caplog.text
    assert [text.partition(" {")[0] for _, text in texts(exported)] == [
        "%s: gave up waiting for %s",
        "Anna waits",
    ]


def test_a_calendar_that_is_not_there(
    radicale: CalendarServer,
    exported: InMemoryLogRecordExporter,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A client of caldav, asked for a calendar by its name."""
    caldav.get_calendars(
        url=radicale.home, username=LOGIN, password=PASSWORD, calendar_name="Anna Roe"
    )
    assert "Anna Roe" in caplog.text
    severe = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert severe
    assert len([text for _, text in texts(exported) if "REDACTED" in text]) == len(severe)
    assert not [text for _, text in texts(exported) if "Anna" in text]


@pytest.mark.parametrize("client", list(CLIENTS))
async def test_addresses_of_feeds(
    client: str,
    site: Site,
    exported: InMemoryLogRecordExporter,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Every client logs what it asks for, some at INFO; the address of a feed is its password."""
    await settled(CLIENTS[client](site.feed))
    assert SECRET_PATH in caplog.text
    assert WITHHELD in {text.partition(" {")[0] for _, text in texts(exported)}
    assert not [text for _, text in texts(exported) if "private" in text or "alice" in text]
