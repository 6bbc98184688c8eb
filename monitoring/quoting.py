"""Labels' values within other languages, as Prometheus's templates write them: a route may have a quote in it."""

from __future__ import annotations

import re
from collections.abc import Mapping

_VALUE = re.compile(r'"\{\{ \$labels\.(\w+) \}\}"')


def quoted(texts: Mapping[str, str]) -> dict[str, str]:
    """With each value between quotes as a string of Go, which strings of PromQL and of JSON are."""
    return {name: _VALUE.sub(r'{{ printf "%q" $labels.\1 }}', text) for name, text in texts.items()}
