"""Where identity is found in a request: expressions, their grammar, and reading without side effects.

``kind:name.attribute.attribute``; kinds are ``dependency`` (the result of a FastAPI dependency, by
the name of its parameter or of its function), ``state`` (``request.state``), ``user``
(``scope["user"]``) and ``path`` (path parameters).
"""

from __future__ import annotations

import functools
import re
import types
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

KINDS = ("dependency", "state", "user", "path")
MAX_VALUE = 256
"""Longest identifier taken, in characters; a longer one is refused and counted."""
_MAX_BITS = 850  # 256 decimal digits; Python refuses to print very long integers
_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_EXPRESSION = re.compile(rf"(?P<kind>{'|'.join(KINDS)}):(?P<path>{_NAME}(?:\.{_NAME})*)")


class _Pair(NamedTuple):
    """Shows the type of a named tuple's field, which has no public name."""

    field: str


_REAL_DICT = (types.GetSetDescriptorType, types.MemberDescriptorType)
_TupleField = type(vars(_Pair)["field"])
_class_dict = vars(type)["__dict__"].__get__
_class_order = vars(type)["__mro__"].__get__
"""The attributes and the order of resolution of a class, past what its metaclass may do on the way."""


class SourceError(ValueError):
    """An expression cannot be parsed; the text names variable, expression and fix."""


@dataclass(frozen=True, slots=True)
class Source:
    """One place to look: ``path`` is read from what ``kind`` gives; ``rank`` orders the sources of a field."""

    field: str
    kind: str
    path: tuple[str, ...]
    rank: int

    def __str__(self) -> str:
        return f"{self.kind}:{'.'.join(self.path)}"


_USERS = ("current_user", "user", "get_current_user", "get_current_active_user", "auth_user")
_ORGS = ("current_org", "org", "organisation", "organization", "current_tenant", "tenant")
_ORG_IDS = (
    "org_id",
    "organisation_id",
    "organization_id",
    "tenant_id",
    "account_id",
    "company_id",
)
API_KEYS = ("current_api_key", "api_key", "get_api_key", "get_current_api_key")
"""Dependencies whose result is a machine's key: an object with an id, never the key itself."""


def _default(
    field: str, user: Iterable[str], org: Iterable[str] = (), key: Iterable[str] = ()
) -> str:
    users = [f"dependency:{name}.{path}" for name in _USERS for path in user]
    orgs = [f"dependency:{name}.{path}" for name in _ORGS for path in org]
    state = [f"state:user.{path}" for path in user] + [f"state:{o}.{p}" for o in _ORGS for p in org]
    scope = [f"user:{path}" for path in user]
    plain = ["state:org_id", "state:tenant_id"] if field == "org_id" else [f"state:{field}"]
    keys = [f"dependency:{name}.{path}" for name in API_KEYS for path in key]
    return ",".join(users + orgs + state + plain + scope + keys)


DEFAULTS: Mapping[str, str] = {
    "org_id": _default(
        "org_id",
        _ORG_IDS,
        ("id",),
        _ORG_IDS,
    ),
    "user_id": _default("user_id", ("id", "user_id", "sub"), key=("id", "key_id")),
    "actor_role": _default("actor_role", ("role",)),
    "plan": _default("plan", ("plan", "org_plan"), ("plan",)),
}
"""What an unconfigured application gets. Path parameters are not in it: they say what a caller asks
for, not who the caller is."""


def parse(field: str, text: str, variable: str) -> tuple[tuple[Source, ...], list[SourceError]]:
    """The sources a text lists, and an error for each expression in it that cannot be parsed."""
    sources: list[Source] = []
    errors: list[SourceError] = []
    for expression in filter(None, (part.strip() for part in text.split(","))):
        match = _EXPRESSION.fullmatch(expression)
        if match is None:
            errors.append(_error(variable, expression))
        else:
            path = tuple(match["path"].split("."))
            sources.append(Source(field, match["kind"], path, len(sources)))
    return tuple(sources), errors


def _error(variable: str, expression: str) -> SourceError:
    return SourceError(
        f"{variable}: cannot read {expression[:80]!r}; write <kind>:<name>[.<attribute>...] with kind "
        f"one of {', '.join(KINDS)}, for example dependency:current_user.org_id. "
        "This source is left out; the others are used."
    )


def read(value: Any, path: Iterable[str]) -> Any:
    """Follow attributes or keys through loaded state only; None where anything is absent.

    Nothing of the application runs: no property, no ``__getattr__``, no lazy ORM load. A mapped
    SQLAlchemy object keeps its loaded attributes in its ``__dict__``, where they are read.
    """
    for name in path:
        if value is None:
            return None
        value = _step(value, name)
    return value


def _step(value: Any, name: str) -> Any:
    kind = type(
        value
    )  # never isinstance(): it asks a proxy for its class, which may load its object
    if issubclass(kind, dict):
        return dict.get(value, name)
    loaded = _instance_dict(value, kind)
    if loaded is not None and name in loaded:
        return loaded[name]
    return _slot(value, kind, name)


def _instance_dict(value: Any, kind: type) -> dict[str, Any] | None:
    """The real ``__dict__`` of an object; None for one that has none, or computes it."""
    descriptor = _dict_descriptor(kind)
    found = descriptor.__get__(value) if descriptor is not None else None
    return found if type(found) is dict else None


@functools.lru_cache(maxsize=1024)
def _dict_descriptor(kind: type) -> Any:
    """What gives the ``__dict__`` of a class's objects, if it is the interpreter's own."""
    for cls in _class_order(kind):
        descriptor = _class_dict(cls).get("__dict__")
        if descriptor is not None:
            return descriptor if isinstance(descriptor, _REAL_DICT) else None
    return None


def _slot(value: Any, kind: type, name: str) -> Any:
    """A slot or named-tuple field, or a plain class attribute; anything computed is not read."""
    if _has_no(kind, name):
        return None
    for cls in _class_order(kind):
        attributes = _class_dict(cls)
        if name in attributes:
            found = attributes[name]
            if isinstance(found, types.MemberDescriptorType):
                return _loaded_slot(found, value)
            if type(found) is _TupleField:
                return found.__get__(value)
            return found if _identifies(found) else None
    return None


@functools.lru_cache(maxsize=4096)
def _has_no(kind: type, name: str) -> bool:
    """Whether neither a class nor one above it has something under a name, as most have not for most names."""
    return not any(name in _class_dict(cls) for cls in _class_order(kind))


def _loaded_slot(descriptor: types.MemberDescriptorType, value: Any) -> Any:
    try:
        return descriptor.__get__(value)
    except AttributeError:  # declared and not set
        return None


def canonical(value: Any) -> str | None:
    """An identifier as text, equal in every language; None for what is not one.

    Text as it is, integers in decimal, UUIDs hyphenated in lower case, enumerations by value.
    """
    if issubclass(type(value), Enum):
        value = value._value_
    text = _text(value) if _identifies(value) else None
    usable = text is not None and 0 < len(text) <= MAX_VALUE and text.isprintable()
    return text if usable else None


def _identifies(value: Any) -> bool:
    kind = type(value)
    return kind is not bool and issubclass(kind, (str, int, uuid.UUID, Enum))


def _text(value: Any) -> str | None:
    """The text of an identifier, without what a subclass may do on the way."""
    kind = type(value)
    if issubclass(kind, str):
        return str.__str__(value)
    if issubclass(kind, int):
        return int.__repr__(value) if int.bit_length(value) <= _MAX_BITS else None
    return uuid.UUID.__str__(value) if issubclass(kind, uuid.UUID) else None
