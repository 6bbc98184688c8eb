"""What this process is told: the environment and the configuration file, read once."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from opentelemetry.instrumentation.environment_variables import (
    OTEL_PYTHON_DISABLED_INSTRUMENTATIONS,
)
from opentelemetry.sdk.environment_variables import OTEL_CONFIG_FILE, OTEL_SDK_DISABLED

from otel_shim import config, config_file
from otel_shim.capture import fastapi
from otel_shim.config import Config
from otel_shim.config_file import FileSettings

NAME = "otel_shim"
"""The name of our distro and configurator."""


@dataclass(frozen=True)
class Wiring:
    """What this process is told: the settings, and which instrumentors are switched off."""

    settings: Config
    disabled: frozenset[str]
    active: bool
    declared: Any = None
    """What the configuration file says to the SDK; None where there is no usable file."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """What it says to the shim, as the variables for that."""

    def takes(self, name: str, module: str = "") -> bool:
        """Whether our capture, or the framework's own telemetry, does the work of an instrumentor.

        One of ours may have the name of the official one that it takes the place of, so that it is
        switched off by the same; it is told apart by its module.
        """
        if module.startswith("otel_shim."):
            return False
        ours = ("celery", "sqlalchemy", "logging", "starlette")
        return name in ours or (name == "fastapi" and fastapi.has_own_telemetry())

    def wants(self, name: str) -> bool:
        """Whether a library is to be traced at all; one without a name is not switched off by it."""
        return self.active and not self.disabled & {name, "*"}


@functools.cache
def wiring() -> Wiring:
    """Read the environment and the configuration file, once."""
    file = FileSettings()
    if path := os.environ.get(OTEL_CONFIG_FILE):
        file = _read_file(path)
    disabled = os.environ.get(OTEL_PYTHON_DISABLED_INSTRUMENTATIONS, "").split(",")
    settings = config.from_environ({**os.environ, **file.variables})
    return Wiring(
        settings=replace(settings, errors=settings.errors + file.errors),
        disabled=(file.disabled | {name.strip() for name in disabled}) - {""},
        active=not (_is_true(os.environ.get(OTEL_SDK_DISABLED, "")) or file.off),
        declared=file.model,
        variables=file.variables,
    )


def environ() -> Mapping[str, str]:
    """The environment of the moment with the configuration file's own keys, which win."""
    return {**os.environ, **wiring().variables}


def _is_true(text: str) -> bool:
    return text.strip().lower() == "true"


def _read_file(path: str) -> FileSettings:
    """Our part of the file. Without a usable one the SDK is configured from the environment instead."""
    try:
        return config_file.read(path)
    except config_file.ConfigFileError as error:
        del os.environ[OTEL_CONFIG_FILE]
        message = f"{OTEL_CONFIG_FILE}={path} is left out, the environment is used instead: {error}"
        return FileSettings(errors=(message,))
