"""Imported by `opentelemetry-instrument` in the process that starts the application, before anything is loaded.

Where several distros are installed and none is named, its loader takes whichever the file system lists
first. Here ours is named, so that every start is the same; a name that the operator set stays. The
loader reads modules of this group for their names only, hence the work at import.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

from opentelemetry.instrumentation import environment_variables as names
from opentelemetry.util._importlib_metadata import EntryPoint, entry_points

_NAME = "otel_shim"


def choose(environ: MutableMapping[str, str]) -> None:
    """Name our distro where none is named, and the configurator that comes with the distro."""
    distro = environ.setdefault(names.OTEL_PYTHON_DISTRO, _NAME)
    configurator = _configurator_of(distro)
    if configurator is not None:
        environ.setdefault(names.OTEL_PYTHON_CONFIGURATOR, configurator)


def _configurator_of(distro: str) -> str | None:
    """The configurator from the package of a distro; ours where that is not installed.

    None where the package brings no configurator, or several.
    """
    packages = {_package(e) for e in entry_points(group="opentelemetry_distro") if e.name == distro}
    if not packages:
        return _NAME
    configurators = entry_points(group="opentelemetry_configurator")
    found = {each.name for each in configurators if _package(each) in packages}
    return found.pop() if len(found) == 1 else None


def _package(entry_point: EntryPoint) -> str:
    dist = entry_point.dist
    return str(dist.metadata["Name"]) if dist is not None else ""


choose(os.environ)
