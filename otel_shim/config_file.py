"""What ``OTEL_CONFIG_FILE`` says to the shim; the SDK applies the rest of the file itself.

Own keys stand under ``distribution.otel_shim``; instrumentors may be switched off.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from otel_shim import environment_variables

_PREFIX = "OTEL_SHIM_"
_PARSER_LOG = logging.getLogger("opentelemetry.configuration.file._loader")
"""Logs a traceback for what it raises; the one error of ours says it."""
_KNOWN = frozenset(name for name in vars(environment_variables) if name.startswith(_PREFIX))

_NAMES_ONLY = ("additionalProperties", "required", "unevaluatedProperties")
"""Rules of a schema whose violations are told by names of keys alone."""


class ConfigFileError(ValueError):
    """The file cannot be used; the text says why and what happens instead."""


@dataclass(frozen=True)
class FileSettings:
    """A configuration file, and the part of it that is ours."""

    variables: Mapping[str, str] = field(default_factory=dict)
    """Own keys, as the environment variables they stand for."""
    disabled: frozenset[str] = frozenset()
    """Instrumentors with ``enabled: false``."""
    errors: tuple[str, ...] = ()
    model: Any = field(default=None, repr=False, compare=False)
    """All that the file says, as the SDK reads it."""
    off: bool = False
    """Whether it says ``disabled: true``."""


def read(path: str) -> FileSettings:
    """Read our part of a file; raises ConfigFileError where it cannot be read or is no valid configuration."""
    try:
        # Optional: only who sets OTEL_CONFIG_FILE needs the package.
        from opentelemetry.configuration import load_config_file  # noqa: PLC0415

        _PARSER_LOG.disabled = True
        model = load_config_file(path)
    except ImportError as error:
        raise ConfigFileError(
            f"install otel-shim with its extra `config-file` ({error})"
        ) from error
    except Exception as error:
        raise ConfigFileError(f"{type(error).__name__}: {_without_values(error)}") from error
    finally:
        _PARSER_LOG.disabled = False
    own = _section(model.distribution, "otel_shim")
    ours = from_sections(own, _python(model.instrumentation_development))
    return replace(ours, model=model, off=model.disabled is True)


def _without_values(error: Exception) -> str:
    """What is wrong with a file, and where, without what it says there: that may be a password.

    The libraries that read it quote it; told by what their errors have, because they are optional.
    """
    cause: Any = error.__cause__
    if (mark := getattr(cause, "problem_mark", None)) is not None:
        return f"no YAML, line {mark.line + 1}: {cause.problem}"
    if hasattr(cause, "validator") and hasattr(cause, "absolute_path"):
        at = " -> ".join(map(str, cause.absolute_path)) or "the whole"
        wrong = cause.message if cause.validator in _NAMES_ONLY else _needed(cause)
        return f"does not match the schema: {wrong} (at {at})"
    return str(error)


def _needed(cause: Any) -> str:
    """What the schema asks for there, where that is short."""
    asked = cause.validator_value
    plain = isinstance(asked, (str, int, float)) or all(isinstance(each, str) for each in asked)
    return f"needs {cause.validator}" + (f" {asked}" if plain else "")


def from_sections(own: Mapping[str, Any], instrumentation: Mapping[str, Any]) -> FileSettings:
    """Our settings from the two sections of a file."""
    named = {f"{_PREFIX}{key.upper()}": value for key, value in own.items()}
    unknown = sorted(name.removeprefix(_PREFIX).lower() for name in named.keys() - _KNOWN)
    known = ", ".join(sorted(name.removeprefix(_PREFIX).lower() for name in _KNOWN))
    return FileSettings(
        variables={name: _text(value) for name, value in named.items() if name in _KNOWN},
        disabled=frozenset(name for name, options in instrumentation.items() if _is_off(options)),
        errors=tuple(
            f"distribution.otel_shim.{key} is not known; write one of {known}" for key in unknown
        ),
    )


def _section(sections: object, name: str) -> Mapping[str, Any]:
    section = sections.get(name) if isinstance(sections, Mapping) else None
    return section if isinstance(section, Mapping) else {}


def _python(instrumentation: Any) -> Mapping[str, Any]:
    options = getattr(instrumentation, "python", None)
    return options if isinstance(options, Mapping) else {}


def _is_off(options: object) -> bool:
    return isinstance(options, Mapping) and options.get("enabled") is False


def _text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
