"""Make each alert fire, be delivered on its channels and resolve: `python -m monitoring.simulation`.

Exit code 0 only when every check holds; the report is `<out>/report.md`.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from examples.saas.demo import __main__ as demo_main
from examples.saas.demo import parts as demo
from examples.saas.demo.jaeger import Jaeger
from examples.saas.demo.stack import PartError, Stack, kill, running
from monitoring import alerting, specification
from monitoring.simulation import dashboards, examination, parts, prometheus, report
from monitoring.simulation.checks import KILLED, SCENARIOS, SWITCHED, Scenario
from monitoring.simulation.receivers import Inbox, receiving
from monitoring.simulation.traffic import Traffic, flowing

READY_SECONDS = 90.0
FIRE_SECONDS = 120.0
RESOLVE_SECONDS = 180.0
POLL_SECONDS = 0.5
# What Prometheus, the relay and Alertmanager (group_wait) may take once the rule fires.
DELIVERY_SECONDS = 5.0
QUIET_SECONDS = 1.5


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
    """Traffic without a fault; returns what is to be said of it, and fails when anything fired."""
    since = time.monotonic()
    parts.run_job(sim.site)
    sim.wait(
        f"{seconds:.0f} s of healthy traffic",
        lambda: time.monotonic() - since >= seconds,
        seconds + 60,
    )
    fired = prometheus.fired(sim.site.prometheus_url, time.monotonic() - since)
    if fired or sim.inbox.messages:
        raise PartError("prometheus", without_fault(sim, fired))
    answers = sum(sim.traffic.answers.values())
    return f"{seconds:.0f} s, {answers} requests, one job, no alert"


def without_fault(sim: Simulation, fired: Sequence[dict[str, str]]) -> str:
    """What fired, beside what the senders saw: on an overloaded machine requests are slow indeed."""
    alerts = [f"{item['alert_id']} {item['endpoint']}" for item in fired]
    window = specification.load(parts.SPEED).alerts["api.latency"].window
    seen = {path: f"{p95:.3f} s" for path, p95 in sim.traffic.worst_p95(window).items()}
    return f"alerts without a fault: {alerts}; worst p95 that the senders saw: {seen}"


def switch_on(sim: Simulation) -> Iterator[str]:
    """Switch all faults on until every alert of theirs was delivered; gives what did not fire."""
    parts.set_faults(sim.site, *(scenario.fault for scenario in SWITCHED))
    code = parts.run_job(sim.site)
    sim.say(f"faults on; the retention job ended with exit code {code}")
    yield from delivered(sim, SWITCHED)


def kill_scheduler(sim: Simulation, killed: float) -> Iterator[str]:
    """Kill the process of the jobs until each of them is told of; gives what did not fire."""
    jobs = {
        each["metric"][alerting.OPERATION]
        for each in prometheus.query(sim.site.prometheus_url, alerting.JOB_PERIOD_RECORD)
    }
    for victim in [each for each in sim.stack.running if each.part.name == "scheduler"]:
        kill(victim)
        sim.stack.running.remove(victim)
    sim.say(f"scheduler killed, {len(jobs)} jobs")
    sim.wait(
        "every job missed", lambda: not examination.untold(sim.inbox, jobs, killed), FIRE_SECONDS
    )
    yield from (f"not missed: {item}" for item in examination.untold(sim.inbox, jobs, killed))


def delivered(sim: Simulation, scenarios: Sequence[Scenario]) -> Iterator[str]:
    """Wait for alerts on every channel; gives those that do not come."""
    names = ", ".join(scenario.alert_id for scenario in scenarios)
    sim.wait(
        f"{names} on every channel",
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
    times = {each.alert_id: (on, off) for each in SWITCHED} | {KILLED.alert_id: (killed, started)}
    ons, offs = ({name: pair[place] for name, pair in times.items()} for place in (0, 1))
    return report.Times(sim.started, ons, offs), problems


def _quiet(sim: Simulation) -> bool:
    """Whether all jobs run, and what the last run left behind has been exported: the message names its trace."""
    url = sim.site.prometheus_url
    since = prometheus.query(url, f"time() - max({alerting.JOB_START})")
    overdue = prometheus.query(url, f'ALERTS{{alert_id="{KILLED.alert_id}"}}')
    return not overdue and bool(since) and float(since[0]["value"][1]) > QUIET_SECONDS


def _all_over(inbox: Inbox) -> bool:
    return not examination.missing(inbox, "resolved", SCENARIOS) and not examination.unresolved(
        inbox
    )


def missed_in_time(sim: Simulation, times: report.Times) -> tuple[str, list[str]]:
    """How long after the kill each missed run was told; and whether that is too late."""
    alert, killed = (
        specification.load(parts.SPEED).alerts[KILLED.alert_id],
        times.on[KILLED.alert_id],
    )
    allowed = parts.PERIOD_SECONDS + alert.grace
    firing = sim.inbox.of(KILLED.alert_id, "pagerduty", "firing")
    after = [message.at - killed for message in firing if message.at > killed] or [float("inf")]
    said = (
        f"{len(after)} jobs, told {min(after):.1f} to {max(after):.1f} s after the kill;"
        f" one period and grace are {allowed:g} s"
    )
    in_time = max(after) < allowed + DELIVERY_SECONDS
    return said, [] if in_time else [f"missed runs too late: {said}"]


def simulate(sim: Simulation, healthy: float) -> int:
    """All of it; returns the exit code."""
    said = run_healthy(sim, healthy)
    times, problems = break_and_mend(sim)
    jaeger = Jaeger(demo.url(sim.site.demo_ports.jaeger_query))
    problems += examination.examine(sim.inbox, jaeger, times)
    missed, too_late = missed_in_time(sim, times)
    problems += too_late
    problems += [] if sim.inbox.heartbeats else ["no heartbeat came"]
    queries, empty = dashboards.empty_panels(sim.site.prometheus_url)
    problems += [f"dashboard query without data: {item}" for item in empty]
    boards = f"{queries} queries run, {len(empty)} without data"
    metrics, unexposed = dashboards.unexposed(sim.site.prometheus_url)
    problems += [f"named and not exposed: {item}" for item in unexposed]
    boards += f"; {metrics} metrics of rules and dashboards, {len(unexposed)} not exposed"
    others = examination.beside(sim.inbox, times)
    outcome = report.Outcome(sim.inbox, times, said, problems, boards, missed, others)
    file = sim.site.places.out / "report.md"
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
