"""The configuration file's part that is ours: own keys, and instrumentors that are switched off."""

from __future__ import annotations

from pathlib import Path

import pytest

from otel_shim import config, config_file, environment_variables

FILE = """\
file_format: "1.0"
distribution:
  otel_shim:
    org_id: [dependency:current_user.team.id, state:tenant]
    metrics_port: 9464
    colour: green
  somebody_else:
    org_id: state:theirs
instrumentation/development:
  python:
    sqlalchemy: {enabled: false}
    httpx: {enabled: true}
    starlette: {}
"""


def write(folder: Path, text: str) -> str:
    """A file with this text; gives its path."""
    file = folder / "otel.yaml"
    file.write_text(text)
    return str(file)


def test_own_keys_are_the_variables_they_stand_for(tmp_path: Path) -> None:
    """Lists are joined, numbers are text; an unknown key is named, and another's section is not ours."""
    read = config_file.read(write(tmp_path, FILE))
    assert read.variables == {
        environment_variables.OTEL_SHIM_ORG_ID: "dependency:current_user.team.id,state:tenant",
        environment_variables.OTEL_SHIM_METRICS_PORT: "9464",
    }
    (error,) = read.errors
    assert error.startswith("distribution.otel_shim.colour is not known")
    settings = config.from_environ(read.variables)
    organisations = [str(s) for s in settings.sources if s.field == "org_id"]
    assert organisations == ["dependency:current_user.team.id", "state:tenant"]
    assert settings.metrics_port == 9464


def test_an_instrumentor_is_off_only_where_it_says_so(tmp_path: Path) -> None:
    """`enabled: false`, and nothing else."""
    assert config_file.read(write(tmp_path, FILE)).disabled == {"sqlalchemy"}


def test_a_file_without_a_part_of_ours_says_nothing(tmp_path: Path) -> None:
    """Nothing set, nothing off, nothing wrong."""
    assert config_file.read(write(tmp_path, 'file_format: "1.0"\n')) == config_file.FileSettings()


@pytest.mark.parametrize("text", ["file_format: [", "distribution: {}\n", ""])
def test_a_file_that_cannot_be_used_is_one_error(tmp_path: Path, text: str) -> None:
    """No YAML, no version, nothing at all."""
    with pytest.raises(config_file.ConfigFileError):
        config_file.read(write(tmp_path, text))


_EXPORTER = """\
file_format: "1.0"
tracer_provider:
  processors:
    - batch: {exporter: {otlp_http: %s}}
"""


@pytest.mark.parametrize(
    ("exporter", "says"),
    [
        ("{headers: [{name: api-key, value: 31337123}]}", "needs type"),
        ("{headers_list: {api-key: 31337123}}", "otlp_http -> headers_list"),
        ("{headers: [{name: api-key, value: '31337123}]}", "line 5"),
        ("{headers: [{name: api-key, secret: '31337123'}]}", "'secret' was unexpected"),
    ],
)
def test_a_file_is_not_quoted(exporter: str, says: str, tmp_path: Path) -> None:
    """It is said where it is wrong and what it needs, not what stands there."""
    with pytest.raises(config_file.ConfigFileError) as raised:
        config_file.read(write(tmp_path, _EXPORTER % exporter))
    assert says in str(raised.value) and "31337123" not in str(raised.value)
