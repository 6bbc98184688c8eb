"""Make each alert fire, be delivered on its channels and resolve: `python -m monitoring.simulation`.

Exit code 0 only when every check holds; the report is `<out>/report.md`.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from examples.saas.demo import __main__ as demo_main
from examples.saas.demo import parts as demo
from examples.saas.demo.jaeger import Jaeger
from examples.saas.demo.stack import PartError, Stack, kill, running
from monitoring import alerting, specification
from monitoring.simulation import dashboards, examination, health, parts, prometheus, report
from monitoring.simulation.checks import KILLED, SCENARIOS, SWITCHED, UNMANNED, Scenario
from monitoring.simulation.receivers import CHANNELS, Inbox, receiving
from monitoring.simulation.traffic import Traffic, flowing

READY_SECONDS = 90.0
# A calendar may be half an hour behind, that is 90 seconds here.
FIRE_SECONDS = 180.0
RESOLVE_SECONDS = 180.0
POLL_SECONDS = 0.5
# What the relay, Alertmanager (6 s of group_wait) and a busy machine may take once a rule fires.
DELIVERY_SECONDS = 15.0
# Rules look back 15 s, a window of 5 minutes at this speed: traffic must not pause as long.
PAUSE_SECONDS = 10.0
QUIET_SECONDS = 1.5
SERVER_ERRORS = 500


@dataclass(frozen=True, slots=True)
class Simulation:
    """What runs."""

    site: parts.Site
    stack: Stack
    inbox: Inbox
    traffic: Traffic
    started: float

    def say(self, text: str) -> None:
        """A progress line with the seconds since the start."""
        print(f"[{time.time() - self.started:6.1f} s] {text}", flush=True)

    def wait(self, what: str, holds: Callable[[], bool], seconds: float) -> bool:
        """Poll until something holds; False, and a line, when time is over."""
        deadline = time.monotonic() + seconds
        while not holds():
            self.stack.check_alive()
            if time.monotonic() > deadline:
                self.say(f"not within {seconds:.0f} s: {what}")
                return False
            time.sleep(POLL_SECONDS)
        self.say(what)
        return True


def start(site: parts.Site, stack: Stack, inbox_and_addresses: ExitStack) -> Inbox:
    """Start everything and wait until it serves."""
    inbox, addresses = inbox_and_addresses.enter_context(receiving(site.ports.smtp))
    parts.set_faults(site)
    for make in (demo.jaeger, demo.collector, demo.radicale, demo.gate, demo.connector):
        stack.start(make(site.places, site.demo_ports))
    stack.start(parts.alertmanager(site, parts.write_alertmanager(site, addresses)))
    stack.start(parts.relay(site))
    stack.start(parts.prometheus(site, parts.write_prometheus(site)))
    demo.seed(site.places)
    stack.start(parts.api(site))
    stack.start(parts.scheduler(site))
    stack.wait_ready(READY_SECONDS)
    return inbox


def run_healthy(sim: Simulation, seconds: float) -> str:
    """Traffic without a fault; returns what is to be said of it, and fails when an alert was false, or too little came."""
    code = parts.run_job(sim.site)
    if code:
        raise PartError("retention job", f"ended with exit code {code}")
    since = time.monotonic()
    sim.wait(
        f"{seconds:.0f} s of healthy traffic",
        lambda: time.monotonic() - since >= seconds,
        seconds + 60,
    )
    answers = judge_traffic(sim, seconds, since)
    return f"{seconds:.0f} s, {answers} requests answered until then, one job, {judge_alerts(sim, since)}"


def judge_traffic(sim: Simulation, seconds: float, since: float) -> int:
    """The number of answers; fails when rules had too little to judge, or when there were errors."""
    latency = specification.load(parts.SPEED).alerts["api.latency"]
    too_few = sim.traffic.too_few(latency.at_least, latency.window, since)
    if too_few:
        raise PartError("traffic", f"too little to judge in {seconds:.0f} s: {too_few}")
    wrong = {key: n for key, n in sim.traffic.answers.items() if key[1] >= SERVER_ERRORS}
    if wrong:
        raise PartError("api", f"errors without a fault: {wrong}")
    return sum(sim.traffic.answers.values())


def judge_alerts(sim: Simulation, since: float) -> str:
    """What fired; fails for an alert of what the senders did not see."""
    spec = specification.load(parts.SPEED)
    fired = prometheus.fired(sim.site.prometheus_url, time.monotonic() - since)
    p95s = sim.traffic.worst_p95(spec.alerts["api.latency"].window)
    told = [message.alert_id for message in sim.inbox.messages]
    wrong = health.false_alarms(spec, fired, p95s)
    wrong += sorted({f"{each} was told" for each in told if each != health.LATENCY})
    if wrong:
        seen = {path: f"{p95:.3f} s" for path, p95 in p95s.items()}
        saw = f"worst p95 that the senders saw: {seen}; without an answer: {dict(sim.traffic.lost)}"
        raise PartError("prometheus", f"alerts without a fault: {wrong}; {saw}")
    true = sorted(map(health.named, fired))
    return f"true alerts of a busy machine: {', '.join(true)}" if true else "no alert"


def settle(sim: Simulation) -> None:
    """Wait until nothing fires: what follows is to be the fault's doing."""
    quiet = 'ALERTS{severity!="heartbeat"}'
    if not sim.wait(
        "no alert fires",
        lambda: not prometheus.query(sim.site.prometheus_url, quiet),
        RESOLVE_SECONDS,
    ):
        raise PartError("machine", "too busy: its requests are slow without a fault")


def switch_on(sim: Simulation) -> Iterator[str]:
    """Switch all faults on until every alert of theirs was delivered; gives what did not fire."""
    parts.set_faults(sim.site, *(scenario.fault for scenario in SWITCHED))
    code = parts.run_job(sim.site)
    sim.say(f"faults on; the retention job ended with exit code {code}")
    if not code:
        yield "the retention job did not fail"
    yield from delivered(sim, SWITCHED)


def kill_scheduler(sim: Simulation, killed: float) -> Iterator[str]:
    """Kill the process of the jobs until each of them is told of; gives what did not fire."""
    jobs = declared_jobs(sim)
    for victim in [each for each in sim.stack.running if each.part.name == "scheduler"]:
        kill(victim)
        sim.stack.running.remove(victim)
    sim.say(f"scheduler killed, {len(jobs)} jobs")
    sim.wait(
        "every job missed", lambda: not examination.untold(sim.inbox, jobs, killed), FIRE_SECONDS
    )
    yield from (f"not missed: {item}" for item in examination.untold(sim.inbox, jobs, killed))
    yield from delivered(sim, [UNMANNED])


def delivered(sim: Simulation, scenarios: Sequence[Scenario]) -> Iterator[str]:
    """Wait for alerts on every channel; gives those that do not come."""
    sim.wait(
        f"{len(scenarios)} alerts on every channel",
        lambda: not examination.missing(sim.inbox, "firing", scenarios),
        FIRE_SECONDS,
    )
    yield from (
        f"not fired: {item}" for item in examination.missing(sim.inbox, "firing", scenarios)
    )


def break_and_mend(sim: Simulation) -> tuple[report.Times, list[str]]:
    """Break everything, then mend it and wait until all alerts have resolved."""
    on = time.time()
    problems = [*switch_on(sim)]
    off = time.time()
    parts.set_faults(sim.site)
    sim.say("faults off")
    sim.wait("all jobs run, none at this moment", lambda: _quiet(sim), FIRE_SECONDS)
    killed = time.time()
    problems += kill_scheduler(sim, killed)
    started = time.time()
    sim.stack.start(parts.scheduler(sim.site))
    sim.say("scheduler started again")
    sim.wait("every alert resolved", lambda: _all_over(sim.inbox), RESOLVE_SECONDS)
    problems += [f"not resolved: {item}" for item in examination.unresolved(sim.inbox)]
    problems += [
        f"never resolved: {item}" for item in examination.missing(sim.inbox, "resolved", SCENARIOS)
    ]
    dead = (KILLED, UNMANNED)
    ons = dict.fromkeys(SWITCHED, on) | dict.fromkeys(dead, killed)
    offs = dict.fromkeys(SWITCHED, off) | dict.fromkeys(dead, started)
    return report.Times(sim.started, ons, offs), problems


def _quiet(sim: Simulation) -> bool:
    """Whether all jobs run, and what the last run left behind has been exported: the message names its trace."""
    url = sim.site.prometheus_url
    since = prometheus.query(url, f"time() - max({alerting.JOB_START})")
    undone = f'ALERTS{{alert_id="{KILLED.alert_id}"}} or {alerting.JOB_ACTIVE} > 0'
    late = bool(since) and float(since[0]["value"][1]) > QUIET_SECONDS
    return late and not prometheus.query(url, undone)


def declared_jobs(sim: Simulation) -> set[str]:
    """The jobs that are to run."""
    found = prometheus.query(sim.site.prometheus_url, alerting.JOB_PERIOD_RECORD)
    return {each["metric"][alerting.OPERATION] for each in found}


def _all_over(inbox: Inbox) -> bool:
    return not examination.missing(inbox, "resolved", SCENARIOS) and not examination.unresolved(
        inbox
    )


def missed_in_time(sim: Simulation, times: report.Times) -> tuple[str, list[str]]:
    """How long after its last start each missed run fired and was told; and whether that is too late.

    Judged by Prometheus's own record of when it fired: period and grace, and two evaluations of the rule.
    """
    spec, killed = specification.load(parts.SPEED), times.on[KILLED]
    allowed = parts.PERIOD_SECONDS + spec.alerts[KILLED.alert_id].grace
    at_most = allowed + 2 * spec.heartbeats.interval
    fired = prometheus.first_fired(sim.site.prometheus_url, KILLED.alert_id, killed)
    starts = prometheus.last_starts(sim.site.prometheus_url, killed)
    after = {job: fired[job] - starts[job] for job in fired if job in starts}
    delays = told_after(sim.inbox, fired, killed)
    late = [
        f"{job} fired {s:.1f} s after its last start" for job, s in after.items() if s > at_most
    ]
    late += [f"{job} told {s:.1f} s later" for job, s in delays.items() if s > DELIVERY_SECONDS]
    longest, slowest = (max(each.values(), default=float("inf")) for each in (after, delays))
    said = (
        f"{len(after)} jobs, fired at most {longest:.1f} s after their last start (period and grace are"
        f" {allowed:g} s), told at most {slowest:.1f} s later"
    )
    return said, late if after and delays else ["no job was missed"]


def told_after(inbox: Inbox, fired: Mapping[str, float], since: float) -> dict[str, float]:
    """Seconds from when each job's alert fired to its last channel."""
    told: defaultdict[str, float] = defaultdict(float)
    for channel in CHANNELS:
        for message in reversed(inbox.of(KILLED.alert_id, channel, "firing")):
            if message.at > since:
                job = message.fields.get("endpoint", "")
                told[job] = max(told[job], message.at)
    return {job: at - fired[job] for job, at in told.items() if job in fired}


def simulate(sim: Simulation, healthy: float) -> int:
    """All of it; returns the exit code."""
    said = run_healthy(sim, healthy)
    settle(sim)
    times, problems = break_and_mend(sim)
    lacking = [*sim.traffic.not_kept_up(PAUSE_SECONDS)]
    problems += [f"traffic: {each}" for each in lacking]
    jaeger = Jaeger(demo.url(sim.site.demo_ports.jaeger_query))
    problems += examination.examine(sim.inbox, jaeger, times)
    missed, too_late = missed_in_time(sim, times)
    problems += too_late
    problems += [] if sim.inbox.heartbeats else ["no heartbeat came"]
    boards, undone = dashboards.examined(sim.site.prometheus_url, sim.started)
    problems += undone
    others = examination.beside(sim.inbox, times)
    sent = sim.traffic.said()
    outcome = report.Outcome(sim.inbox, times, said, sent, problems, boards, missed, others)
    return concluded(sim, outcome)


def concluded(sim: Simulation, outcome: report.Outcome) -> int:
    """Write and show the report; the exit code."""
    file, problems = sim.site.places.out / "report.md", outcome.problems
    file.write_text("\n".join(report.lines(outcome, SCENARIOS)) + "\n")
    demo_main.show(["", *report.table(outcome, SCENARIOS), "", *problems])
    sim.say(f"{'FAILED' if problems else 'every check holds'}; report: {file}")
    return 1 if problems else 0


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Where things are; defaults are what `make simulate` prepares."""
    build = demo.ROOT / ".build"
    parser = argparse.ArgumentParser(prog="simulation", description=__doc__)
    parser.add_argument("--binaries", type=Path, default=build / "bin")
    parser.add_argument("--api-env", type=Path, default=build / "envs/api")
    parser.add_argument("--connector-env", type=Path, default=build / "envs/connector")
    parser.add_argument("--out", type=Path, default=build / "simulation")
    parser.add_argument("--healthy", type=float, default=20.0, help="seconds before the faults")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the simulation and return its exit code."""
    options = parse_arguments(arguments)
    chosen = (options.binaries, options.api_env, options.connector_env, options.out)
    site = parts.choose_site(demo.Places(*(path.absolute() for path in chosen)))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, demo_main.interrupt)
    started = time.time()
    try:
        with running(site.places.out) as stack, ExitStack() as receivers:
            inbox = start(site, stack, receivers)
            with flowing(demo.url(site.demo_ports.api)) as traffic:
                return simulate(Simulation(site, stack, inbox, traffic, started), options.healthy)
    except PartError as failure:
        print(f"simulation failed: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
