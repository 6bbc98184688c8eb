"""The nouns of the doctor: what was seen when the loader really ran, and what is wrong with it."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

LOADED = "loaded"
REPLACED = "replaced"
SKIPPED = "skipped"
FAILED = "failed"
ERROR = "error"
WARNING = "warning"
INFO = "info"


@dataclass(frozen=True)
class Finding:
    """Something to know: ``cause`` and ``fix`` are one sentence each; errors and warnings are problems."""

    severity: str
    code: str
    cause: str
    fix: str


@dataclass(frozen=True)
class Candidate:
    """An entry point that could have become the distro or the configurator."""

    name: str
    value: str
    distribution: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} ({self.distribution} {self.version})"


@dataclass(frozen=True)
class Choice:
    """Which entry point of a group won; ``asked`` is what the operator's variable said."""

    candidates: tuple[Candidate, ...] = ()
    asked: str | None = None
    winner: str | None = None
    """The winner as ``module:class``, as entry points write it."""

    def won(self) -> Candidate | None:
        """The candidate that won; None where the loader's default took its place."""
        return next((c for c in self.candidates if c.value == self.winner), None)


@dataclass(frozen=True)
class Instrumentor:
    """What became of an official instrumentor. ``detail`` says why, in one sentence or less."""

    name: str
    distribution: str
    version: str
    state: str
    reason: str = ""
    """Of what is skipped: disabled, absent (the library is not installed), limits (its version), import."""
    detail: str = ""


@dataclass(frozen=True)
class Exporter:
    """An exporter that is in place, and whether its endpoint answers. Holds no header values."""

    signal: str
    kind: str
    endpoint: str = ""
    headers: tuple[str, ...] = ()
    problem: str = ""
    """Why the endpoint cannot be used: ``unreachable``, ``refused`` or ``answer``; empty where it can."""
    detail: str = ""


@dataclass(frozen=True)
class Handler:
    """A logging handler that sends records to OpenTelemetry."""

    logger: str
    kind: str


@dataclass(frozen=True)
class Key:
    """Where the key of pseudonyms comes from; never the key.

    ``state``: given, file, host, unusable, unneeded.
    """

    state: str
    where: str = ""
    mode: str = ""
    made: bool = False
    """Whether this run made it, as the application's first start would have."""
    problem: str = ""


@dataclass(frozen=True)
class Trial:
    """What came out of one piece of work done in the loaded process; None where it could not be tried."""

    request_spans: tuple[str, ...] | None = None
    request_stamped: bool = False
    query_spans: tuple[str, ...] | None = None
    log_records: int | None = None


@dataclass(frozen=True)
class App:
    """The application that the command names, imported after the loader ran."""

    target: str
    problem: str = ""
    dependencies: tuple[str, ...] = ()
    """Names of its dependencies, of parameters and of functions."""


@dataclass(frozen=True)
class LogLine:
    """What OpenTelemetry or the shim logged while loading, from warnings up."""

    logger: str
    level: str
    message: str
    error: str = ""


@dataclass(frozen=True)
class ConfigFile:
    """The file that ``OTEL_CONFIG_FILE`` names. ``problem`` is empty where it was used."""

    path: str
    problem: str = ""
    disabled: bool = False


@dataclass(frozen=True)
class Observation:
    """All that the child process saw."""

    python: str
    executable: str
    disabled: bool
    service_name: str
    protobuf: str
    distro: Choice
    configurator: Choice
    key: Key
    trial: Trial
    instrumentors: tuple[Instrumentor, ...] = ()
    exporters: tuple[Exporter, ...] = ()
    handlers: tuple[Handler, ...] = ()
    sources: tuple[str, ...] = ()
    config_errors: tuple[str, ...] = ()
    log: tuple[LogLine, ...] = ()
    config_file: ConfigFile | None = None
    app: App | None = None
    absent: tuple[str, ...] = ()
    """What is to be captured of installed libraries and is not there, as ``module.name``."""


def decode(kind: Any, value: Any) -> Any:
    """A noun from what ``dataclasses.asdict`` and JSON made of it."""
    if is_dataclass(kind) and isinstance(value, Mapping):
        hints = typing.get_type_hints(kind)
        build: Any = kind
        return build(**{f.name: decode(hints[f.name], value[f.name]) for f in fields(kind)})
    if typing.get_origin(kind) is tuple and value is not None:
        return tuple(decode(typing.get_args(kind)[0], item) for item in value)
    if typing.get_origin(kind) in (types.UnionType, typing.Union) and value is not None:
        return decode(next(k for k in typing.get_args(kind) if k is not type(None)), value)
    return value
