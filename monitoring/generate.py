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

from monitoring import alerting, panels, specification

HERE = Path(__file__).resolve().parent
NOTICE = "# Generated from monitoring/alerts.yaml by `make generate`; do not edit.\n"


def rules(spec: specification.Specification) -> dict[str, str]:
    """The rule files by path."""
    files = alerting.rule_files(spec)
    return {f"rules/{name}": NOTICE + as_yaml(content) for name, content in files.items()}


def as_yaml(content: Mapping[str, Any]) -> str:
    """YAML in the order given, with lines as long as they are."""
    return yaml.safe_dump(content, sort_keys=False, width=10_000, allow_unicode=True)


def everything(speed: float = 1.0) -> dict[str, str]:
    """Every generated file by its path below monitoring/."""
    spec = specification.load(speed)
    boards = {f"dashboards/{name}": text for name, text in panels.dashboards(spec).items()}
    return rules(spec) | boards


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
