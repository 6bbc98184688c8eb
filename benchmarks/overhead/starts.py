"""What the launcher takes to start a process, beside the official one.

    make bench-starts
    uv run python -m benchmarks.overhead.starts [--runs N]

Starts `opentelemetry-instrument python -c ...` in turns from the two environments of the other measure, with
nothing to do and with a web application's imports. Nobody listens where telemetry would go, and none arises.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import time
from collections.abc import Iterator, Mapping

from . import environments
from .environments import Environment

WORK = {"nothing": "pass", "imports": "import fastapi, sqlalchemy.ext.asyncio, httpx"}
ENV = {
    "OTEL_SERVICE_NAME": "starts",
    "OTEL_TRACES_EXPORTER": "otlp",
    "OTEL_METRICS_EXPORTER": "none",  # at the end it would wait for the Collector that is not there
    "OTEL_LOGS_EXPORTER": "otlp",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
    "OTEL_SHIM_SECRET": "a secret of benchmarks only, 0123456789",
}
# In the order of the environments; each run is one line of figures.
VARIANTS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "official": ("official", {}),
    "shim": ("shim", {}),
    "shim, OTEL_SDK_DISABLED": ("shim", {"OTEL_SDK_DISABLED": "true"}),
    "python alone": ("", {}),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead.starts")
    parser.add_argument("--runs", type=int, default=10, help="runs of each, in turns")
    runs = parser.parse_args().runs
    made = {name: environments.make(name) for name in ("official", "shim")}
    for work, code in WORK.items():
        print(f"\n{work}, median of {runs} runs in turns")
        print(*lines(measured(made, code, runs)), sep="\n")


def measured(
    made: Mapping[str, Environment], code: str, runs: int
) -> dict[str, list[tuple[float, float]]]:
    """Seconds of CPU and of waiting of each start; a first round warms the caches and does not count."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in VARIANTS}
    for at in range(-1, runs):
        for name, (environment, more) in VARIANTS.items():
            spent = start(made.get(environment), made["shim"], code, more)
            if at >= 0:
                taken[name].append(spent)
    return taken


def start(
    launched: Environment | None, bare: Environment, code: str, more: Mapping[str, str]
) -> tuple[float, float]:
    """One start, by the launcher of an environment or without one."""
    argv = [(launched or bare).program("python"), "-c", code]
    if launched is not None:
        argv.insert(0, launched.program("opentelemetry-instrument"))
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "PYTHON"))}
    cpu, wall = spent(), time.perf_counter()
    env = {**clean, **ENV, **more}
    done = subprocess.run(argv, env=env, check=True, capture_output=True, text=True)
    taken = spent() - cpu, time.perf_counter() - wall
    if "Traceback" in done.stderr:
        raise SystemExit(f"bench-starts: telemetry did not load: {done.stderr}")
    return taken


def spent() -> float:
    """The CPU seconds of all processes that were started and have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def lines(taken: Mapping[str, list[tuple[float, float]]]) -> Iterator[str]:
    """A row for each variant, with the ratio to the official launcher."""
    official = statistics.median(cpu for cpu, _ in taken["official"])
    yield f"  {'':24}  CPU s  wall s  CPU of official"
    for name, figures in taken.items():
        cpu, wall = (statistics.median(column) for column in zip(*figures, strict=True))
        yield f"  {name:24}  {cpu:5.2f}  {wall:6.2f}  {cpu / official:15.2f}"


if __name__ == "__main__":
    main()
