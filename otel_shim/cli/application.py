"""The application that a command starts: found in the command line, and imported as its server would."""

from __future__ import annotations

import importlib
import os
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Any

from otel_shim.cli.observation import App

SERVERS = ("uvicorn", "gunicorn", "hypercorn", "granian", "fastapi")
_TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*(\(\))?")


def server_of(command: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """The server of a command and its arguments; both empty where none is known.

    Understands ``opentelemetry-instrument uvicorn ...`` and ``python -m uvicorn ...`` too.
    """
    for position, word in enumerate(command):
        if PurePath(word).name in SERVERS:
            return PurePath(word).name, tuple(command[position + 1 :])
    return "", ()


def target_of(command: Sequence[str]) -> str | None:
    """The ``module:attribute`` that a server is told to serve."""
    _, arguments = server_of(command)
    return next((word for word in arguments if _TARGET.fullmatch(word)), None)


def load(target: str) -> App:
    """Import an application and look at its dependencies; what it raises becomes the problem."""
    module, _, path = target.partition(":")
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 - servers do the same
    try:
        app: Any = importlib.import_module(module)
        for name in path.removesuffix("()").split("."):
            app = getattr(app, name)
        made = app() if path.endswith("()") else app
    except BaseException as error:  # noqa: BLE001 - also SystemExit: the doctor must live to tell
        return App(target, _where(error))
    return App(target, dependencies=tuple(sorted(set(_names(made)))))


def _where(error: BaseException) -> str:
    """The kind of an error and its place; its message may hold secrets, such as a database's address."""
    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-1] if frames else None
    place = f" at {PurePath(last.filename).name}:{last.lineno}" if last is not None else ""
    return f"{type(error).__name__}{place}"


def _names(app: Any) -> Iterator[str]:
    for route in getattr(app, "routes", ()):
        yield from _of_dependant(getattr(route, "dependant", None))
        if getattr(route, "app", None) is not app:
            yield from _names(getattr(route, "app", None))


def _of_dependant(dependant: Any) -> Iterator[str]:
    for dependency in getattr(dependant, "dependencies", ()):
        names = (dependency.name, getattr(dependency.call, "__name__", None))
        yield from filter(None, names)
        yield from _of_dependant(dependency)
