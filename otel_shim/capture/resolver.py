"""Identity from a request's own state: configured sources, each read when its value is there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any

from otel_shim import binding, context, sources
from otel_shim._guard import guarded, logger
from otel_shim.sources import Source


class Resolver:
    """The sources of a process, by where they look."""

    def __init__(self, configured: Iterable[Source]) -> None:
        self._reported: set[Source] = set()
        self.dependencies: dict[str, list[Source]] = {}
        self.by_kind: dict[str, list[Source]] = {"state": [], "user": [], "path": []}
        for source in configured:
            if source.kind == "dependency":
                self.dependencies.setdefault(source.path[0], []).append(source)
            else:
                self.by_kind[source.kind].append(source)

    def report(self, source: Source) -> None:
        """Log once which source matched."""
        if source not in self._reported:
            self._reported.add(source)
            logger.info("%s is taken from %s", source.field, source)


class Resolution:
    """What the sources gave for one request so far; the better ranked source of a field wins."""

    __slots__ = ("_inbound", "_ranks", "_resolver", "_scope")

    def __init__(
        self, resolver: Resolver, inbound: context.Inbound, scope: MutableMapping[str, Any]
    ) -> None:
        self._resolver = resolver
        self._inbound = inbound
        self._scope = scope
        self._ranks: dict[str, int] = {}

    @guarded(default=None)
    def solved(self, names: Iterable[str], value: Any) -> None:
        """Take what a solved dependency says, by the names under which it is known."""
        found = {
            source: sources.read(value, source.path[1:])
            for name in names
            for source in self._resolver.dependencies.get(name, ())
        }
        self._take(found)

    @guarded(default=None)
    def from_scope(self, path: bool = False) -> None:
        """Take what middleware left in ``request.state`` and ``scope["user"]``.

        With ``path``, also what the path says: once authentication let the request through.
        """
        found = dict(self._read("state")) if self._scope.get("state") else {}
        if self._scope.get("user") is not None:
            found |= self._read("user")
        if path and self._scope.get("path_params"):
            found |= self._read("path")
        self._take(found)

    def _read(self, kind: str) -> Mapping[Source, Any]:
        start = self._scope["path_params" if kind == "path" else kind]
        return {s: sources.read(start, s.path) for s in self._resolver.by_kind[kind]}

    def _take(self, found: Mapping[Source, Any]) -> None:
        best: dict[str, tuple[Source, str]] = {}
        for source, value in sorted(found.items(), key=lambda item: item[0].rank):
            text = sources.canonical(value)
            if text is not None and source.field not in best and self._better(source):
                best[source.field] = (source, text)
        if best:
            self._apply(best)

    def _better(self, source: Source) -> bool:
        return source.rank < self._ranks.get(source.field, 1 << 30)

    def _apply(self, best: Mapping[str, tuple[Source, str]]) -> None:
        root = self._inbound.root
        if root is None:
            return
        for field, (source, _) in best.items():
            self._ranks[field] = source.rank
            self._resolver.report(source)
        binding.apply_sourced(root, {field: text for field, (_, text) in best.items()})
