"""Runs OpenTelemetry's own loader in this process and records what it does, without changing it.

The loader has no hooks for onlookers, so its functions are wrapped where it looks them up. What is
recorded is what really happened; only the reasons are worked out from it.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.instrumentation.auto_instrumentation import initialize
from opentelemetry.instrumentation.dependencies import get_dependency_conflicts
from opentelemetry.util._importlib_metadata import EntryPoint, entry_points

from otel_shim import _sdk_compat, wiring
from otel_shim.cli.observation import (
    FAILED,
    LOADED,
    REPLACED,
    SKIPPED,
    Candidate,
    Choice,
    Instrumentor,
    LogLine,
)

_AT_WORK = "is_instrumented_by_opentelemetry"
_LOGGERS = ("opentelemetry", "otel_shim")


@dataclass
class Record:
    """What the loader did, as it happened."""

    distro: str | None = None
    configurator: str | None = None
    called: list[str] = field(default_factory=list)
    conflicts: dict[str, Any] = field(default_factory=dict)
    errors: dict[str, Exception] = field(default_factory=dict)
    log: list[LogLine] = field(default_factory=list)


def run() -> Record:
    """Load this process as ``opentelemetry-instrument`` would."""
    record = Record()
    for name in _LOGGERS:
        logging.getLogger(name).addHandler(_Tap(record.log))
    _watch_configurator(record)
    _sdk_compat.wrap_loader(
        functools.partial(_watched_distro, record),
        functools.partial(_watched_instrumentors, record),
        functools.partial(_watched_conflicts, record),
    )
    initialize()
    return record


class _Tap(logging.Handler):
    """Keeps what is logged from warnings up."""

    def __init__(self, lines: list[LogLine]) -> None:
        super().__init__(logging.WARNING)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record as a line."""
        error = _described(record.exc_info[1] if record.exc_info else None)
        self._lines.append(LogLine(record.name, record.levelname, record.getMessage()[:500], error))


def _described(error: BaseException | None) -> str:
    if error is None:
        return ""
    first = (str(error).strip().splitlines() or [""])[0][:300]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _watch_configurator(record: Record) -> None:
    configurator: Any = _sdk_compat.SDKConfigurator.__mro__[1]
    configure = configurator.configure

    @functools.wraps(configure)
    def watched(self: Any, **kwargs: Any) -> Any:
        record.configurator = _value(self)
        return configure(self, **kwargs)

    configurator.configure = watched


def _watched_distro(record: Record, load_distro: Callable[[], Any]) -> Callable[[], Any]:
    def watched() -> Any:
        chosen = load_distro()
        record.distro = _value(chosen)
        return chosen

    return watched


def _watched_instrumentors(
    record: Record, load_all: Callable[[Any], None]
) -> Callable[[Any], None]:
    return lambda chosen: load_all(_Watched(chosen, record))


def _watched_conflicts(record: Record, find_conflict: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def watched(dist: Any) -> Any:
        conflict = find_conflict(dist)
        record.conflicts[_name(dist)] = conflict
        return conflict

    return watched


class _Watched:
    """The chosen distro, as the loader sees it while instrumentors are loaded."""

    def __init__(self, chosen: Any, record: Record) -> None:
        self._chosen = chosen
        self._record = record

    def load_instrumentor(self, entry_point: EntryPoint, **kwargs: Any) -> None:
        """Note that the distro is asked, and ask it."""
        self._record.called.append(entry_point.name)
        try:
            self._chosen.load_instrumentor(entry_point, **kwargs)
        except Exception as error:
            self._record.errors[entry_point.name] = error
            raise


def _value(chosen: object) -> str:
    kind = type(chosen)
    return f"{kind.__module__}:{kind.__qualname__}"


def _name(dist: Any) -> str:
    return str(dist.metadata["Name"]) if dist is not None else ""


def choice(group: str, asked: str | None, winner: str | None) -> Choice:
    """The candidates of a group in the loader's order, and which of them won."""
    candidates = [
        Candidate(ep.name, ep.value, _name(ep.dist), str(getattr(ep.dist, "version", "")))
        for ep in entry_points(group=group)
    ]
    return Choice(tuple(candidates), asked, _entry(candidates, winner))


def _entry(candidates: Iterable[Candidate], winner: str | None) -> str | None:
    """The winner as its entry point writes it, which may name a module that only re-exports the class."""
    if winner is None:
        return None
    for candidate in candidates:
        module, _, name = candidate.value.partition(":")
        kind = getattr(sys.modules.get(module), name, None)
        if kind is not None and f"{kind.__module__}:{kind.__qualname__}" == winner:
            return candidate.value
    return winner


def instrumentors(record: Record) -> Iterator[Instrumentor]:
    """What became of each installed instrumentor."""
    for entry_point in entry_points(group="opentelemetry_instrumentor"):
        outcome = _outcome(entry_point, record)
        version = str(getattr(entry_point.dist, "version", ""))
        yield Instrumentor(entry_point.name, _name(entry_point.dist), version, *outcome)


def _outcome(entry_point: EntryPoint, record: Record) -> tuple[str, str, str]:
    name = entry_point.name
    conflict = record.conflicts.get(_name(entry_point.dist))
    wired = wiring.wiring()
    if (instrumentor := active(entry_point)) is not None:
        return _at_work(instrumentor)
    if wired.active and not wired.wants(name):
        return SKIPPED, "disabled", "switched off by the operator"
    if conflict is not None and not (conflict.found or conflict.found_any):
        return SKIPPED, "absent", "the library is not installed"
    if wired.active and wired.takes(name, entry_point.module):
        return REPLACED, "", _replacement(name)
    if conflict is not None:
        return SKIPPED, "limits", _limits(conflict)
    return _not_active(name, record)


def _not_active(name: str, record: Record) -> tuple[str, str, str]:
    error = record.errors.get(name)
    if isinstance(error, ModuleNotFoundError):
        return SKIPPED, "absent", _described(error)
    if error is not None:
        return FAILED, "", _described(error)
    if name in record.called:
        return SKIPPED, "distro", "the distro left it out"
    return SKIPPED, "loader", "the loader stopped before it"


def active(entry_point: EntryPoint) -> Any:
    """An instrumentor that is at work, else None; asks only those that something has imported."""
    module, _, name = entry_point.value.partition(":")
    kind = getattr(sys.modules.get(module), name, None)
    instrumentor = kind() if kind is not None else None
    return instrumentor if getattr(instrumentor, _AT_WORK, False) else None


def _at_work(instrumentor: Any) -> tuple[str, str, str]:
    """Ours wait for their library to be imported, so that loading them says nothing about it."""
    ours = type(instrumentor).__module__.startswith("otel_shim.")
    needs = instrumentor.instrumentation_dependencies() if ours else ()
    conflict = get_dependency_conflicts(needs)
    if conflict is None:
        return LOADED, "", ""
    if conflict.found is None:
        return SKIPPED, "absent", "the library is not installed"
    return (
        LOADED,
        "untested",
        f"made for {_plain(conflict.required)}, {conflict.found} is installed",
    )


def _replacement(name: str) -> str:
    if name == "fastapi":
        return "FastAPI's own telemetry does its work"
    return "otel_shim's own capture does its work"


def _limits(conflict: Any) -> str:
    wanted = conflict.required or " or ".join(map(_plain, conflict.required_any or ()))
    found = conflict.found or ", ".join(map(str, conflict.found_any or ()))
    return f"it takes {_plain(wanted)}, and {found} is installed"


def _plain(requirement: object) -> str:
    """A requirement without its marker, which names the extra that it is listed under."""
    return str(requirement).partition(";")[0].strip()
