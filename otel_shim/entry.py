"""What OpenTelemetry's loader asks for by name: the real thing, or next to nothing.

With ``OTEL_SDK_DISABLED`` neither the SDK nor any capture or instrumentor is imported, so that the
switch costs nothing.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

from opentelemetry.instrumentation.distro import BaseDistro  # type: ignore[attr-defined]
from opentelemetry.util._importlib_metadata import EntryPoint

_DISABLED = "OTEL_SDK_DISABLED"  # its constant is in the SDK, which is not to be imported here


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
    if os.environ.get(_DISABLED, "").strip().lower() == "true":
        return _NOTHING[name]
    return getattr(importlib.import_module("otel_shim.distro"), name)
