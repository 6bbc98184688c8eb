"""Wrapping functions of libraries when the application imports them, and taking the wrappers off."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

import wrapt

from otel_shim._guard import guarded

Wrapper = Callable[[Any, Any, tuple[Any, ...], dict[str, Any]], Any]
"""Takes the wrapped function, what it is bound to, and the arguments."""


class Patches:
    """Wrappers that go on when their module is imported, and come off together.

    What a version of a library does not have is left out.
    """

    def __init__(self) -> None:
        self._wanted = True
        self._undo: list[Callable[[], None]] = []

    def when_imported(self, module: str, name: str, wrapper: Wrapper, *aliases: str) -> None:
        """Wrap an attribute (``name`` or ``Class.name``) of a module, and its aliases with it."""

        @guarded(default=None)
        def imported(found: Any) -> None:
            if self._wanted:
                self._wrap(found, name, wrapper, aliases)

        self._at_import(module, imported)

    def replace_when_imported(self, module: str, name: str, replacement: Any) -> None:
        """Put a plain function in the place of a module's: where it is pickled, a wrapper cannot be."""

        @guarded(default=None)
        def imported(found: Any) -> None:
            original = getattr(found, name, None)
            if self._wanted and original is not None:
                setattr(found, name, replacement)
                self._undo.append(_restoring(found, name, original))

        self._at_import(module, imported)

    def do_when_imported(self, module: str, action: Callable[[Any], None]) -> None:
        """Do something with a module when it is imported, unless the wrappers were taken off before."""

        @guarded(default=None)
        def imported(found: Any) -> None:
            if self._wanted:
                action(found)

        self._at_import(module, imported)

    def _at_import(self, module: str, imported: Callable[[Any], None]) -> None:
        if module in sys.modules:
            imported(importlib.import_module(module))
        else:
            wrapt.register_post_import_hook(imported, module)

    def remove(self) -> None:
        """Take every wrapper off, and put none on any more."""
        self._wanted = False
        while self._undo:
            self._undo.pop()()

    def _wrap(self, module: Any, name: str, wrapper: Wrapper, aliases: tuple[str, ...]) -> None:
        owner, attribute = _owner(module, name)
        original = vars(owner).get(attribute) if owner is not None else None
        if original is None:
            return
        wrapped = wrapt.FunctionWrapper(original, wrapper)
        for each in (attribute, *aliases):
            if vars(owner).get(each) is original:
                setattr(owner, each, wrapped)
                self._undo.append(_restoring(owner, each, original))


def _owner(module: Any, name: str) -> tuple[Any, str]:
    """What holds an attribute: the module or one of its classes; None where that is not there."""
    holder, _, attribute = name.rpartition(".")
    return (getattr(module, holder, None) if holder else module), attribute


def _restoring(owner: Any, name: str, original: Any) -> Callable[[], None]:
    return lambda: setattr(owner, name, original)
