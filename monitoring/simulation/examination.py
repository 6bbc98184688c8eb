"""What the messages say: who was told, what is not over, and whether the traces they name show the fault."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cache

from examples.saas.demo.jaeger import Jaeger, Trace
from monitoring.simulation import checks
from monitoring.simulation.checks import KILLED, SCENARIOS, Scenario
from monitoring.simulation.receivers import CHANNELS, Inbox, Received
from monitoring.simulation.report import Times


def missing(inbox: Inbox, status: str, scenarios: Sequence[Scenario]) -> list[str]:
    """Alerts and channels without a message of this status about what the fault breaks."""
    return [
        f"{scenario.name} on {channel}"
        for scenario in scenarios
        for channel in CHANNELS
        if not any(map(scenario.is_about, inbox.of(scenario.alert_id, channel, status)))
    ]


def unresolved(inbox: Inbox) -> list[str]:
    """What fired on a channel, at what a fault breaks, and whose last message there does not say that it is over."""
    planned = [m for m in list(inbox.messages) if any(s.is_about(m) for s in SCENARIOS)]
    last = {_subject(message): message.status for message in planned}
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
    messages = list(inbox.messages)
    for scenario in SCENARIOS:
        of_fault = caused(messages, scenario, times)
        for channel in CHANNELS:
            if not any(message.channel == channel for message in of_fault):
                yield f"{scenario.name}: no message of the fault on {channel}"
        if scenario.has_trace and checks.EXEMPLARS not in sources(of_fault):
            yield f"{scenario.name}: no exemplar named its trace, but {sources(of_fault)}"
        since = times.on[scenario]
        for message in of_fault:
            yield from _said(message, _of_fault(message, scenario, jaeger.page, found, since))
        yield from same_trace(scenario, of_fault)
    for message in messages:
        yield from _said(message, checks.of_any(message))
    yield from (f"refused: {text}" for text in inbox.refused)


def _of_fault(
    message: Received,
    scenario: Scenario,
    page: Callable[[str], str],
    found: Callable[[str], Trace | None],
    since: float,
) -> Iterator[str]:
    """What a message lacks, and the trace that it names; none is named where none can be."""
    yield from checks.of_message(message, scenario, page)
    trace_id = message.fields.get("trace_id", "")
    if scenario.has_trace and checks.TRACE_ID.fullmatch(trace_id):
        yield from checks.of_trace(message, scenario, found(trace_id), since)
    elif not scenario.has_trace and not trace_id.startswith("none"):
        yield f"a trace where none can be: {trace_id}"


def sources(messages: Sequence[Received]) -> list[str]:
    """What found the traces that messages name."""
    return sorted({message.fields.get("trace_source") or "nothing" for message in messages})


def _said(message: Received, lacks: Iterator[str]) -> Iterator[str]:
    yield from (f"{message.channel} {message.alert_id} {message.status}: {each}" for each in lacks)


def caused(messages: Sequence[Received], scenario: Scenario, times: Times) -> list[Received]:
    """The messages about what the fault broke, while it did; a busy machine is slow by itself, too."""
    on, off = times.on[scenario], times.off[scenario]
    about = [message for message in messages if scenario.is_about(message)]
    fired = {
        (_subject(message), message.fields.get("trace_id"))
        for message in about
        if message.status == "firing" and on < message.at <= off
    }
    return [m for m in about if (_subject(m), m.fields.get("trace_id")) in fired]


def beside(inbox: Inbox, times: Times) -> str:
    """Alerts that fired and that no fault explains: told, but no failure of the run."""
    messages = list(inbox.messages)
    explained = [m for scenario in SCENARIOS for m in caused(messages, scenario, times)]
    others = {
        f"{m.alert_id} {m.fields.get('endpoint', '')}"
        for m in messages
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
            yield f"{scenario.name}: {_subject(message)} resolved with another trace"


def _subject(message: Received) -> tuple[str, ...]:
    """What Alertmanager makes one group of, on one channel."""
    named = (message.fields.get(name, "") for name in ("endpoint", "severity", "reason"))
    return (message.channel, message.alert_id, *named)
