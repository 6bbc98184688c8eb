"""The application that a command starts, imported as its server would, and what it depends on."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Any

from otel_shim.cli.observation import App


def load(target: str, folder: str = "", paths: Sequence[str] = ()) -> App:
    """Import an application and look at its dependencies; what it raises becomes the problem.

    ``folder`` is where its server goes first, ``paths`` are where it looks for modules besides.
    """
    module, _, path = target.partition(":")
    before = os.getcwd()  # noqa: PTH109 - for what the doctor looks at next
    try:
        _go(folder, paths)
        app: Any = importlib.import_module(module)
        for name in path.removesuffix("()").split("."):
            app = getattr(app, name)
        made = app() if path.endswith("()") else app
    except BaseException as error:  # noqa: BLE001 - also SystemExit: the doctor must live to tell
        return App(target, _where(error))
    finally:
        os.chdir(before)
    return App(target, dependencies=tuple(sorted(set(_names(made, {})))))


def _go(folder: str, paths: Sequence[str]) -> None:
    if folder:
        os.chdir(folder)
    here = os.getcwd()  # noqa: PTH109 - servers do the same
    sys.path[:0] = [*(os.path.abspath(path) for path in paths), here]  # noqa: PTH100 - likewise


def _where(error: BaseException) -> str:
    """The kind of an error and its place; its message may hold secrets, such as a database's address."""
    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-1] if frames else None
    place = f" at {PurePath(last.filename).name}:{last.lineno}" if last is not None else ""
    return f"{type(error).__name__}{place}"


def _names(node: Any, seen: dict[int, Any]) -> Iterator[str]:
    """The names of the dependencies of an application, a route, or a router that was included."""
    if node is None or id(node) in seen:
        return
    seen[id(node)] = node
    yield from _of_dependant(getattr(node, "dependant", None))
    for part in _parts(node):
        yield from _names(part, seen)


def _parts(node: Any) -> Iterator[Any]:
    """What is below: routes, what is mounted, and what FastAPI makes of an included router.

    An older FastAPI copies the routes of a router; from 0.137 on the router stays one route, which knows
    its own with the dependencies of all that includes them.
    """
    yield from getattr(node, "routes", None) or ()
    yield getattr(node, "app", None)
    included = getattr(node, "effective_route_contexts", None)
    yield from included() if included is not None else ()
    yield getattr(node, "starlette_route", None)


def _of_dependant(dependant: Any) -> Iterator[str]:
    for dependency in getattr(dependant, "dependencies", ()):
        names = (dependency.name, getattr(dependency.call, "__name__", None))
        yield from filter(None, names)
        yield from _of_dependant(dependency)
