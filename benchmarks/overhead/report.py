"""What was measured, for people and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from .environments import Environment
from .measure import Case, Round, Spread, added, cost, each, ratio
from .servers import EXPORTING, VARIANTS

Results = Mapping[Case, Sequence[Round]]


def faults(results: Results) -> list[str]:
    """What makes the comparison worthless: requests that failed, telemetry that did not arrive."""
    return [
        f"{case.name}, {variant}: {fault}"
        for case, rounds in results.items()
        for variant in VARIANTS
        for fault in _faults(rounds, variant)
    ]


def _faults(rounds: Sequence[Round], variant: str) -> Iterator[str]:
    turns = [played[variant] for played in rounds]
    if failed := sum(turn.failed for turn in turns):
        yield f"{failed} requests were not answered with 200"
    if variant not in EXPORTING:
        return
    spans = [turn.spans for turn in turns]
    if min(spans) < 0.99:
        yield f"only {min(spans):.2f} spans per request arrived"
    if any(abs(number - round(number)) > 0.01 for number in spans):
        yield f"spans were dropped: {', '.join(f'{n:.2f}' for n in spans)} per request arrived"


def lines(results: Results) -> Iterator[str]:
    """The tables."""
    yield "CPU µs per request: median of the rounds (least..most)"
    yield f"  {'':<12} {'bare':>18} {'official adds':>20} {'shim adds':>20} {'shim/official':>20}  goal"
    for case, rounds in results.items():
        yield _cost(case, rounds)
    yield ""
    yield "Latency µs, p50 / p99, and what the Collector accepted per request"
    yield f"  {'':<12} " + "".join(f"{variant:>18}" for variant in VARIANTS) + _telemetry_head()
    for case, rounds in results.items():
        yield _latency(case, rounds)


def _cost(case: Case, rounds: Sequence[Round]) -> str:
    bare = each(rounds, "bare", cost)
    costs = "".join(f"{_wide(added(rounds, variant)):>21}" for variant in EXPORTING)
    goal = f"<= {case.goal:.2f}" if case.goal else "not the same telemetry"
    relation = _wide(ratio(rounds), 2)
    return f"  {case.name:<12} {_wide(bare):>18}{costs}{relation:>21}  {goal}"


def _wide(spread: Spread, digits: int = 0) -> str:
    return f"{spread.median:.{digits}f} ({spread.least:.{digits}f}..{spread.most:.{digits}f})"


def _telemetry_head() -> str:
    return "".join(f"{variant + ' spans, logs':>24}" for variant in EXPORTING)


def _latency(case: Case, rounds: Sequence[Round]) -> str:
    row = f"  {case.name:<12} "
    for variant in VARIANTS:
        p50 = each(rounds, variant, lambda turn: turn.p50_us).median
        p99 = each(rounds, variant, lambda turn: turn.p99_us).median
        row += f"{f'{p50:.0f} / {p99:.0f}':>18}"
    for variant in EXPORTING:
        spans = each(rounds, variant, lambda turn: turn.spans).median
        logs = each(rounds, variant, lambda turn: turn.log_records).median
        row += f"{f'{spans:.2f}, {logs:.2f}':>24}"
    return row


def write(path: Path, results: Results, environments: Mapping[str, Environment]) -> None:
    """Everything that was measured, as JSON."""
    cases = [
        {
            "case": case.name,
            "goal": case.goal,
            "ratio": asdict(ratio(rounds)),
            "added_cpu_us": {variant: asdict(added(rounds, variant)) for variant in EXPORTING},
            "rounds": [{name: asdict(turn) for name, turn in played.items()} for played in rounds],
        }
        for case, rounds in results.items()
    ]
    versions = {name: environment.versions for name, environment in environments.items()}
    path.write_text(json.dumps({"cases": cases, "versions": versions}, indent=1) + "\n")
