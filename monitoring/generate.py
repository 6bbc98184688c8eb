"""Write rules/ and dashboards/ from alerts.yaml: `python -m monitoring.generate`.

`--check` writes nothing and exits 1, naming each file that differs. `--speed N --out DIR` divides every
duration by N, for the simulation.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from monitoring import (
    job_panels,
    job_rules,
    panels,
    queue_panels,
    queue_rules,
    relay_rules,
    request_rules,
    specification,
)
from monitoring.alerting import Rule, duration

HERE = Path(__file__).resolve().parent
NOTICE = "# Generated from monitoring/alerts.yaml by `make generate`; do not edit.\n"


def rule_groups(
    spec: specification.Specification,
) -> dict[str, dict[str, tuple[float, list[Rule]]]]:
    """Each file's groups: how often they are evaluated, and their rules."""
    often, seldom = spec.interval, spec.heartbeats.interval
    return {
        "api": {"saas-api": (often, request_rules.group(spec))},
        "jobs": {
            "saas-jobs": (often, job_rules.group(spec)),
            "saas-heartbeats": (seldom, job_rules.heartbeat_group(spec)),
        },
        "queues": {
            "saas-queues": (often, queue_rules.group(spec)),
            "saas-calendars": (seldom, queue_rules.calendar_group(spec)),
        },
        "relay": {"saas-relay": (often, relay_rules.group(spec))},
    }


def rules(spec: specification.Specification) -> dict[str, str]:
    """The rule files by path."""
    files = {
        name: [
            {"name": group, "interval": duration(interval), "rules": each}
            for group, (interval, each) in groups.items()
        ]
        for name, groups in rule_groups(spec).items()
    }
    return {
        f"rules/{name}.yaml": NOTICE + as_yaml({"groups": groups}) for name, groups in files.items()
    }


def as_yaml(content: Mapping[str, Any]) -> str:
    """YAML in the order given, with lines as long as they are."""
    return yaml.safe_dump(content, sort_keys=False, width=10_000, allow_unicode=True)


def everything(speed: float = 1.0) -> dict[str, str]:
    """Every generated file by its path below monitoring/."""
    spec = specification.load(speed)
    boards = {
        "api-health.json": panels.api_health,
        "jobs.json": job_panels.board,
        "queues.json": queue_panels.board,
        "search.json": panels.search,
    }
    return rules(spec) | {
        f"dashboards/{name}": panels.encoded(board, spec) for name, board in boards.items()
    }


def write(files: Mapping[str, str], out: Path) -> None:
    """Write files."""
    for name, text in files.items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def differing(files: Mapping[str, str], out: Path) -> list[str]:
    """The files that are not as they would be written, and those that nothing generates."""
    folders = {Path(name).parent for name in files}
    present = {str(p.relative_to(out)) for folder in folders for p in (out / folder).glob("*")}
    wrong = [n for n, text in files.items() if n not in present or (out / n).read_text() != text]
    return sorted({*wrong, *(present - set(files))})


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check."""
    parser = argparse.ArgumentParser(prog="monitoring.generate", description=__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--speed", type=float, default=1.0)
    parser.add_argument("--out", type=Path, default=HERE)
    options = parser.parse_args(arguments)
    files = everything(options.speed)
    if not options.check:
        write(files, options.out)
        return 0
    wrong = differing(files, options.out)
    for name in wrong:
        print(f"monitoring/{name} differs: run `make generate`", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
