"""What a command that starts a server says: by its arguments, by variables, by gunicorn's configuration file.

The file of gunicorn is Python. It is read, never run: what it works out is not known here.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

SERVERS = ("uvicorn", "gunicorn", "hypercorn", "granian", "fastapi")
UNKNOWN = object()
"""What a configuration file works out, as ``multiprocessing.cpu_count()``."""
_TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*(\(\))?")
_NAMES_MODULES = frozenset(
    ("-c", "--config", "-k", "--worker-class", "--logger-class", "--log-config")
)
"""Options whose value may look as an application does."""
_GUNICORN_FILE = "gunicorn.conf.py"
_WORKERS = {
    "uvicorn": ("UVICORN_WORKERS", "WEB_CONCURRENCY"),
    "fastapi": ("WEB_CONCURRENCY",),
    "gunicorn": ("WEB_CONCURRENCY",),
    "granian": ("GRANIAN_WORKERS",),
}
"""The variables by which a server is told how many processes to start."""


@dataclass(frozen=True)
class Command:
    """A server and what it is told; ``server`` is empty where none is known."""

    server: str = ""
    arguments: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    file: Mapping[str, Any] = field(default_factory=dict)
    """The settings of gunicorn's configuration file."""

    def option(self, *names: str) -> str | None:
        """The value of an option by its names; the last one wins."""
        found = [value for name, value in _options(self.arguments) if name in names]
        return found[-1] if found else None

    def has(self, flag: str, setting: str) -> bool:
        """Whether a switch is on."""
        return flag in self.arguments or self.file.get(setting) not in (None, False, UNKNOWN)

    def workers(self) -> Any:
        """How many processes are asked for; None where nothing says it, UNKNOWN where it is worked out."""
        named = (self.variables.get(name) for name in _WORKERS.get(self.server, ()))
        asked = self.option("--workers", "-w") or self.file.get("workers")
        return asked or next(filter(None, named), None)

    def target(self) -> str | None:
        """The ``module:attribute`` that is to be served."""
        before = ("", *self.arguments)
        named = (
            word
            for option, word in zip(before, self.arguments, strict=False)
            if _TARGET.fullmatch(word) and option not in _NAMES_MODULES
        )
        found = next(named, _text(self.file.get("wsgi_app")))
        return f"{found}()" if found is not None and "--factory" in self.arguments else found

    def folder(self) -> str:
        """The directory that the server goes to; empty where it stays."""
        return (
            self.option("--chdir", "--working-dir")
            or _text(self.file.get("chdir"))
            or self.variables.get("GRANIAN_WORKING_DIR", "")
        )

    def paths(self) -> tuple[str, ...]:
        """Where else the server looks for modules, before the directory that it is in."""
        listed = self.option("--pythonpath") or _text(self.file.get("pythonpath")) or ""
        app_dir = self.option("--app-dir") or self.variables.get("UVICORN_APP_DIR")
        return tuple(filter(None, (app_dir, *listed.split(","))))


def parse(words: Sequence[str], environ: Mapping[str, str]) -> Command:
    """Understand a command, ``opentelemetry-instrument uvicorn ...`` and ``python -m uvicorn ...`` too."""
    for position, word in enumerate(words):
        server = PurePath(word).name
        if server in SERVERS:
            arguments = tuple(words[position + 1 :])
            if server == "gunicorn":
                return _gunicorn(arguments, environ)
            return Command(server, arguments, environ)
    return Command()


def _gunicorn(arguments: tuple[str, ...], environ: Mapping[str, str]) -> Command:
    """The command line wins over GUNICORN_CMD_ARGS, and that over the file."""
    both = (*shlex.split(environ.get("GUNICORN_CMD_ARGS", "")), *arguments)
    command = Command("gunicorn", both, environ)
    return Command("gunicorn", both, environ, _file(command.option("-c", "--config")))


def _options(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Options with what may be their value: ``--name value``, ``--name=value``, ``-nvalue``."""
    for word, following in zip(arguments, (*arguments[1:], ""), strict=False):
        name, joined, value = word.partition("=")
        if joined or word.startswith("--") or len(word) == len("-w"):
            yield name, value if joined else following
        elif word.startswith("-"):
            yield word[:2], word[2:]


def _file(named: str | None) -> Mapping[str, Any]:
    """The settings of a configuration file; UNKNOWN for what is no literal."""
    path = _GUNICORN_FILE if named is None else _path(named)
    try:
        tree = ast.parse(Path(path).read_bytes())
    except (OSError, SyntaxError, ValueError):  # gunicorn itself says what is wrong with it
        return {}
    return dict(_assignments(tree.body))


def _path(named: str) -> str:
    """The path of what ``--config`` names: ``file:path``, ``python:module`` or a path."""
    if named.startswith("python:"):
        return named.removeprefix("python:").replace(".", "/") + ".py"
    return named.removeprefix("file:")


def _assignments(body: Sequence[ast.stmt]) -> Iterator[tuple[str, Any]]:
    for statement in body:
        targets = statement.targets if isinstance(statement, ast.Assign) else ()
        if isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        for target in targets:
            if isinstance(target, ast.Name):
                yield target.id, _literal(getattr(statement, "value", None))


def _literal(value: ast.expr | None) -> Any:
    try:
        return None if value is None else ast.literal_eval(value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return UNKNOWN


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
