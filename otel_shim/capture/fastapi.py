"""FastAPI: its own telemetry, our wrapper around each application, identity from dependencies."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import wrapt
from packaging.version import Version

from otel_shim._guard import guarded, logger
from otel_shim.capture import http_settings
from otel_shim.capture.asgi import RESOLUTION, Capture
from otel_shim.capture.resolver import Resolution, Resolver
from otel_shim.capture.server_span import server_spans

_OWN_TELEMETRY = Version("0.142")
_MAX_ROUTES = 10_000
"""Routes whose names are remembered; beyond that, routes are made on the fly and remembering is a leak."""
_Names = dict[Callable[..., Any], frozenset[str]]


def install(capture: Capture | None, resolver: Resolver) -> None:
    """Take FastAPI in when the application imports it; importing it is left to the application.

    Without a capture FastAPI is not to be traced, and its own telemetry is off.
    """
    if capture is None:
        off = {"tracing": False, "metrics": False, "logs": False}
        wrapt.register_post_import_hook(
            lambda module: _default_telemetry(module.FastAPI, off), "fastapi.applications"
        )
        return
    wrapt.register_post_import_hook(
        lambda module: _wrap_app(module, capture), "fastapi.applications"
    )
    wrapt.register_post_import_hook(
        lambda module: _watch_solver(module, resolver), "fastapi.routing"
    )


def has_own_telemetry() -> bool:
    """Whether the installed FastAPI traces itself (0.142 and later)."""
    try:
        return Version(version("fastapi")) >= _OWN_TELEMETRY
    except PackageNotFoundError:
        return False


@guarded(default=None)
def _wrap_app(module: Any, capture: Capture) -> None:
    app = module.FastAPI
    handle = app.__call__
    spans = server_spans() if has_own_telemetry() else None
    excluded = http_settings.excluded("FASTAPI")

    async def call(self: Any, scope: Any, receive: Any, send: Any) -> None:
        inner = functools.partial(handle, self)
        if excluded is not None and capture.passes_by(scope, excluded):
            await capture.pass_by(inner, scope, receive, send)
            return
        start = functools.partial(spans.start, self) if spans is not None else None
        await capture.handle(inner, scope, receive, send, start)

    app.__call__ = functools.wraps(handle)(call)
    # One server span a request: those of dependencies, endpoint and the like only where asked for.
    # Its metrics know no role, plan or operation: ours take their place.
    _default_telemetry(app, {"operation_spans": False, "metrics": False})


@guarded(default=None)
def _default_telemetry(app: Any, defaults: dict[str, bool]) -> None:
    """Set defaults for FastAPI's own telemetry, where the installed one has it."""
    initialise = app.__init__
    if "telemetry" not in inspect.signature(initialise).parameters:
        return

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        kwargs["telemetry"] = {**defaults, **(kwargs.get("telemetry") or {})}
        initialise(self, *args, **kwargs)

    app.__init__ = functools.wraps(initialise)(init)


@guarded(default=None)
def _watch_solver(module: Any, resolver: Resolver) -> None:
    """Look at each dependency as it is solved, through the cache that the solver fills.

    The solver puts every result into the cache it is given, nested, router-level and decorator-level
    ones included, before the next dependency runs; so what was solved before a 401 or 403 counts.
    """
    solve = module.solve_dependencies
    if "dependency_cache" not in inspect.signature(solve).parameters:
        logger.warning(
            "this FastAPI has no dependency cache; identity comes from bind() and state only"
        )
        return
    watched = _WatchedNames(resolver)

    def solve_watched(*args: Any, **kwargs: Any) -> Awaitable[Any]:
        resolution = _watching(kwargs, watched, bool(resolver.path))
        solving: Awaitable[Any] = solve(*args, **kwargs)
        return solving if resolution is None else _look_again(resolution, solving)

    module.solve_dependencies = functools.wraps(solve)(solve_watched)


@guarded(default=None)
def _watching(kwargs: dict[str, Any], watched: _WatchedNames, paths: bool) -> Resolution | None:
    """Look at what is there before the solver runs; the resolution that is to look again afterwards."""
    scope = kwargs["request"].scope
    found = scope.get(RESOLUTION)
    if not isinstance(found, Resolution) or "dependant" not in kwargs:
        return None
    found.follow(scope)
    if kwargs.get("dependency_cache") is not None:
        return None
    found.from_scope()
    names = watched.of(kwargs["dependant"])
    if names:
        kwargs["dependency_cache"] = _Results(found, names)
    # Without dependencies nothing of the application runs, so nothing can be new afterwards.
    return found if paths or kwargs["dependant"].dependencies else None


async def _look_again(resolution: Resolution, solving: Awaitable[Any]) -> Any:
    solved = await solving
    if not getattr(solved, "errors", None):
        resolution.from_scope(path=True)
    return solved


class _Results(dict[Any, Any]):
    """The solver's cache, which tells the resolution about results with a name that a source knows."""

    def __init__(self, resolution: Resolution, names: _Names) -> None:
        super().__init__()
        self._resolution = resolution
        self._names = names

    def __bool__(self) -> bool:
        """True also when empty: older FastAPI replaces a falsy cache with one of its own."""
        return True

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, value)
        names = self._names.get(key[0]) if isinstance(key, tuple) and key else None
        if names:
            self._resolution.solved(names, value)


class _WatchedNames:
    """For each route: the callables whose results a source may read, with the names they go by."""

    def __init__(self, resolver: Resolver) -> None:
        self._known = resolver.dependencies
        self._by_dependant: dict[int, tuple[Any, _Names]] = {}

    def of(self, dependant: Any) -> _Names:
        """The names for a route's dependant, worked out once for each."""
        cached = self._by_dependant.get(id(dependant))
        if cached is not None and cached[0] is dependant:
            return cached[1]
        names = self._collect(dependant)
        if len(self._by_dependant) >= _MAX_ROUTES:
            self._by_dependant.clear()
        self._by_dependant[id(dependant)] = (dependant, names)
        return names

    def _collect(self, dependant: Any) -> _Names:
        names: dict[Callable[..., Any], frozenset[str]] = {}
        for call, parameter in _dependencies(dependant):
            known = {n for n in (parameter, getattr(call, "__name__", None)) if n in self._known}
            if known:
                names[call] = names.get(call, frozenset()) | known
        return names


def _dependencies(dependant: Any) -> Iterator[tuple[Callable[..., Any], str | None]]:
    for dependency in dependant.dependencies:
        if dependency.call is not None:
            yield dependency.call, dependency.name
        yield from _dependencies(dependency)
