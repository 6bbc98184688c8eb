"""The simulation's report, as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from monitoring.simulation.checks import Scenario
from monitoring.simulation.parts import SPEED
from monitoring.simulation.receivers import CHANNELS, Inbox, Received


@dataclass(frozen=True, slots=True)
class Times:
    """When the faults were switched, in Unix seconds."""

    started: float
    faults_on: float
    faults_off: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that was seen."""

    inbox: Inbox
    times: Times
    healthy: str
    problems: Sequence[str]
    dashboards: str


def table(outcome: Outcome, scenarios: Sequence[Scenario]) -> Iterator[str]:
    """When each alert reached each channel, and what it said first."""
    yield "| alert | channel | fired after fault on | resolved after fault off | endpoint | request | trace |"
    yield "|---|---|---|---|---|---|---|"
    for scenario in scenarios:
        for channel in CHANNELS:
            firing = outcome.inbox.of(scenario.alert_id, channel, "firing")
            resolved = outcome.inbox.of(scenario.alert_id, channel, "resolved")
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
        _after(firing, times.faults_on),
        _after(resolved, times.faults_off),
        *(fields.get(name, "-") for name in ("endpoint", "request_id", "trace_id")),
    )
    return f"| {' | '.join(cells)} |"


def _after(messages: Sequence[Received], since: float) -> str:
    return f"{messages[0].at - since:.1f} s" if messages else "never"


def lines(outcome: Outcome, scenarios: Sequence[Scenario]) -> Iterator[str]:
    """The whole report."""
    yield "# Simulation of alerts"
    yield ""
    yield f"The rules of production with every duration divided by {SPEED:g}."
    yield ""
    yield f"- Healthy run: {outcome.healthy}"
    yield f"- Dashboards: {outcome.dashboards}"
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
