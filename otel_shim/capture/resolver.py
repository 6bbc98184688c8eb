"""Identity from a request's own state: configured sources, each read when its value is there."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, MutableMapping
from typing import Any

from opentelemetry.sdk.trace import Span

from otel_shim import _semconv as semconv
from otel_shim import binding, context, sources
from otel_shim._guard import guarded, logger
from otel_shim.sources import Source

_KEYS = {"state": "state", "user": "user", "path": "path_params"}
"""Where in the ASGI scope each kind of source looks."""


class Resolver:
    """The sources of a process, by where they look."""

    def __init__(self, configured: Iterable[Source]) -> None:
        self._sources = sorted(configured, key=lambda source: source.rank)
        self._reported: set[int] = set()
        self._dependencies: dict[frozenset[str], tuple[Source, ...]] = {}
        self._kinds: dict[frozenset[str], tuple[Source, ...]] = {}
        self.dependencies = self.names("dependency")
        self.state = self.names("state")
        self.path = self.names("path")

    def names(self, kind: str) -> frozenset[str]:
        """The names with which the sources of a kind begin."""
        return frozenset(source.path[0] for source in self._sources if source.kind == kind)

    def of_dependency(self, names: frozenset[str]) -> tuple[Source, ...]:
        """The sources that look at a dependency known by these names, the best ranked first."""
        found = self._dependencies.get(names)
        if found is None:
            found = tuple(s for s in self._of_kinds({"dependency"}) if s.path[0] in names)
            self._dependencies[names] = found
        return found

    def of_kinds(self, kinds: frozenset[str]) -> tuple[Source, ...]:
        """The sources of these kinds, the best ranked first."""
        found = self._kinds.get(kinds)
        if found is None:
            found = self._kinds[kinds] = tuple(self._of_kinds(kinds))
        return found

    def _of_kinds(self, kinds: Collection[str]) -> Iterator[Source]:
        return (source for source in self._sources if source.kind in kinds)

    def report(self, source: Source) -> None:
        """Log once which source matched."""
        if id(source) not in self._reported:
            self._reported.add(id(source))
            logger.info("%s is taken from %s", source.field, source)


class Resolution:
    """What the sources gave for one request so far; the better ranked source of a field wins."""

    __slots__ = ("_ranks", "_resolver", "_scope", "inbound")

    def __init__(
        self, resolver: Resolver, inbound: context.Inbound, scope: MutableMapping[str, Any]
    ) -> None:
        self._resolver = resolver
        self.inbound = inbound
        self._scope = scope
        self._ranks: dict[str, int] = {}

    def follow(self, scope: MutableMapping[str, Any]) -> None:
        """Look into this scope from now on: middleware may have handed on a copy of the server's."""
        self._scope = scope

    def span(self) -> Span | None:
        """The request's server span, while it is there."""
        root = self.inbound.root
        return root.span() if root is not None else None

    @guarded(default=None)
    def solved(self, names: frozenset[str], value: Any) -> None:
        """Take what a solved dependency says, by the names under which it is known."""
        found = self._resolver.of_dependency(names)
        self._take((source, value, source.path[1:]) for source in found)

    @guarded(default=None)
    def from_scope(self, path: bool = False) -> None:
        """Take what middleware left in ``request.state`` and ``scope["user"]``.

        With ``path``, also what the path says: once authentication let the request through.
        """
        scope = self._scope
        path = path and bool(self._resolver.path)
        if not (path or scope.get("state") or scope.get("user") is not None):
            return  # as it is most of the time
        kinds = self._present(path)
        if kinds:
            found = self._resolver.of_kinds(frozenset(kinds))
            self._take((source, self._scope[_KEYS[source.kind]], source.path) for source in found)

    def _present(self, path: bool) -> list[str]:
        """The kinds for which the scope has something that a source may read."""
        state = self._scope.get("state")
        foreign = isinstance(state, dict) and self._resolver.state.isdisjoint(state)
        kinds = ["state"] if state and not foreign else []
        if self._scope.get("user") is not None:
            kinds.append("user")
        if path and self._scope.get("path_params"):
            kinds.append("path")
        return kinds

    def _take(self, readable: Iterable[tuple[Source, Any, tuple[str, ...]]]) -> None:
        """Take for each field the first value that is there; the best ranked sources come first."""
        best: dict[str, tuple[Source, str]] = {}
        for source, start, path in readable:
            if source.field not in best and self._better(source):
                text = sources.canonical(sources.read(start, path))
                if text is not None:
                    best[source.field] = (source, text)
        if best:
            self._apply(best)

    def _better(self, source: Source) -> bool:
        return source.rank < self._ranks.get(source.field, 1 << 30)

    def _apply(self, best: Mapping[str, tuple[Source, str]]) -> None:
        root = self.inbound.root
        if root is None or not self.inbound.open:
            return
        for field, (source, _) in best.items():
            self._ranks[field] = source.rank
            self._resolver.report(source)
        values = {field: text for field, (_, text) in best.items()}
        if actor := best.get("user_id"):
            values["actor_type"] = _actor_type(actor[0])
        binding.apply_sourced(root, values)


def _actor_type(source: Source) -> str:
    """Whether a source of the actor's id speaks of a person or of a machine."""
    machine = source.kind == "dependency" and source.path[0] in sources.API_KEYS
    return semconv.SAAS_ACTOR_TYPE_API_KEY if machine else semconv.SAAS_ACTOR_TYPE_USER
