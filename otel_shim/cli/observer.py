"""The child process of the doctor: load for real, look, write what was seen as JSON.

Started as ``python -m otel_shim.cli.observer <file> [<module:attribute> <directory> <path>...]``. Exits without running the
SDK's exit handlers, so that nothing it made is exported.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import os
import platform
import stat
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from opentelemetry.instrumentation.environment_variables import (
    OTEL_PYTHON_CONFIGURATOR,
    OTEL_PYTHON_DISTRO,
)
from opentelemetry.sdk.environment_variables import OTEL_CONFIG_FILE

from otel_shim import config_file, pseudonym, wiring
from otel_shim.capture import patches
from otel_shim.cli import application, inspection, loader, trial
from otel_shim.cli.observation import ConfigFile, Key, Observation, Trial
from otel_shim.config import Config
from otel_shim.environment_variables import OTEL_SHIM_SECRET


def main(arguments: Sequence[str]) -> None:
    """Observe and write."""
    report, *named = arguments
    seen = observe(named)
    Path(report).write_text(json.dumps(dataclasses.asdict(seen)), "utf-8")
    sys.stdout.flush()
    os._exit(0)


def observe(named: Sequence[str]) -> Observation:
    """Load this process, import the application if one is named, and see.

    It is named by its target, the directory that its server goes to, and paths of modules.
    """
    asked = dict(os.environ)  # before a distro sets its defaults
    told = _told(asked)
    before = _secret_exists(told)
    import_module("otel_shim.launcher")  # makes the choice that opentelemetry-instrument makes
    record = loader.run()
    wired = wiring.wiring()
    app = application.load(named[0], named[1], named[2:]) if named else None
    return Observation(
        python=platform.python_version(),
        executable=sys.executable,
        disabled=not wired.active,
        service_name=inspection.service_name(),
        protobuf=_protobuf(),
        distro=loader.choice("opentelemetry_distro", asked.get(OTEL_PYTHON_DISTRO), record.distro),
        configurator=loader.choice(
            "opentelemetry_configurator", asked.get(OTEL_PYTHON_CONFIGURATOR), record.configurator
        ),
        key=_key(wired.settings, told, before),
        instrumentors=tuple(loader.instrumentors(record)),
        exporters=tuple(inspection.exporters()),
        handlers=tuple(inspection.handlers()),
        sources=tuple(f"{source.field} {source}" for source in wired.settings.sources),
        config_errors=wired.settings.errors,
        log=tuple(record.log),
        config_file=_config_file(asked.get(OTEL_CONFIG_FILE), record),
        app=app,
        absent=_absent(),
        trial=Trial() if not wired.active else trial.attempt(),
    )


def _protobuf() -> str:
    try:
        implementation: Any = import_module("google.protobuf.internal.api_implementation")
    except ImportError:
        return ""
    return str(implementation.Type())


def _told(asked: dict[str, str]) -> dict[str, str]:
    """What the operator set, with the configuration file's own keys."""
    if not (path := asked.get(OTEL_CONFIG_FILE)):
        return asked
    try:
        return {**asked, **config_file.read(path).variables}
    except config_file.ConfigFileError:  # loading says what is wrong with it
        return asked


def _absent() -> tuple[str, ...]:
    """What is not there to be captured: the libraries are imported for that, as the application would."""
    for module in patches.waiting():
        with contextlib.suppress(
            Exception
        ):  # not installed, or not importable without the application
            if importlib.util.find_spec(module.partition(".")[0]) is not None:
                import_module(module)
    return patches.absent()


def _secret_exists(environ: dict[str, str]) -> bool:
    try:
        return (pseudonym.state_directory(environ) / "secret").exists()
    except (OSError, RuntimeError):
        return False


def _key(settings: Config, environ: dict[str, str], before: bool) -> Key:
    if settings.user_identity == "clear":
        return Key("unneeded")
    state, where = _place(settings, environ)
    try:
        pseudonym.secret_of(settings, environ)
        path = Path(where) / "secret" if state == "host" else Path(where)
        mode = "" if state == "given" else f"{stat.S_IMODE(path.stat().st_mode):04o}"
        return Key(state, where, mode, made=state == "host" and not before)
    except (OSError, pseudonym.SecretError) as error:
        return Key("unusable", where, problem=str(error))


def _place(settings: Config, environ: dict[str, str]) -> tuple[str, str]:
    if settings.secret is not None:
        return "given", OTEL_SHIM_SECRET
    if settings.secret_file is not None:
        return "file", settings.secret_file
    return "host", str(pseudonym.state_directory(environ))


def _config_file(path: str | None, record: loader.Record) -> ConfigFile | None:
    """What loading said about the declarative configuration."""
    if not path:
        return None
    said = [f"{line.message} {line.error}" for line in record.log if line.level == "ERROR"]
    problem = next((text for text in said if OTEL_CONFIG_FILE in text), "")
    said_of_it = problem.removeprefix(f"{OTEL_CONFIG_FILE}={path}").strip()
    return ConfigFile(
        path, said_of_it, getattr(wiring.wiring().declared, "disabled", False) is True
    )


if __name__ == "__main__":
    main(sys.argv[1:])
