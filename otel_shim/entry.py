"""What OpenTelemetry's loader asks for by name: the real thing, or next to nothing.

With ``OTEL_SDK_DISABLED``, or with ``disabled: true`` in a configuration file, neither the SDK nor any
capture or instrumentor is imported, so that the switch costs nothing.
"""

from __future__ import annotations

import functools
import importlib
import os
import re
from typing import Any

from opentelemetry.instrumentation.distro import BaseDistro  # type: ignore[attr-defined]
from opentelemetry.util._importlib_metadata import EntryPoint

_DISABLED = "OTEL_SDK_DISABLED"  # its constant is in the SDK, which is not to be imported here
_CONFIG_FILE = "OTEL_CONFIG_FILE"  # likewise
_SWITCH = re.compile(r"^disabled\s*:\s*(?:\$\{(\w+)(?::-(\w*))?\}|(\w+))\s*(?:#.*)?$", re.MULTILINE)
"""The switch of a configuration file, where it stands on a line of its own, as ever in YAML."""


class NoDistro(BaseDistro):  # type: ignore[misc]
    """Instruments nothing."""

    def _configure(self, **kwargs: Any) -> None:
        """Nothing is configured."""

    def load_instrumentor(self, entry_point: EntryPoint, **kwargs: Any) -> None:
        """Nothing is loaded."""


class NoConfigurator:
    """Configures nothing: the API's own providers stay, which do nothing."""

    def configure(self, **kwargs: Any) -> None:
        """Nothing is configured."""


def _nothing() -> None:
    """Stands for the hooks before and after instrumentors."""


_NOTHING: dict[str, Any] = {
    "ShimDistro": NoDistro,
    "ShimConfigurator": NoConfigurator,
    "pre_instrument": _nothing,
    "post_instrument": _nothing,
}


def __getattr__(name: str) -> Any:
    """The object of an entry point."""
    if name not in _NOTHING:
        raise AttributeError(name)
    if _is_off():
        return _NOTHING[name]
    return getattr(importlib.import_module("otel_shim.distro"), name)


@functools.cache
def _is_off() -> bool:
    if os.environ.get(_DISABLED, "").strip().lower() == "true":
        return True
    path = os.environ.get(_CONFIG_FILE)
    return path is not None and _says_disabled(path)


def _says_disabled(path: str) -> bool:
    """Whether a file says so for sure; where it says so otherwise, it is found out when it is read."""
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123 - pathlib takes longer to import
            found = _SWITCH.search(file.read())
    except (OSError, ValueError):  # whoever reads all of it says what is wrong
        return False
    if found is None:
        return False
    variable, default, value = found.groups()
    text = value or os.environ.get(variable, default or "")
    return text.strip().lower() == "true"
