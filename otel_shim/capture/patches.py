"""Wrapping functions of libraries when the application imports them, and taking the wrappers off."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import wrapt

from otel_shim import counters
from otel_shim._guard import guarded, logger

Wrapper = Callable[[Any, Any, tuple[Any, ...], dict[str, Any]], Any]
"""Takes the wrapped function, what it is bound to, and the arguments."""


class Patches:
    """Wrappers that go on when their module is imported, and come off together.

    What a version of a library does not have is left out, and said.
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
            if self._wanted and name not in vars(found):
                _note_absent(module, name)
            elif self._wanted:
                self._undo.append(_restoring(found, name))
                setattr(found, name, replacement)

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
            _waiting[module] = None
            wrapt.register_post_import_hook(imported, module)

    def remove(self) -> None:
        """Take every wrapper off, and put none on any more."""
        self._wanted = False
        while self._undo:
            self._undo.pop()()

    def _wrap(self, module: Any, name: str, wrapper: Wrapper, aliases: tuple[str, ...]) -> None:
        owner, attribute = _owner(module, name)
        original = inspect.getattr_static(owner, attribute, None) if owner is not None else None
        if original is None:
            _note_absent(module.__name__, name)
            return
        wrapped = wrapt.FunctionWrapper(original, wrapper)
        for each in (attribute, *aliases):
            if inspect.getattr_static(owner, each, None) is original:
                undo = _restoring(owner, each)
                setattr(owner, each, wrapped)
                self._undo.append(undo)


def _owner(module: Any, name: str) -> tuple[Any, str]:
    """What holds an attribute: the module or one of its classes; None where that is not there."""
    holder, _, attribute = name.rpartition(".")
    return (getattr(module, holder, None) if holder else module), attribute


def _restoring(owner: Any, name: str) -> Callable[[], None]:
    """What brings an attribute back as it is now: its owner's, or only inherited."""
    if name in vars(owner):
        return partial(setattr, owner, name, vars(owner)[name])
    return partial(delattr, owner, name)


_waiting: dict[str, None] = {}
"""Modules that something was to be done with when they are imported."""


def waiting() -> tuple[str, ...]:
    """Modules that are not imported yet, and of which something is to be wrapped then."""
    return tuple(module for module in _waiting if module not in sys.modules)


_absent: dict[str, None] = {}
"""What was to be wrapped and is not there, as ``module.name``."""


def absent() -> tuple[str, ...]:
    """What this process found to be missing of libraries, in the order in which it was found."""
    return tuple(_absent)


def _note_absent(module: str, name: str) -> None:
    """Say once that something is not captured with this version of a library."""
    target = f"{module}.{name}"
    if target not in _absent:
        _absent[target] = None
        counters.add("capture_target_absent")
        logger.warning(
            "%s is not there in the installed version: what it does is not captured", target
        )
