"""Write the Python constants, the Go constants and the reference from the YAML files here.

`generate.py` writes; `generate.py --check` writes nothing and exits 1, naming each file that differs.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
SOURCE = "semconv/attributes.yaml"
WORK_SOURCE = "semconv/work.yaml"
METRICS_SOURCE = "semconv/metrics.yaml"
NOTICE = f"Generated from {SOURCE} and {WORK_SOURCE} by `make generate`; do not edit."
METRICS_NOTICE = f"Generated from {METRICS_SOURCE} by `make generate`; do not edit."
GO_FILE = "processor/identityprocessor/internal/semconv/generated_attributes.go"


@dataclass(frozen=True)
class Member:
    """One value of an enumerated attribute."""

    value: str
    brief: str


@dataclass(frozen=True)
class Attribute:
    """One attribute that is ours."""

    id: str
    type: str
    members: tuple[Member, ...]
    brief: str
    examples: tuple[Any, ...]
    annotations: dict[str, Any]


@dataclass(frozen=True)
class Group:
    """Attributes that are documented together."""

    name: str
    brief: str
    attributes: tuple[Attribute, ...]


@dataclass(frozen=True)
class Upstream:
    """An attribute of OpenTelemetry's that belongs to one of our identity groups."""

    id: str
    python: str
    go: str
    identity_group: str
    pii: str


@dataclass(frozen=True)
class Operation:
    """An operation name that is ours."""

    id: str
    brief: str


@dataclass(frozen=True)
class Metric:
    """One metric; ``python`` is the constant of OpenTelemetry's where the metric is not ours."""

    name: str
    instrument: str
    unit: str
    brief: str
    attributes: tuple[str, ...]
    annotations: dict[str, Any]
    python: str | None = None


@dataclass(frozen=True)
class Contract:
    """Everything attributes.yaml, work.yaml and metrics.yaml say."""

    groups: tuple[Group, ...]
    upstream: tuple[Upstream, ...]
    operations: tuple[Operation, ...]
    metrics: tuple[Metric, ...]
    metric_attributes: dict[str, str]
    """OpenTelemetry's own attributes of metrics, with the constants' names."""

    def attributes(self) -> Iterator[Attribute]:
        """Every attribute of ours, in the order of the file."""
        for group in self.groups:
            yield from group.attributes


def read_contract(text: str, work_text: str, metrics_text: str) -> Contract:
    """Parse the three YAML texts; a missing key raises KeyError naming it."""
    raw, work, metrics = map(yaml.safe_load, (text, work_text, metrics_text))
    return Contract(
        groups=tuple(_group(g) for g in (*raw["groups"], *work["groups"])),
        upstream=tuple(Upstream(**u) for u in raw["upstream"]),
        operations=tuple(Operation(**o) for o in raw["operations"]),
        metrics=tuple(_metric(m) for m in (*metrics["upstream"], *metrics["groups"])),
        metric_attributes={a["id"]: a["python"] for a in metrics["upstream_attributes"]},
    )


def _metric(raw: dict[str, Any]) -> Metric:
    return Metric(
        name=raw["metric_name"],
        instrument=raw["instrument"],
        unit=raw["unit"],
        brief=raw["brief"],
        attributes=tuple(a["ref"] for a in raw["attributes"]),
        annotations=raw["annotations"],
        python=raw.get("python"),
    )


def _group(raw: dict[str, Any]) -> Group:
    return Group(raw["display_name"], raw["brief"], tuple(_attribute(a) for a in raw["attributes"]))


def _attribute(raw: dict[str, Any]) -> Attribute:
    kind = raw["type"]
    enumerated = isinstance(kind, dict)
    members = kind["members"] if enumerated else []
    return Attribute(
        id=raw["id"],
        type="string" if enumerated else kind,
        members=tuple(Member(m["value"], m["brief"]) for m in members),
        brief=raw["brief"],
        examples=tuple(raw["examples"]),
        annotations=raw["annotations"],
    )


def python_constants(contract: Contract) -> str:
    """The text of otel_shim/_semconv.py."""
    lines = [f'"""Names of the semantic contract. {NOTICE}"""', "", "from typing import Final", ""]
    for attribute in contract.attributes():
        lines += [f"{_upper(attribute.id)}: Final = {_quote(attribute.id)}"]
        lines += [f'"""{attribute.brief}"""']
        for member in attribute.members:
            name = f"{_upper(attribute.id)}_{member.value.upper()}"
            lines += [f"{name}: Final = {_quote(member.value)}"]
    for operation in contract.operations:
        lines += [f"OPERATION_{_upper(operation.id)}: Final = {_quote(operation.id)}"]
    lines += [
        f"METRIC_{_upper(m.name)}: Final = {_quote(m.name)}"
        for m in contract.metrics
        if not m.python
    ]
    lines += ["", *_python_tables(contract), "", *_python_metrics(contract)]
    return "\n".join(lines) + "\n"


def _python_tables(contract: Contract) -> Iterator[str]:
    bound = {a.annotations["bind"]: a.id for a in contract.attributes() if "bind" in a.annotations}
    dimensions = [a.id for a in contract.attributes() if a.annotations["metric_dimension"]]
    safe = [a.id for a in contract.attributes() if a.annotations["safe"]]
    yield "BINDABLE: Final[dict[str, str]] = {"
    yield from (f"    {_quote(k)}: {_quote(v)}," for k, v in sorted(bound.items()))
    yield from ("}", '"""Keyword of `bind()` to the attribute it sets."""', "")
    for name, ids, doc in (
        (
            "METRIC_DIMENSIONS",
            dimensions,
            "Attributes with few enough values to be a metric label.",
        ),
        ("SAFE", safe, "Attributes that never need scrubbing."),
    ):
        yield f"{name}: Final = frozenset("
        yield "    {"
        yield from (f"        {_quote(i)}," for i in sorted(ids))
        yield from ("    }", ")", f'"""{doc}"""', "")
    names = ", ".join(_quote(u.id) for u in contract.upstream)
    yield f"UPSTREAM_IDENTITY: Final = ({names})"
    yield '"""OpenTelemetry\'s own names in the identity groups."""'


def _python_metrics(contract: Contract) -> Iterator[str]:
    yield "METRICS: Final[dict[str, tuple[str, str]]] = {"
    for metric in contract.metrics:
        yield f"    {_quote(metric.name)}: ({_quote(metric.unit)}, {_quote(metric.brief)}),"
    yield from ("}", '"""Name of a metric to its unit and its meaning."""', "")
    yield "METRIC_ATTRIBUTES: Final[dict[str, frozenset[str]]] = {"
    for metric in contract.metrics:
        ids = ", ".join(map(_quote, metric.attributes))
        yield f"    {_quote(metric.name)}: frozenset(({ids},)),"
    yield from (
        "}",
        '"""Name of a metric to its attributes, without those of its exemplars."""',
        "",
    )
    yield "METRIC_BOUNDARIES: Final[dict[str, tuple[float, ...]]] = {"
    for metric in contract.metrics:
        if boundaries := metric.annotations.get("boundaries"):
            yield f"    {_quote(metric.name)}: {tuple(boundaries)},"
    yield from ("}", '"""Name of a histogram to its boundaries, in its unit."""')


def go_constants(contract: Contract) -> str:
    """The text of the Go constants, in gofmt's layout."""
    lines = [f"// Code {NOTICE[0].lower()}{NOTICE[1:]} DO NOT EDIT.", ""]
    lines += ["// Package semconv holds the names of the semantic contract.", "package semconv", ""]
    lines += ['import otelsemconv "go.opentelemetry.io/otel/semconv/v1.37.0"', "", "const ("]
    for attribute in contract.attributes():
        lines += [f"\t// {_camel(attribute.id)}: {attribute.brief}"]
        lines += [f"\t{_camel(attribute.id)} = {_quote(attribute.id)}"]
        for member in attribute.members:
            lines += [f"\t// {_camel(attribute.id)}{_camel(member.value)}: {member.brief}"]
            lines += [f"\t{_camel(attribute.id)}{_camel(member.value)} = {_quote(member.value)}"]
    lines += [")", ""]
    for group, key in (("org", "saas.org.id"), ("request", "saas.request.id")):
        lines += list(_go_group(contract, group, key))
    return "\n".join(lines) + "\n"


def _go_group(contract: Contract, group: str, key: str) -> Iterator[str]:
    own = [a.id for a in contract.attributes() if a.annotations.get("identity_group") == group]
    name = f"Group{_camel(group)}"
    yield f"// {name} are the members that travel with {key}."
    yield f"var {name} = []string{{"
    yield from (f"\t{_camel(i)}," for i in own if i != key)
    yield from (
        f"\tstring(otelsemconv.{u.go})," for u in contract.upstream if u.identity_group == group
    )
    yield from ("}", "")


def reference(contract: Contract) -> str:
    """The text of docs/reference/attributes.md."""
    lines = ["# Attributes", "", f"<!-- {NOTICE} -->", ""]
    for group in contract.groups:
        lines += [f"## {group.name}", "", group.brief, ""]
        lines += [
            "| attribute | type | meaning | example | set by | personal data | metric label |"
        ]
        lines += ["|---|---|---|---|---|---|---|"]
        lines += [_row(a) for a in group.attributes] + [""]
    lines += ["## OpenTelemetry's own names in an identity group", ""]
    lines += ["| attribute | group | personal data |", "|---|---|---|"]
    lines += [f"| `{u.id}` | {u.identity_group} | {u.pii} |" for u in contract.upstream]
    lines += ["", "## Operations", "", "| operation | meaning |", "|---|---|"]
    lines += [f"| `{o.id}` | {o.brief} |" for o in contract.operations]
    return "\n".join(lines) + "\n"


def _row(attribute: Attribute) -> str:
    notes = attribute.annotations
    values = " Values: " + ", ".join(
        f"`{m.value}` ({m.brief.rstrip('.')})" for m in attribute.members
    )
    cells = (
        f"`{attribute.id}`",
        attribute.type,
        attribute.brief + (values + "." if attribute.members else ""),
        f"`{json.dumps(attribute.examples[0])}`",
        ", ".join(notes["set_by"]),
        notes["pii"],
        "yes" if notes["metric_dimension"] else "no",
    )
    return "| " + " | ".join(cells) + " |"


def metrics_reference(contract: Contract) -> str:
    """The text of docs/reference/metrics.md."""
    lines = ["# Metrics", "", f"<!-- {METRICS_NOTICE} -->", ""]
    lines += [
        "No user, organisation or request is ever a label. What stands under exemplar is kept on"
    ]
    lines += ["exemplars only, beside the trace and span ids.", ""]
    lines += [
        "| metric | in Prometheus | kind | unit | meaning | labels | exemplar | recorded by |"
    ]
    lines += ["|---|---|---|---|---|---|---|---|"]
    lines += [_metric_row(m) for m in contract.metrics]
    lines += ["", "## Boundaries of the histograms", "", "| metric | boundaries |", "|---|---|"]
    lines += [
        f"| `{m.name}` | {', '.join(map(str, m.annotations['boundaries']))} |"
        for m in contract.metrics
        if "boundaries" in m.annotations
    ]
    return "\n".join(lines) + "\n"


def _metric_row(metric: Metric) -> str:
    notes = metric.annotations
    cells = (
        f"`{metric.name}`",
        f"`{notes['prometheus']}`",
        metric.instrument,
        metric.unit,
        metric.brief,
        ", ".join(f"`{a}`" for a in metric.attributes),
        ", ".join(f"`{a}`" for a in notes.get("exemplar", ())),
        notes["set_by"],
    )
    return "| " + " | ".join(cells) + " |"


def _upper(name: str) -> str:
    return name.replace(".", "_").upper()


def _camel(name: str) -> str:
    initials = {"id": "ID", "gdpr": "GDPR", "api": "API"}
    return "".join(initials.get(p, p.capitalize()) for p in name.replace("_", ".").split("."))


def _quote(text: str) -> str:
    return json.dumps(text)


def check_upstream(contract: Contract) -> None:
    """Raise ValueError where OpenTelemetry's package names something otherwise than we do."""
    named = {u.python: u.id for u in contract.upstream}
    named |= {m.python: m.name for m in contract.metrics if m.python}
    named |= {python: id_ for id_, python in contract.metric_attributes.items()}
    for python, name in named.items():
        module, _, constant = python.rpartition(".")
        value = getattr(importlib.import_module(module), constant)
        if value != name:
            raise ValueError(f"{python} is {value!r}, the contract says {name!r}")


def wrong_attributes(contract: Contract) -> Iterator[str]:
    """What is wrong with the attributes of metrics: unknown ones, and those that must be no label."""
    allowed = {a.id for a in contract.attributes() if a.annotations["metric_dimension"]}
    for metric in contract.metrics:
        for name in metric.attributes:
            if name not in allowed and name not in contract.metric_attributes:
                yield f"{METRICS_SOURCE}: {name} may be no attribute of {metric.name}"


WRITERS: dict[str, Callable[[Contract], str]] = {
    "otel_shim/_semconv.py": python_constants,
    GO_FILE: go_constants,
    "docs/reference/attributes.md": reference,
    "docs/reference/metrics.md": metrics_reference,
}


def formatted(path: str, text: str) -> str:
    """The text as the language's own formatter leaves it (ruff, gofmt), so that `make check` agrees."""
    commands = {
        ".py": [sys.executable, "-m", "ruff", "format", "--stdin-filename", path, "-"],
        ".go": ["gofmt"],
    }
    command = commands.get(Path(path).suffix)
    if command is None:
        return text
    return subprocess.run(
        command, input=text, capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout


def main() -> int:
    """Generate or check; the exit code is 1 where a check found a difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail on a difference")
    check = parser.parse_args().check
    files = (SOURCE, WORK_SOURCE, METRICS_SOURCE)
    contract = read_contract(*((ROOT / name).read_text(encoding="utf-8") for name in files))
    check_upstream(contract)
    stale = [path for path, writer in WRITERS.items() if _emit(path, writer(contract), check)]
    for path in stale:
        print(
            f"{path} differs from the contract: run `make generate`" if check else f"wrote {path}"
        )
    wrong = list(wrong_attributes(contract))
    print(*wrong, sep="\n", end="\n" if wrong else "")
    return 1 if wrong or (check and stale) else 0


def _emit(path: str, text: str, check: bool) -> bool:
    """Write the file unless checking; True where it differed."""
    target = ROOT / path
    text = formatted(path, text)
    if target.exists() and target.read_text(encoding="utf-8") == text:
        return False
    if not check:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    return True


if __name__ == "__main__":
    sys.exit(main())
