"""One contract, two languages: the names that Python writes are those that Go reads."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from otel_shim import _semconv
from tests.wheel import ROOT

GO_FILE = Path("processor/identityprocessor/internal/semconv/generated_attributes.go")
GENERATED = (GO_FILE, Path("otel_shim/_semconv.py"), Path("docs/reference/attributes.md"))
METRICS_PAGE = Path("docs/reference/metrics.md")
GENERATOR = tuple(
    Path(name)
    for name in (
        "semconv/generate.py",
        "semconv/attributes.yaml",
        "semconv/work.yaml",
        "semconv/metrics.yaml",
        "pyproject.toml",
    )
)
PYTHON_ONLY = ("OPERATION_", "METRIC_")
GO_CONSTANT = re.compile(r'^\t(\w+)\s*= "([^"]*)"$', re.MULTILINE)


def python_constants() -> dict[str, str]:
    """Every name with its text; operations and metrics are Python's own business."""
    return {
        name: value
        for name, value in vars(_semconv).items()
        if isinstance(value, str) and name.isupper() and not name.startswith(PYTHON_ONLY)
    }


def go_constants() -> dict[str, str]:
    """Every name with its text."""
    return dict(GO_CONSTANT.findall((ROOT / GO_FILE).read_text()))


def flat(name: str) -> str:
    """A name without the difference between the languages' spellings."""
    return name.replace("_", "").lower()


def test_python_and_go_have_the_same_names() -> None:
    """Each constant is in both languages, under the same name, with the same text."""
    python = {flat(name): value for name, value in python_constants().items()}
    go = {flat(name): value for name, value in go_constants().items()}
    assert len(go) > 20
    assert go == python


def test_no_two_attributes_share_a_name() -> None:
    """A text stands for one attribute, or for one value of one."""
    attributes = [value for value in python_constants().values() if "." in value]
    assert len(attributes) == len(set(attributes))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The contract, its generator and what it generated, to be tampered with."""
    for file in (*GENERATED, METRICS_PAGE, *GENERATOR):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / file)
    return tmp_path


def check(root: Path) -> subprocess.CompletedProcess[str]:
    """Run the generator's check; it needs gofmt."""
    go = subprocess.run(
        [ROOT / "collector/build.sh", "go"], capture_output=True, text=True, check=True
    )
    path = f"{go.stdout.strip()}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [sys.executable, root / "semconv/generate.py", "--check"],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": path},
        check=False,
    )


def test_generated_files_are_up_to_date(copy: Path) -> None:
    """The generator has nothing to change, also in a copy of the repository."""
    for root in (ROOT, copy):
        result = check(root)
        assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("file", GENERATED, ids=lambda file: file.name)
def test_an_edited_file_is_noticed_and_named(copy: Path, file: Path) -> None:
    """A generated file that was edited by hand fails the check, and only it is named."""
    text = (copy / file).read_text()
    (copy / file).write_text(text.replace("saas.org.id", "saas.organisation.id", 1))
    result = check(copy)
    assert result.returncode == 1
    assert [line.split()[0] for line in result.stdout.splitlines()] == [str(file)]


def test_a_changed_contract_is_noticed(copy: Path) -> None:
    """An attribute that was renamed in the contract alone makes every file made from it stale."""
    contract = copy / "semconv/attributes.yaml"
    contract.write_text(contract.read_text().replace("id: saas.gdpr.legal", "id: saas.gdpr.lawful"))
    result = check(copy)
    assert result.returncode == 1
    assert {line.split()[0] for line in result.stdout.splitlines()} == {str(f) for f in GENERATED}


@pytest.mark.parametrize("name", ["saas.org.id", "user.id", "saas.request.id", "saas.nothing"])
def test_what_must_be_no_label_is_noticed(copy: Path, name: str) -> None:
    """Who a request is for may be no attribute of a metric, nor may what the contract does not know."""
    contract = copy / "semconv/metrics.yaml"
    contract.write_text(contract.read_text().replace("ref: saas.queue.name", f"ref: {name}"))
    result = check(copy)
    assert result.returncode == 1
    assert f"{name} may be no attribute of saas.queue.depth" in result.stdout


def test_metrics_are_those_that_are_written_down(copy: Path) -> None:
    """A metric that was renamed in the contract alone makes the page and the constants stale."""
    contract = copy / "semconv/metrics.yaml"
    contract.write_text(contract.read_text().replace("saas.queue.depth", "saas.queue.length"))
    stale = {line.split()[0] for line in check(copy).stdout.splitlines()}
    assert stale == {"otel_shim/_semconv.py", str(METRICS_PAGE)}
