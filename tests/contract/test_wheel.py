"""The wheel as published: typed, found by OpenTelemetry's loader, installable without our lock."""

from __future__ import annotations

import configparser
import importlib
import sys
import zipfile
from pathlib import Path

import pytest
from opentelemetry.instrumentation.instrumentor import (  # type: ignore[attr-defined]
    BaseInstrumentor,
)

from tests.wheel import build_wheel, run_uv

ENTRY_POINTS = {
    "opentelemetry_distro": "otel_shim.entry:ShimDistro",
    "opentelemetry_configurator": "otel_shim.entry:ShimConfigurator",
    "opentelemetry_pre_instrument": "otel_shim.entry:pre_instrument",
    "opentelemetry_post_instrument": "otel_shim.entry:post_instrument",
    "opentelemetry_environment_variables": "otel_shim.launcher",
}


@pytest.fixture(scope="module")
def wheel() -> Path:
    """The wheel of these sources."""
    return build_wheel()


@pytest.fixture(scope="module")
def names(wheel: Path) -> list[str]:
    """The files in it."""
    return zipfile.ZipFile(wheel).namelist()


def test_type_checkers_may_use_it(names: list[str]) -> None:
    """The marker of a typed package is in it."""
    assert "otel_shim/py.typed" in names


def test_it_holds_the_package_and_nothing_else(names: list[str]) -> None:
    """No tests, examples or build output are installed with it."""
    assert {name.split("/")[0].split("-")[0] for name in names} == {"otel_shim"}
    assert not [name for name in names if name.endswith((".pyc", ".so"))]


def test_the_loader_finds_it(wheel: Path, names: list[str]) -> None:
    """It is registered as `otel_shim` in each group that OpenTelemetry's loader reads."""
    (file,) = (name for name in names if name.endswith(".dist-info/entry_points.txt"))
    parser = configparser.ConfigParser()
    parser.read_string(zipfile.ZipFile(wheel).read(file).decode())
    groups = [group for group in parser.sections() if group.startswith("opentelemetry_")]
    found = {group: dict(parser[group]) for group in groups}
    instrumentors = found.pop("opentelemetry_instrumentor")
    assert found == {group: {"otel_shim": target} for group, target in ENTRY_POINTS.items()}
    for target in instrumentors.values():
        module, _, name = target.partition(":")
        kind = getattr(importlib.import_module(module), name)
        assert module.startswith("otel_shim.capture.") and issubclass(kind, BaseInstrumentor)


@pytest.mark.parametrize("version", ["3.10", "3.13"])
def test_it_resolves_without_the_lock(wheel: Path, version: str) -> None:
    """Its requirements can be met from the package index, by published versions, on this Python."""
    resolved = run_uv(
        *("pip", "compile", "--quiet", "--no-header", "--no-annotate"),
        *("--python", sys.executable, "--python-version", version, "-"),
        stdin=f"otel-shim @ {wheel.as_uri()}\n",
    )
    pinned = dict(line.split("==") for line in resolved.splitlines() if "==" in line)
    assert pinned["opentelemetry-instrumentation"] == "0.66b1"
    assert pinned["opentelemetry-sdk"].startswith("1.45.")
    assert "opentelemetry-distro" not in pinned
