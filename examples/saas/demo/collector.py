"""The identity processor's own counters, from the Collector's telemetry endpoint."""

import re

import httpx

SAMPLE = re.compile(r"^(otelcol_)?(processor_identity_\w+)(?:\{([^}]*)\})? (\S+)$", re.MULTILINE)
HELD = "processor_identity_spans_held"
SEEN = "processor_identity_spans_seen_total"
COMPLETED = "processor_identity_spans_completed_total (org"
# The labels that tell apart what one processor counts; the others name the processor itself.
LABEL = re.compile(r'\b(?:group|origin|reason)="(\w+)"')


def parse_counters(text: str) -> dict[str, float]:
    """Counters of a Prometheus text, by name and label; histogram buckets are left out."""
    counters: dict[str, float] = {}
    for _, name, labels, value in SAMPLE.findall(text):
        if not name.endswith("_bucket"):
            kinds = LABEL.findall(labels)
            counters[f"{name} ({', '.join(kinds)})" if kinds else name] = float(value)
    return counters


def read_counters(url: str) -> dict[str, float]:
    """Ask a Collector; `httpx.HTTPError` when it does not answer."""
    return parse_counters(httpx.get(url, timeout=5).raise_for_status().text)
