"""What telemetry adds to a request.

    make bench-overhead
    uv run python -m benchmarks.overhead [--quick] [--rounds N] [--seconds S] [--case NAME ...]

Prints the tables, writes .build/bench/overhead.json. Exit code 1 when requests failed or telemetry
was lost, so that the figures do not say what they seem to; never because of a figure.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from examples.saas.demo.stack import PartError, Stack, running

from . import environments, measure, report, servers
from .environments import ROOT, Environment
from .measure import Case, Round
from .servers import EXPORTING, VARIANTS, Application, Ports, Server

OUT = ROOT / ".build" / "bench"
SMALL = Application("small")
CASES = (
    Case("plain", SMALL, "/plain", 0.45),
    Case("routes", Application("large"), "/area190/items/7", 0.45),
    Case("queries", SMALL, "/queries", 0.6),
    Case("logged", SMALL, "/logged", 0.5),
    Case("access", Application("small", access_log=True), "/plain", None),
)
QUICK = ("plain", "routes", "queries")
START_SECONDS = 90.0


@dataclass(frozen=True, slots=True)
class Bench:
    """Everything that runs."""

    stack: Stack
    ports: Ports
    served: Mapping[Application, Mapping[str, Server]]


def main() -> int:
    """Measure and report."""
    options = parse(sys.argv[1:])
    cases = [case for case in CASES if case.name in options.case]
    made = {name: environments.make(name) for name in EXPORTING}
    if differing := environments.differing(made["official"], made["shim"]):
        print(f"bench-overhead: not the same versions in both: {', '.join(differing)}")
        return 1
    print("versions:", ", ".join(f"{k} {v}" for k, v in made["shim"].shown().items()), flush=True)
    try:
        with running(OUT) as stack:
            results = measured(prepare(stack, cases, made), cases, options)
    except PartError as failed:
        print(f"bench-overhead: {failed}")
        return 1
    report.write(OUT / "overhead.json", results, made)
    print(*report.lines(results), sep="\n")
    faults = report.faults(results)
    print(*(f"NOT VALID: {fault}" for fault in faults), sep="\n")
    return 1 if faults else 0


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead")
    parser.add_argument("--quick", action="store_true", help="about a minute, three cases")
    parser.add_argument("--rounds", type=int, help="rounds of each case")
    parser.add_argument("--seconds", type=float, help="load of each server in each round")
    parser.add_argument("--case", nargs="+", choices=[case.name for case in CASES])
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (3 if options.quick else 8)
    options.seconds = options.seconds or (0.8 if options.quick else 1.2)
    options.case = options.case or (QUICK if options.quick else [case.name for case in CASES])
    return options


def prepare(stack: Stack, cases: Sequence[Case], made: Mapping[str, Environment]) -> Bench:
    """Start everything: the applications on one core, what they talk to and the load on the others."""
    own, others = cores()
    with servers.pinned(others):
        ports = servers.start_backends(stack)
    with servers.pinned(own):
        served = {
            application: {
                variant: servers.start(stack, application, variant, made, ports)
                for variant in VARIANTS
            }
            for application in {case.application for case in cases}
        }
    os.sched_setaffinity(0, others)  # the load is started from here
    stack.wait_ready(START_SECONDS)
    return Bench(stack, ports, served)


def cores() -> tuple[set[int], set[int]]:
    """The core of the applications, and the rest; both the same where there is only one."""
    every = sorted(os.sched_getaffinity(0))
    return {every[-1]}, set(every[:-1] or every)


def measured(
    bench: Bench, cases: Sequence[Case], options: argparse.Namespace
) -> dict[Case, list[Round]]:
    """Play the rounds; a first one warms everything up and does not count."""
    results: dict[Case, list[Round]] = {case: [] for case in cases}
    for at in range(-1, options.rounds):
        for case in cases:
            seconds = options.seconds if at >= 0 else options.seconds / 2
            played = measure.play(case, bench.served[case.application], bench.ports, seconds, at)
            bench.stack.check_alive()
            if at >= 0:
                results[case].append(played)
        print(f"round {at + 1} of {options.rounds}", flush=True)
    return results


if __name__ == "__main__":
    sys.exit(main())
