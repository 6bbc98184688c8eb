"""What is installed: real metadata in a folder, read as an interpreter reads it."""

from __future__ import annotations

from importlib.metadata import Distribution, distributions
from pathlib import Path

from otel_shim.cli import packages


def _install(folder: Path, name: str, version: str, *files: str) -> None:
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))


def _found(folder: Path) -> list[tuple[str, str]]:
    installed: list[Distribution] = list(distributions(path=[str(folder)]))
    return [(finding.code, finding.cause) for finding in packages.findings(installed)]


def test_a_uniform_set_is_fine(tmp_path: Path) -> None:
    """One release of OpenTelemetry, others' instrumentors in versions of their own."""
    _install(tmp_path, "opentelemetry-api", "1.45.1", "opentelemetry/trace/__init__.py")
    _install(tmp_path, "opentelemetry-sdk", "1.45.1", "opentelemetry/sdk/trace/__init__.py")
    _install(tmp_path, "opentelemetry-instrumentation", "0.66b1")
    _install(tmp_path, "opentelemetry-instrumentation-openai", "0.40.1")
    _install(tmp_path, "FastAPI", "0.110.0")
    _install(tmp_path, "SQLAlchemy", "2.0.0b1.post1")
    assert [code for code, _ in _found(tmp_path)] == ["package-too-old"]  # the beta is before 2.0


def test_what_is_too_old_is_named(tmp_path: Path) -> None:
    """Whatever the case of the name."""
    _install(tmp_path, "FastAPI", "0.109.2")
    ((code, cause),) = _found(tmp_path)
    assert (code, cause) == (
        "package-too-old",
        "fastapi 0.109.2 is installed, and 0.110 is the oldest that is supported",
    )


def test_mixed_releases_are_named(tmp_path: Path) -> None:
    """With the packages of each version."""
    _install(tmp_path, "opentelemetry-api", "1.45.1")
    _install(tmp_path, "opentelemetry-sdk", "1.44.0")
    _install(tmp_path, "opentelemetry-instrumentation", "0.66b1")
    _install(tmp_path, "opentelemetry-instrumentation-httpx", "0.65b0")
    causes = [cause for code, cause in _found(tmp_path) if code == "packages-mixed"]
    assert "1.44.0 (opentelemetry-sdk), 1.45.1 (opentelemetry-api)" in causes[0]
    assert "0.65b0 (opentelemetry-instrumentation-httpx)" in causes[1]


def test_clobbered_files_are_named(tmp_path: Path) -> None:
    """Two owners of one file below opentelemetry/, once for all the files they share."""
    shared = ("opentelemetry/exporter/a.py", "opentelemetry/exporter/b.py", "top.py")
    _install(tmp_path, "one", "1", *shared, "opentelemetry/exporter/__pycache__/a.pyc")
    _install(tmp_path, "two", "1", *shared, "opentelemetry/exporter/__pycache__/a.pyc")
    ((code, cause),) = _found(tmp_path)
    assert code == "packages-clobbered"
    assert cause == (
        "one and two both installed opentelemetry/exporter/a.py, opentelemetry/exporter/b.py, "
        "so one overwrote the other"
    )


def test_this_environment_can_be_read() -> None:
    """The real one, which is uniform."""
    assert list(packages.findings(packages.installed())) == []
