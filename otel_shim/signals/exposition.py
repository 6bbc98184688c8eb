"""Series as Prometheus reads them: its text format, version 0.0.4, with the names it gives to OTLP metrics."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from itertools import accumulate

from otel_shim.signals.series import COUNTER, HISTOGRAM, Description, described

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_UNITS = {
    "s": "seconds",
    "ms": "milliseconds",
    "us": "microseconds",
    "ns": "nanoseconds",
    "min": "minutes",
    "h": "hours",
    "d": "days",
    "By": "bytes",
    "KiBy": "kibibytes",
    "MiBy": "mebibytes",
    "%": "percent",
}
_TYPES = {COUNTER: "counter", HISTOGRAM: "histogram"}


def exposition(series: Mapping[bytes, list[float]]) -> str:
    """The text of a scrape; the series of a metric stand together."""
    by_name: dict[str, list[tuple[Description, list[float]]]] = {}
    for key, values in series.items():
        description = _described(key)
        by_name.setdefault(metric_name(description), []).append((description, values))
    lines: list[str] = []
    for name, members in sorted(by_name.items()):
        first = members[0][0]
        lines.append(f"# HELP {name} {_help(first.brief)}")
        lines.append(f"# TYPE {name} {_TYPES.get(first.kind, 'gauge')}")
        for description, values in members:
            if description.kind == first.kind:
                lines += _lines(name, description, values)
    return "\n".join(lines) + "\n"


@functools.lru_cache(maxsize=1024)
def _metric_name(name: str, unit: str, kind: str) -> str:
    words = [_legal(name)]
    suffix = "ratio" if unit == "1" and kind not in (COUNTER, HISTOGRAM) else _UNITS.get(unit)
    if suffix and not words[0].endswith(f"_{suffix}"):
        words.append(suffix)
    if kind == COUNTER:
        words = [words[0].removesuffix("_total"), *words[1:], "total"]
    return "_".join(words)


def metric_name(description: Description) -> str:
    """The name with its unit and, for a counter, ``_total``: as Prometheus names what OTLP brings."""
    return _metric_name(description.name, description.unit, description.kind)


def _lines(name: str, series: Description, values: list[float]) -> Iterator[str]:
    if series.kind != HISTOGRAM:
        yield f"{name}{_braced(_labels(series.labels))} {_number(values[0])}"
        return
    labels = _labels(series.labels)
    comma = "," if labels else ""
    counts = list(accumulate(values[:-1]))
    for bound, count in zip((*series.boundaries, "+Inf"), counts, strict=True):
        yield f'{name}_bucket{{{labels}{comma}le="{bound}"}} {int(count)}'
    yield f"{name}_sum{_braced(labels)} {_number(values[-1])}"
    yield f"{name}_count{_braced(labels)} {int(counts[-1])}"


@functools.lru_cache(maxsize=8192)
def _labels(labels: tuple[tuple[str, str], ...]) -> str:
    return ",".join(f'{_legal(name)}="{_escaped(value)}"' for name, value in labels)


@functools.lru_cache(maxsize=8192)
def _described(key: bytes) -> Description:
    return described(key)


def _legal(name: str) -> str:
    legal = re.sub(r"[^a-zA-Z0-9_]+", "_", name)
    return f"_{legal}" if legal[:1].isdigit() else legal


def _braced(labels: str) -> str:
    return f"{{{labels}}}" if labels else ""


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _help(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)
