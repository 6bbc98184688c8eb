"""What an operator may set is written down where an operator looks."""

from __future__ import annotations

import re

import pytest

from otel_shim import environment_variables
from tests.wheel import ROOT

VARIABLES = sorted(name for name in vars(environment_variables) if name.startswith("OTEL_"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXT = "\n".join(page.read_text() for page in PAGES)


@pytest.mark.parametrize("variable", VARIABLES)
def test_every_variable_is_documented(variable: str) -> None:
    """Each name of `otel_shim.environment_variables` is on a page of docs/ or in the README."""
    assert re.search(rf"\b{variable}\b", TEXT)


def test_no_variable_is_documented_that_does_not_exist() -> None:
    """A page names no `OTEL_SHIM_` variable that nothing reads."""
    assert set(re.findall(r"\bOTEL_SHIM_[A-Z_]+\b", TEXT)) <= set(VARIABLES)
