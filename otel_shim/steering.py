"""Steering OpenTelemetry's loader: which official instrumentors it loads, and what it says about it."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from opentelemetry.instrumentation.environment_variables import (
    OTEL_PYTHON_CONFIGURATOR,
    OTEL_PYTHON_DISTRO,
)
from opentelemetry.instrumentation.instrumentor import (  # type: ignore[attr-defined]
    BaseInstrumentor,
)
from opentelemetry.util._importlib_metadata import entry_points

from otel_shim.capture import official
from otel_shim.wiring import NAME, Wiring, wiring

_LOADER = "opentelemetry.instrumentation.auto_instrumentation._load"
_OURS_LOADED = re.compile(rf"not loaded(, {NAME} already loaded| because {NAME} is set )")
_instrument = BaseInstrumentor.instrument


def steer(wired: Wiring) -> None:
    """Steer what the loader does with official instrumentors, whichever distro won.

    Those whose work is done otherwise are left out: to undo them afterwards would come too late, since
    modules that were imported meanwhile keep what was wrapped. FastAPI's is given our options.
    """
    name_of = _names()

    def instrument(self: BaseInstrumentor, **kwargs: Any) -> Any:
        name = name_of(type(self))
        if wired.takes(name, type(self).__module__) or not wired.wants(name):
            return None
        options = official.options() if name == "fastapi" else {}
        return _instrument(self, **{**options, **kwargs})

    BaseInstrumentor.instrument = instrument


def _names() -> Callable[[type], str]:
    """What gives the name of an instrumentor's entry point; empty where that is not to be known.

    A module may have several, as httpx has; and a class may be defined elsewhere than it is offered.
    """
    classes: dict[tuple[str, str], str] = {}
    modules: defaultdict[str, set[str]] = defaultdict(set)
    for entry_point in entry_points(group="opentelemetry_instrumentor"):
        classes[entry_point.module, entry_point.attr] = entry_point.name
        modules[entry_point.module].add(entry_point.name)
    alone = {module: min(names) for module, names in modules.items() if len(names) == 1}

    def name_of(kind: type) -> str:
        module = kind.__module__
        return classes.get((module, kind.__qualname__), alone.get(module, ""))

    return name_of


def release() -> None:
    """Let the application instrument what it likes."""
    BaseInstrumentor.instrument = _instrument


class _Taken(logging.Filter):
    """What the loader says about those whose work ours do: that they are not loaded."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Drop it; of others, that they take no part is to be known."""
        message = record.getMessage()
        if message.startswith("Configuration of ") and _OURS_LOADED.search(message):
            return False
        return not wiring().takes(message.partition(" only instruments ")[0])


def quiet_loader() -> None:
    """Keep the loader from calling an error what ours do instead."""
    loader = logging.getLogger(_LOADER)
    if not any(isinstance(each, _Taken) for each in loader.filters):
        loader.addFilter(_Taken())


def misspelt(environ: Mapping[str, str]) -> Iterator[str]:
    """Names of a distro or configurator that nobody has: the loader takes another without a word."""
    for variable, group in (
        (OTEL_PYTHON_DISTRO, "opentelemetry_distro"),
        (OTEL_PYTHON_CONFIGURATOR, "opentelemetry_configurator"),
    ):
        name = environ.get(variable)
        installed = sorted({entry_point.name for entry_point in entry_points(group=group)})
        if name is not None and name not in installed:
            yield f"{variable}={name} is not installed; write one of {', '.join(installed)}"
