"""What the messages say: who was told, what is not over, and whether the traces they name show the fault."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from functools import cache

from examples.saas.demo.jaeger import Jaeger
from monitoring.simulation import checks
from monitoring.simulation.checks import KILLED, SCENARIOS, Scenario
from monitoring.simulation.receivers import CHANNELS, Inbox, Received
from monitoring.simulation.report import Times


def missing(inbox: Inbox, status: str, scenarios: Sequence[Scenario]) -> list[str]:
    """Alerts and channels without a message of this status."""
    return [
        f"{scenario.alert_id} on {channel}"
        for scenario in scenarios
        for channel in CHANNELS
        if not inbox.of(scenario.alert_id, channel, status)
    ]


def unresolved(inbox: Inbox) -> list[str]:
    """What fired on a channel and whose last message there does not say that it is over."""
    last = {_subject(message): message.status for message in list(inbox.messages)}
    return [" ".join(subject) for subject, status in last.items() if status != "resolved"]


def untold(inbox: Inbox, jobs: Collection[str], since: float) -> list[str]:
    """Jobs and channels without a message, since then, that they were missed."""
    told = {
        (channel, message.fields.get("endpoint", ""))
        for channel in CHANNELS
        for message in inbox.of(KILLED.alert_id, channel, "firing")
        if message.at > since
    }
    return [
        f"{name} on {channel}"
        for name in jobs
        for channel in CHANNELS
        if (channel, name) not in told
    ]


def examine(inbox: Inbox, jaeger: Jaeger, times: Times) -> Iterator[str]:
    """What messages and the traces they name lack."""
    found = cache(lambda trace_id: jaeger.by_id([trace_id]).get(trace_id))
    for scenario in SCENARIOS:
        messages = [m for m in inbox.messages if m.alert_id == scenario.alert_id]
        of_fault = caused(messages, scenario, times)
        for message in messages:
            lacks = [*checks.of_message(message, scenario)]
            if message in of_fault:
                trace_id = message.fields.get("trace_id", "")
                trace = found(trace_id) if checks.TRACE_ID.fullmatch(trace_id) else None
                lacks += checks.of_trace(message, scenario, trace)
            yield from (
                f"{message.channel} {message.alert_id} {message.status}: {x}" for x in lacks
            )
        yield from same_trace(scenario, messages)
    yield from (f"refused: {text}" for text in inbox.refused)


def caused(messages: Sequence[Received], scenario: Scenario, times: Times) -> list[Received]:
    """The messages about what the fault broke, while it did; a busy machine is slow by itself, too."""
    on, off = times.on[scenario.alert_id], times.off[scenario.alert_id]
    fired = {
        (_subject(message), message.fields.get("trace_id"))
        for message in messages
        if message.status == "firing" and on < message.at <= off
    }
    return [
        message
        for message in messages
        if (_subject(message), message.fields.get("trace_id")) in fired
        and re.fullmatch(scenario.endpoints, message.fields.get("endpoint", ""))
    ]


def beside(inbox: Inbox, times: Times) -> str:
    """Alerts that fired and that no fault explains."""
    explained = [
        message
        for scenario in SCENARIOS
        for message in caused(
            [m for m in inbox.messages if m.alert_id == scenario.alert_id], scenario, times
        )
    ]
    others = {
        f"{m.alert_id} {m.fields.get('endpoint', '')}"
        for m in inbox.messages
        if m.status == "firing" and m not in explained
    }
    return ", ".join(sorted(others)) or "none"


def same_trace(scenario: Scenario, messages: Sequence[Received]) -> Iterator[str]:
    """A resolved message names the trace of the last one that said firing, on its channel."""
    firing: dict[tuple[str, ...], str] = {}
    for message in messages:
        trace_id = message.fields.get("trace_id", "")
        if message.status == "firing":
            firing[_subject(message)] = trace_id
        elif firing.get(_subject(message)) != trace_id:
            yield f"{scenario.alert_id}: {_subject(message)} resolved with another trace"


def _subject(message: Received) -> tuple[str, ...]:
    """What Alertmanager makes one group of, on one channel."""
    named = (message.fields.get(name, "") for name in ("endpoint", "severity", "reason"))
    return (message.channel, message.alert_id, *named)
