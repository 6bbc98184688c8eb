"""What this process is told: the environment and the configuration file, read once."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace

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
    environ: Mapping[str, str] = os.environ
    file = FileSettings()
    if path := environ.get(OTEL_CONFIG_FILE):
        file = _read_file(path)
    disabled = environ.get(OTEL_PYTHON_DISABLED_INSTRUMENTATIONS, "").split(",")
    settings = config.from_environ({**environ, **file.variables})
    return Wiring(
        settings=replace(settings, errors=settings.errors + file.errors),
        disabled=(file.disabled | {name.strip() for name in disabled}) - {""},
        active=environ.get(OTEL_SDK_DISABLED, "").strip().lower() != "true",
    )


def _read_file(path: str) -> FileSettings:
    """Our part of the file. Without a usable one the SDK is configured from the environment instead."""
    try:
        return config_file.read(path)
    except config_file.ConfigFileError as error:
        del os.environ[OTEL_CONFIG_FILE]
        message = f"{OTEL_CONFIG_FILE}={path} is left out, the environment is used instead: {error}"
        return FileSettings(errors=(message,))
