"""Calendars under the launcher: found in Jaeger by operation and organisation, without a line of code.

What each case of each server makes of a span is tested in tests/calendar, in an environment of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from examples.saas.demo.jaeger import Span, Trace
from tests.calendar import servers

from . import environments, server
from .environments import Environment
from .test_jobs import Ended, script

OPERATION = "calendar.synchronize"
CALENDAR = "saas.calendar."
SECRETS = ("alice", "example.com", "correct", "Oncology", "bob@", "north-new", "south-1.ics")


@dataclass(frozen=True)
class Planned:
    """What the planner left behind."""

    traces: list[Trace]
    backend: server.Backend
    ended: Ended
    service: str

    def syncs(self, org: str) -> list[Span]:
        """The synchronisations of an organisation, found as a person would."""
        tags = {"saas.operation": OPERATION, "saas.org.id": org}
        found = self.backend.jaeger.search(self.service, tags)
        spans = [s for t in found for s in t.spans if s.name == OPERATION]
        return sorted(spans, key=lambda span: span.start_us)


@pytest.fixture(scope="module")
def calendar_environment() -> Environment:
    """caldav, icalendar, Radicale and the wheel."""
    return environments.make(environments.CALENDAR)


@pytest.fixture(scope="module", params=["planner", "planner-disabled"])
def service(request: pytest.FixtureRequest) -> str:
    """With our instrumentors, and with them switched off."""
    return str(request.param)


@pytest.fixture(scope="module")
def planned(
    calendar_environment: Environment,
    backend: server.Backend,
    service: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Planned]:
    """The planner, run to its end under the launcher against a real Radicale."""
    out = tmp_path_factory.mktemp(service)
    python = calendar_environment.program("python")
    with servers.radicale(out, python) as radicale:
        env = {
            **server.telemetry(service, backend.otlp),
            "PLANNER_SERVER": radicale.home,
            "PLANNER_LOGIN": servers.LOGIN,
            "PLANNER_PASSWORD": servers.PASSWORD,
        }
        if service == "planner-disabled":
            env["OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"] = "caldav,icalendar"
        ended = script(calendar_environment, ("-m", "apps.planner"), env, out)
        spans = 5 if service == "planner" else 1
        yield Planned(_traces(backend, service, spans), backend, ended, service)


def _traces(backend: server.Backend, service: str, syncs: int) -> list[Trace]:
    """What arrived, once it is all there: so many synchronisations, or with none a request of the feed."""
    name = OPERATION if syncs > 1 else "GET"
    found: list[Trace] = []

    def complete() -> bool:
        found[:] = backend.jaeger.search(service)
        return sum(span.name == name for trace in found for span in trace.spans) >= syncs

    server.eventually(complete, 60, f"Jaeger has {syncs} spans {name} of {service}")
    return found


def facts(span: Span) -> tuple[Any, ...]:
    """What a synchronisation says: provider, mode, outcome, token lost, items."""
    names = ("provider", "sync.mode", "sync.outcome", "token.lost")
    items = ("items.created", "items.changed", "items.deleted", "items.failed")
    return tuple(span.tags[CALENDAR + name] for name in (*names, *items))


@pytest.mark.parametrize("service", ["planner"], indirect=True)
def test_found_by_operation_and_organisation(planned: Planned) -> None:
    """Each synchronisation is its own span, with its requests below it, of the right organisation."""
    first, second, third = planned.syncs("north")
    assert facts(first) == ("caldav", "initial", "success", False, 3, 0, 0, 0)
    assert facts(second) == ("caldav", "incremental", "success", False, 1, 0, 0, 0)
    assert facts(third) == ("caldav", "full_resync", "success", True, 0, 0, 0, 0)
    listed, feed = planned.syncs("south")
    assert facts(listed) == ("caldav", "initial", "success", False, 3, 0, 0, 0)
    assert facts(feed) == ("ics", "initial", "success", False, 1, 0, 0, 0)
    hashes = {
        span.tags[CALENDAR + "hash"] for org in ("north", "south") for span in planned.syncs(org)
    }
    assert len(hashes) == 3
    assert {span.tags["saas.gdpr.processing_activity.id"] for span in planned.syncs("north")} == {
        "ropa-017"
    }
    for trace in planned.traces:
        for span in trace.spans:
            if span.name == OPERATION:
                below = [child.name for child in trace.children(span)]
                assert len(below) == span.tags[CALENDAR + "requests"]
                assert set(below) <= {"REPORT", "GET"}
                orgs = {child.tags.get("saas.org.id") for child in trace.children(span)}
                assert orgs == {span.tags["saas.org.id"]}


@pytest.mark.parametrize("service", ["planner"], indirect=True)
def test_nothing_of_people_leaves(planned: Planned) -> None:
    """Neither spans nor log records, at DEBUG, hold a login, an address or what is in a calendar."""
    for trace in planned.traces:
        for span in trace.spans:
            told = f"{span.name} {dict(span.tags)}"
            assert not [secret for secret in SECRETS if secret in told], told
    records = planned.backend.logs(planned.service)
    assert len(records) > 50
    for record in records:
        assert not [secret for secret in SECRETS if secret in str(record)], record
    assert "Oncology" in planned.ended.output, "the application's own log is its own"


@pytest.mark.parametrize("service", ["planner-disabled"], indirect=True)
def test_switched_off(planned: Planned) -> None:
    """OTEL_PYTHON_DISABLED_INSTRUMENTATIONS counts: no synchronisation, the feed is any request."""
    names = {span.name for trace in planned.traces for span in trace.spans}
    assert "GET" in names
    assert names.isdisjoint({OPERATION, "REPORT", "PROPFIND"})
