"""What caldav logs is exported without people's data, whoever bridges its records."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from opentelemetry.instrumentation.logging.handler import LoggingHandler
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor

from otel_shim.capture.caldav import CaldavInstrumentor
from otel_shim.capture.ics import IcalendarInstrumentor
from otel_shim.signals.calendar_logs import WITHHELD

from .clients import Account, account, settled
from .recording import Recording
from .servers import CalendarServer
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
