"""Rules of the code that no linter checks: names from the contract, short functions, no private imports."""

from __future__ import annotations

import ast
import re
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.wheel import ROOT

PYTHON = sorted(f for f in (ROOT / "otel_shim").rglob("*.py") if f.name != "_semconv.py")
GO = sorted(
    file
    for file in (ROOT / "processor").rglob("*.go")
    if not file.name.endswith("_test.go") and not file.name.startswith("generated_")
)
OURS = re.compile(r"^(saas|audit)\.\w")
GO_STRING = re.compile(r'"((?:[^"\\\n]|\\.)*)"|`([^`]*)`')
GO_FUNCTION = re.compile(r"^func .*?(?:\{[^\n]*\}|\n\})$", re.MULTILINE | re.DOTALL)
COMPATIBILITY = ROOT / "otel_shim/_sdk_compat"
EXEMPT = (
    "opentelemetry._logs",  # public in all but name until logs are declared stable
    "opentelemetry.sdk._logs",  # likewise
    "opentelemetry.semconv._incubating",  # the only place of attributes in development, as user.hash
    "opentelemetry.util._importlib_metadata",  # the entry-point type in the distro's signature
)


def path_of(file: Path) -> str:
    """Test id of a file."""
    return str(file.relative_to(ROOT))


def docstrings(tree: ast.AST) -> set[int]:
    """The ids of the constants that are documentation: strings that stand as statements."""
    return {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}


def python_strings(file: Path) -> Iterator[str]:
    """Every string literal that is not documentation, parts of f-strings included."""
    tree = ast.parse(file.read_text())
    documentation = docstrings(tree)
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text and id(node) not in documentation:
            yield str(node.value)  # type: ignore[attr-defined]


def go_strings(file: Path) -> Iterator[str]:
    """Every string literal outside of line comments."""
    code = re.sub(r"^\s*//.*$", "", file.read_text(), flags=re.MULTILINE)
    for quoted, raw in GO_STRING.findall(code):
        yield quoted or raw


def python_functions(file: Path) -> Iterator[tuple[str, int]]:
    """Name and number of lines of every function and method, signature and docstring included."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield f"{path_of(file)}:{node.name}", (node.end_lineno or 0) - node.lineno + 1


def go_functions(file: Path) -> Iterator[tuple[str, int]]:
    """First line of every function and method, and number of lines between its braces."""
    for match in GO_FUNCTION.finditer(file.read_text()):
        lines = match.group().splitlines()
        yield f"{path_of(file)}: {lines[0]}", max(len(lines) - 2, 1)


def imported(file: Path) -> Iterator[str]:
    """Every imported name, with its module in front."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_private(name: str) -> bool:
    """Whether a name of OpenTelemetry is one that it may change without notice."""
    if not name.startswith("opentelemetry.") or name.startswith(EXEMPT):
        return False
    return any(part.startswith("_") for part in name.split("."))


@pytest.mark.parametrize("file", PYTHON, ids=path_of)
def test_python_takes_names_from_the_contract(file: Path) -> None:
    """No attribute of ours is written out beside the generated constants."""
    assert not [text for text in python_strings(file) if OURS.search(text)]


@pytest.mark.parametrize("file", GO, ids=path_of)
def test_go_takes_names_from_the_contract(file: Path) -> None:
    """No attribute of ours is written out beside the generated constants."""
    assert not [text for text in go_strings(file) if OURS.search(text)]


@pytest.mark.parametrize("language", ["python", "go"])
def test_functions_are_short(language: str) -> None:
    """Half of them have at most 8 lines, nine tenths at most 30, none more than 50."""
    found = (
        [item for file in PYTHON for item in python_functions(file)]
        if language == "python"
        else [item for file in GO for item in go_functions(file)]
    )
    lengths = [length for _, length in found]
    assert len(lengths) > 50
    assert statistics.median(lengths) <= 8
    assert statistics.quantiles(lengths, n=10)[-1] <= 30
    assert not [item for item in found if item[1] > 50]


def test_private_names_of_opentelemetry_stay_in_one_module() -> None:
    """Only the compatibility package imports what OpenTelemetry may change without notice."""
    private = {
        path_of(file): names
        for file in PYTHON
        if file.parent != COMPATIBILITY and (names := [n for n in imported(file) if is_private(n)])
    }
    assert not private
    for file in COMPATIBILITY.glob("*.py"):
        assert any(map(is_private, imported(file)))
