"""Faults on purpose. Off unless `SAAS_FAULTS` names a file, the same that the API obeys; read every time:

feed html            a login page instead of the feed, with status 200
feed malformed       the feed breaks off
feed unchanged       the feed stays as it was at first, for ever
feed down            503
feed slow 3          seconds
deliveries down      503
calendar down        the calendar server's gate takes no connection: connector/gate.py
calendar slow 2      seconds before each answer
"""

import os
from pathlib import Path


def on(line: str) -> bool:
    """Whether this line is there."""
    return line in _lines()


def seconds(start: str) -> float:
    """The number at the end of a line, as 3 in `feed slow 3`; 0 without such a line."""
    numbers = (line.removeprefix(start) for line in _lines() if line.startswith(f"{start} "))
    return float(next(numbers, 0.0))


def _lines() -> list[str]:
    file = os.environ.get("SAAS_FAULTS")
    try:
        return Path(file).read_text().splitlines() if file else []
    except FileNotFoundError:
        return []
