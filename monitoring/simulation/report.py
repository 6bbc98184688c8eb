"""The simulation's report, as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from monitoring.simulation.checks import Scenario
from monitoring.simulation.parts import DAYS_SPEED, SPEED
from monitoring.simulation.receivers import CHANNELS, Inbox, Received


@dataclass(frozen=True, slots=True)
class Times:
    """When it began, and when each fault was switched on and off, in Unix seconds."""

    started: float
    on: Mapping[Scenario, float]
    off: Mapping[Scenario, float]


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that was seen."""

    inbox: Inbox
    times: Times
    healthy: str
    traffic: str
    problems: Sequence[str]
    dashboards: str
    missed: str
    beside: str


def heartbeats(inbox: Inbox) -> str:
    """How many came, and the longest time without one."""
    gaps = [after - before for before, after in pairwise(inbox.heartbeats)]
    return f"{len(inbox.heartbeats)}, at most {max(gaps, default=0.0):.1f} s apart"


def table(outcome: Outcome, scenarios: Sequence[Scenario]) -> Iterator[str]:
    """When each alert reached each channel, and what it said first."""
    yield "| alert | channel | fired after fault on | resolved after fault off | endpoint | request | trace | found by |"
    yield "|---|---|---|---|---|---|---|---|"
    for scenario in scenarios:
        for channel in CHANNELS:
            firing, resolved = (
                [*filter(scenario.is_about, outcome.inbox.of(scenario.alert_id, channel, status))]
                for status in ("firing", "resolved")
            )
            yield _row(scenario, channel, firing, resolved, outcome.times)


def _row(
    scenario: Scenario,
    channel: str,
    firing: Sequence[Received],
    resolved: Sequence[Received],
    times: Times,
) -> str:
    fields = firing[0].fields if firing else {}
    cells = (
        scenario.alert_id,
        channel,
        _after(firing, times.on[scenario]),
        _after(resolved, times.off[scenario]),
        *(fields.get(name) or "-" for name in ("endpoint", "request_id", "trace_id")),
        fields.get("trace_source") or "-",
    )
    return f"| {' | '.join(cells)} |"


def _after(messages: Sequence[Received], since: float) -> str:
    later = [message.at for message in messages if message.at > since]
    return f"{later[0] - since:.1f} s" if later else "never"


def lines(outcome: Outcome, scenarios: Sequence[Scenario]) -> Iterator[str]:
    """The whole report."""
    yield "# Simulation of alerts"
    yield ""
    yield (
        f"The rules of production with every duration divided by {SPEED:g}; the objectives of backups,"
        f" which are of hours, by {DAYS_SPEED:g}."
    )
    yield ""
    yield f"- Healthy run: {outcome.healthy}"
    yield f"- Traffic: {outcome.traffic}"
    yield f"- Dashboards: {outcome.dashboards}"
    yield f"- Heartbeats: {heartbeats(outcome.inbox)}"
    yield f"- Missed run: {outcome.missed}"
    yield f"- Fired as well, in consequence of a fault or of a busy machine: {outcome.beside}"
    yield f"- Messages: {len(outcome.inbox.messages)} taken, {len(outcome.inbox.refused)} refused"
    yield f"- Problems: {len(outcome.problems) or 'none'}"
    yield from (f"  - {problem}" for problem in outcome.problems)
    yield ""
    yield from table(outcome, scenarios)
    yield from _messages(outcome)


def _messages(outcome: Outcome) -> Iterator[str]:
    yield ""
    yield "## Messages as received"
    for message in outcome.inbox.messages:
        seconds = message.at - outcome.times.started
        yield ""
        yield f"### {seconds:.1f} s: {message.channel}, {message.alert_id}, {message.status}"
        yield ""
        yield from (f"    {line}" for line in message.raw.splitlines())
