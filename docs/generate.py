"""Write docs/reference/configuration.md from the docstrings of otel_shim/environment_variables.py.

`generate.py` writes; `generate.py --check` writes nothing and exits 1 where the page differs.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = "otel_shim/environment_variables.py"
PAGE = "docs/reference/configuration.md"


def variables(source: str) -> Iterator[tuple[str, str]]:
    """Each variable of the module with its docstring; one without raises ValueError."""
    for statement, following in pairwise([*ast.parse(source).body, ast.Pass()]):
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        text = _text(following)
        if text is None:
            raise ValueError(f"{statement.target.id} in {SOURCE} has no docstring")
        yield statement.target.id, " ".join(text.split()).replace("``", "`")


def _text(statement: ast.stmt) -> str | None:
    value = statement.value if isinstance(statement, ast.Expr) else None
    return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else None


def page(source: str) -> str:
    """The text of the page."""
    lines = [
        "# Environment variables of the shim",
        "",
        f"<!-- Generated from {SOURCE} by `make generate`; do not edit. -->",
        "",
        "In a configuration file (`OTEL_CONFIG_FILE`) each stands under `distribution.otel_shim`, in lower",
        "case and without the prefix: `OTEL_SHIM_ORG_ID` is `org_id`. What the file sets wins.",
        "",
        "| variable | meaning |",
        "|---|---|",
    ]
    rows = [
        f"| `{name}` | {text.replace('|', chr(92) + '|')} |" for name, text in variables(source)
    ]
    return "\n".join([*lines, *rows]) + "\n"


def main() -> int:
    """Write or check the page."""
    text = page((ROOT / SOURCE).read_text(encoding="utf-8"))
    target = ROOT / PAGE
    stale = not target.exists() or target.read_text(encoding="utf-8") != text
    if stale and "--check" in sys.argv[1:]:
        sys.exit(f"{PAGE} differs from {SOURCE}: run `make generate`")
    target.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
