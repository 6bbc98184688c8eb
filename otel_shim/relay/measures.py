"""The relay's own counters, as Prometheus's text format."""

from __future__ import annotations

from collections import Counter

HELP = {
    "alerts_received": "Alerts that Prometheus sent.",
    "alerts_delivered": "Alerts that an Alertmanager accepted.",
    "alerts_refused": "Alerts that an Alertmanager did not accept; Prometheus sends them again.",
    "alerts_unaccepted": "Alerts that no Alertmanager accepted.",
    "findings": "Answers to: which trace; by source, or `none`.",
    "lookup_failures": "Look-ups without an answer: refused, unavailable, late, unasked for want of time.",
    "errors": "Failures inside the relay; alerts were passed on, without ids or ids not kept on disk.",
}
PREFIX = "otel_shim_relay_"
_BOUNDARIES = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)


class Measures:
    """Counters by name and labels."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter({(name, ""): 0 for name in HELP})
        self._delays = [0] * (len(_BOUNDARIES) + 1)
        self._delay_sum = 0.0

    def add(self, name: str, number: int = 1, **labels: str) -> None:
        """Count."""
        said = ",".join(f'{key}="{_escaped(value)}"' for key, value in labels.items())
        self._counts[name, f"{{{said}}}" if said else ""] += number

    def delayed(self, seconds: float, alerts: int) -> None:
        """Record how long a batch was held before its first delivery began."""
        place = next((i for i, le in enumerate(_BOUNDARIES) if seconds <= le), len(_BOUNDARIES))
        self._delays[place] += alerts
        self._delay_sum += seconds * alerts

    def text(self) -> str:
        """All of them, for a scrape."""
        return "\n".join([*self._counters(), *self._histogram(), ""])

    def _counters(self) -> list[str]:
        lines = []
        for name, meaning in HELP.items():
            full = f"{PREFIX}{name}_total"
            lines += [f"# HELP {full} {meaning}", f"# TYPE {full} counter"]
            counts = {label: n for (key, label), n in self._counts.items() if key == name}
            if len(counts) > 1:
                del counts[""]
            lines += [f"{full}{label} {number}" for label, number in sorted(counts.items())]
        return lines

    def _histogram(self) -> list[str]:
        name = f"{PREFIX}hold_seconds"
        lines = [f"# HELP {name} Time from an alert's arrival to its delivery's start."]
        lines.append(f"# TYPE {name} histogram")
        total = 0
        for le, number in zip((*map(str, _BOUNDARIES), "+Inf"), self._delays, strict=True):
            total += number
            lines.append(f'{name}_bucket{{le="{le}"}} {total}')
        return [*lines, f"{name}_sum {self._delay_sum}", f"{name}_count {total}"]


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
