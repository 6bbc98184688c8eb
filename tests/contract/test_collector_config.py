"""The Collector's configuration files, checked with the real binary and against the contract."""

import itertools
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "collector-config"
GATEWAY = CONFIG / "gateway.yaml"
README = CONFIG / "README.md"
BACKENDS = sorted((CONFIG / "backends").glob("*.yaml"))
OVERLAYS = [CONFIG / "sampling.yaml", CONFIG / "durable.yaml", CONFIG / "public.yaml"]
BALANCER = CONFIG / "balancer.yaml"
FILES = [GATEWAY, *OVERLAYS, BALANCER, *BACKENDS]

# `${env:NAME:-default}`, as the Collector's environment provider reads it.
VARIABLE = re.compile(r"\$\{env:(\w+)(?::-([^}]*))?\}")
# One line of the README's table of variables.
DOCUMENTED = re.compile(r"^\| `(\w+)` \| (?:`([^`]*)`|empty) \|", re.MULTILINE)


@pytest.fixture(scope="session")
def otelcol() -> Path:
    """The Collector to check with: `OTELCOL_SHIM_BIN`, else the one built here.

    Its absence is a failure, not a skip: without it nothing here is checked.
    """
    binary = Path(os.environ.get("OTELCOL_SHIM_BIN", ROOT / ".build/bin/otelcol-shim"))
    if not binary.is_file():
        pytest.fail(f"{binary} is missing: run collector/build.sh otelcol-shim")
    return binary


def validate(otelcol: Path, files: list[Path]) -> subprocess.CompletedProcess[str]:
    """Run `otelcol-shim validate` over files, with no variable of this environment."""
    options = [option for file in files for option in ("--config", str(file))]
    return subprocess.run(
        [otelcol, "validate", *options],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"]},
        timeout=60,
        check=False,
    )


def backend_combinations() -> Iterator[tuple[Path, ...]]:
    """Every non-empty set of backends."""
    for size in range(1, len(BACKENDS) + 1):
        yield from itertools.combinations(BACKENDS, size)


def readme_combinations() -> list[list[Path]]:
    """The `--config` files of every command line in the README."""
    lines = [line for line in README.read_text().splitlines() if line.startswith("otelcol-shim ")]
    return [[ROOT / name for name in re.findall(r"--config (\S+)", line)] for line in lines]


def names(files: tuple[Path, ...] | list[Path]) -> str:
    """Test id of a combination."""
    return "+".join(file.stem for file in files)


def load(file: Path) -> dict[str, Any]:
    """A configuration file as written, its variables unexpanded."""
    loaded: dict[str, Any] = yaml.safe_load(file.read_text())
    return loaded


@pytest.mark.parametrize("backends", list(backend_combinations()), ids=names)
def test_the_gateway_with_any_set_of_backends_is_valid(
    otelcol: Path, backends: tuple[Path, ...]
) -> None:
    result = validate(otelcol, [GATEWAY, *backends])
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda file: file.stem)
@pytest.mark.parametrize(
    "overlays", [*([file] for file in OVERLAYS), OVERLAYS, OVERLAYS[::-1]], ids=names
)
def test_overlays_are_valid_in_any_order_with_any_backend(
    otelcol: Path, overlays: list[Path], backend: Path
) -> None:
    result = validate(otelcol, [GATEWAY, *overlays, backend])
    assert result.returncode == 0, result.stderr


def test_kept_spans_bypass_the_sampler_and_come_out_once() -> None:
    pipelines = load(OVERLAYS[0])["service"]["pipelines"]
    assert "tail_sampling" not in pipelines["traces/kept"]["processors"]
    assert pipelines["traces/sampled"]["processors"] == ["tail_sampling", "filter/bypassed"]


def test_public_spans_meet_no_identity() -> None:
    public = load(OVERLAYS[2])
    pipeline = public["service"]["pipelines"]["traces/public"]
    assert "identity" not in pipeline["processors"]
    for name, key in (("attributes/public", "actions"), ("resource/public", "attributes")):
        assert name in pipeline["processors"]
        pattern = public["processors"][name][key][0]["pattern"]
        for attribute in ("saas.org.id", "saas.sampling.keep", "audit.record.id", "user.hash"):
            assert re.match(pattern, attribute)


@pytest.mark.parametrize("files", readme_combinations(), ids=names)
def test_every_command_of_the_readme_is_valid(otelcol: Path, files: list[Path]) -> None:
    result = validate(otelcol, files)
    assert result.returncode == 0, result.stderr


def test_the_readme_shows_every_backend() -> None:
    shown = {file for files in readme_combinations() for file in files}
    assert shown == set(FILES)


def test_a_gateway_that_sends_nowhere_is_refused(otelcol: Path) -> None:
    result = validate(otelcol, [GATEWAY])
    assert result.returncode != 0
    assert 'connector "forward" used as exporter' in result.stderr


def test_an_unknown_key_of_the_identity_processor_is_refused(otelcol: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("processors: {identity: {no_such_key: 1}}\n")
    result = validate(otelcol, [GATEWAY, BACKENDS[0], wrong])
    assert result.returncode != 0
    assert "no_such_key" in result.stderr


def test_the_readme_names_every_variable_with_its_default() -> None:
    used = {
        (name, default) for file in FILES for name, default in VARIABLE.findall(file.read_text())
    }
    assert set(DOCUMENTED.findall(README.read_text())) == used


def test_every_address_is_loopback_by_default() -> None:
    addresses = [
        default
        for file in FILES
        for _, default in VARIABLE.findall(file.read_text())
        if re.search(r"\d\.\d", default)
    ]
    assert addresses
    assert all(re.match(r"\[?(http://)?127\.0\.0\.1(:\d+)?\]?$", address) for address in addresses)


def test_metric_dimensions_are_permitted_by_the_contract() -> None:
    contract = yaml.safe_load((ROOT / "semconv/attributes.yaml").read_text())
    permitted = {
        attribute["id"]
        for group in contract["groups"]
        for attribute in group["attributes"]
        if attribute["annotations"]["metric_dimension"]
    }
    dimensions = {item["name"] for item in load(GATEWAY)["connectors"]["spanmetrics"]["dimensions"]}
    ours = {name for name in dimensions if name.startswith(("saas.", "audit."))}
    assert ours == {"saas.operation", "saas.actor.role", "saas.plan"}
    assert ours <= permitted
    assert not {name for name in dimensions if name.startswith(("user.", "enduser."))}


def test_metrics_are_derived_on_the_right_side_of_identity() -> None:
    pipelines = load(GATEWAY)["service"]["pipelines"]
    assert "servicegraph" in pipelines["traces/received"]["exporters"]
    assert pipelines["traces/received"]["processors"] == ["memory_limiter"]
    assert "spanmetrics" in pipelines["traces/identified"]["exporters"]
    assert pipelines["traces/identified"]["processors"] == ["identity"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_no_file_hides_errors_behind_the_batch_processor(file: Path) -> None:
    assert not [name for name in load(file).get("processors", {}) if name.split("/")[0] == "batch"]


@pytest.mark.parametrize("file", BACKENDS, ids=lambda file: file.stem)
def test_a_backend_brings_only_its_exporter_and_its_pipelines(file: Path) -> None:
    added = load(file)
    assert set(added) == {"exporters", "service"}
    assert set(added["service"]) == {"pipelines"}
    for name, pipeline in added["service"]["pipelines"].items():
        assert name.split("/")[1] == file.stem
        assert pipeline == {"receivers": ["forward"], "exporters": list(added["exporters"])}


@pytest.mark.parametrize("name", ["jaeger", "tempo", "otlp"])
def test_a_backend_queues_batches_and_retries_until_delivered(name: str) -> None:
    (exporter,) = load(CONFIG / "backends" / f"{name}.yaml")["exporters"].values()
    assert exporter["retry_on_failure"]["max_elapsed_time"] == "0s"
    assert exporter["sending_queue"]["sizer"] == "bytes"
    assert exporter["sending_queue"]["batch"]["sizer"] == "items"
