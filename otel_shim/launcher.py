"""Imported by `opentelemetry-instrument` in the process that starts the application, before anything is loaded.

Where several distros are installed and none is named, its loader takes whichever the file system lists
first. Here ours is named, so that every start is the same; a name that the operator set stays. The
loader reads modules of this group for their names only, hence the work at import.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

from opentelemetry.instrumentation import environment_variables as names
from opentelemetry.util._importlib_metadata import entry_points

_NAME = "otel_shim"


def choose(environ: MutableMapping[str, str]) -> None:
    """Name our distro where none is named, and our configurator where no other distro brings its own."""
    distro = environ.setdefault(names.OTEL_PYTHON_DISTRO, _NAME)
    installed = {entry_point.name for entry_point in entry_points(group="opentelemetry_distro")}
    if distro == _NAME or distro not in installed:
        environ.setdefault(names.OTEL_PYTHON_CONFIGURATOR, _NAME)


choose(os.environ)
