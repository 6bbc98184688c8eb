"""A configuration file: every own key takes effect, a file that breaks leaves nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from otel_shim import context, distro, environment_variables, ops, wiring
from otel_shim.config import Config
from otel_shim.model import Identity

VARIABLES = sorted(name for name in vars(environment_variables) if name.startswith("OTEL_SHIM_"))


@pytest.fixture(autouse=True)
def _wiring_is_read_anew() -> Iterator[None]:
    wiring.wiring.cache_clear()
    yield
    wiring.wiring.cache_clear()


def _sources(settings: Config, field: str) -> Any:
    return ",".join(str(source) for source in settings.sources if source.field == field)


def _state_directory(settings: Config) -> str:
    distro._use_identity(settings)
    stamped = context._stamp(Identity("acme", "ada"))
    (secret,) = Path(wiring.environ()["OTEL_SHIM_STATE_DIRECTORY"]).iterdir()
    assert secret.name == "secret" and stamped["user.hash"]
    return str(secret.parent)


def _nobody() -> None: ...


def _asked(monkeypatch: pytest.MonkeyPatch, name: str) -> Any:
    """Whom the summary asks."""
    seen: list[ops.Backends] = []

    def summary(backends: ops.Backends) -> ops.Summary:
        seen.append(backends)
        return ops.Summary("")

    monkeypatch.setattr(ops, "summary", summary)
    (route,) = ops.router(dependency=_nobody).routes
    endpoint: Any = route.endpoint  # type: ignore[attr-defined]
    endpoint()
    return getattr(seen[0], name)


Consumer = Callable[[Config], Any]


def _consumers(monkeypatch: pytest.MonkeyPatch) -> dict[str, Consumer]:
    """Where each key arrives, for those that are no field of the settings by the same name."""
    return {
        "org_id": lambda s: _sources(s, "org_id"),
        "user_id": lambda s: _sources(s, "user_id"),
        "actor_role": lambda s: _sources(s, "actor_role"),
        "plan": lambda s: _sources(s, "plan"),
        "trusted_peers": lambda s: ",".join(map(str, s.trusted_peers)),
        "state_directory": _state_directory,
        "prometheus_url": lambda _: _asked(monkeypatch, "prometheus"),
        "alertmanager_url": lambda _: _asked(monkeypatch, "alertmanager"),
        "ops_links": lambda _: _asked(monkeypatch, "links"),
    }


VALUES: dict[str, Any] = {
    "org_id": "state:a",
    "user_id": "state:b",
    "actor_role": "state:c",
    "plan": "state:d",
    "user_identity": "clear",
    "secret": "s" * 40,
    "secret_file": "/a/file",
    "trusted_peers": "10.0.0.0/8",
    "public_peers": "continue",
    "private_peers": "restart",
    "queue_relation": "parent",
    "metrics_port": 9464,
    "metrics_host": "127.0.0.2",
    "metrics_token": "a token",
    "metrics_token_file": "/another/file",
    "metrics_directory": "/a/directory",
    "prometheus_url": "http://127.0.0.1:1",
    "alertmanager_url": "http://127.0.0.1:2",
    "ops_links": "dashboard=https://d",
    "log_format": "text",
    "on_sigterm": "default",
}


@pytest.mark.parametrize("variable", VARIABLES)
def test_no_documented_key_is_ignored(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each variable of the reference works as a key of the file, and wins over the environment."""
    key = variable.removeprefix("OTEL_SHIM_").lower()
    monkeypatch.delenv("OTEL_SHIM_SECRET", raising=False)
    value = VALUES.get(key, str(tmp_path / "state"))
    file = tmp_path / "otel.yaml"
    own = {"otel_shim": {key: value}}
    file.write_text(json.dumps({"file_format": "1.0", "distribution": own}))
    monkeypatch.setenv("OTEL_CONFIG_FILE", str(file))
    monkeypatch.setenv(variable, "")
    settings = wiring.wiring().settings
    assert settings.errors == ()
    consumers = _consumers(monkeypatch)
    expected = {"dashboard": "https://d"} if key == "ops_links" else value
    found = consumers[key](settings) if key in consumers else getattr(settings, key)
    assert found == expected


_BROKEN = """\
file_format: "1.0"
resource: {attributes: [{name: service.name, value: from-the-file}]}
tracer_provider:
  processors:
    - batch: {exporter: {otlp_http: {endpoint: "http://127.0.0.1:9/v1/traces"}}}
    %s
meter_provider:
  readers:
    - periodic: {exporter: {otlp_http: {endpoint: "http://127.0.0.1:9/v1/metrics"}}}
    %s
logger_provider:
  processors:
    - batch: {exporter: {otlp_http: {endpoint: "http://127.0.0.1:9/v1/logs"}}}
    %s
%s
"""
_LOADED = """
import json, sys, threading
from opentelemetry.instrumentation.auto_instrumentation import initialize
initialize()
from opentelemetry import _logs, metrics, trace
tracers, meters = trace.get_tracer_provider(), metrics.get_meter_provider()
resources = [tracers.resource, meters._sdk_config.resource, _logs.get_logger_provider().resource]
print(json.dumps({
    "threads": sorted(t.name for t in threading.enumerate() if t.name.startswith("Otel")),
    "services": [r.attributes["service.name"] for r in resources],
    "instances": [r.attributes.get("service.instance.id") for r in resources],
}))
import os; sys.stdout.flush(); os._exit(0)
"""
_UNUSED = "- nonsense: {}"


def _run(code: str, **environ: str) -> tuple[dict[str, Any], list[str]]:
    """What a fresh process says of itself, and what else it says."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("OTEL_")} | environ
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    *said, found = done.stdout.splitlines()
    return json.loads(found), said + done.stderr.splitlines()


@pytest.mark.parametrize(
    "broken",
    [
        (_UNUSED, "", "", ""),
        ("", _UNUSED, "", ""),
        ("", "", _UNUSED, ""),
        ("", "", "", "propagator: {composite: [nonsense: {}]}"),
        ("", "", "", "resource: 3"),
    ],
)
def test_a_file_that_breaks_leaves_nothing_behind(broken: tuple[str, ...], tmp_path: Path) -> None:
    """Wherever it breaks: all signals have the environment's resource, and one clear error says it."""
    file = tmp_path / "otel.yaml"
    file.write_text(_BROKEN % broken)
    found, said = _run(
        _LOADED,
        OTEL_CONFIG_FILE=str(file),
        OTEL_SERVICE_NAME="from-the-environment",
        OTEL_SHIM_SECRET="s" * 40,
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9",
    )
    assert found["services"] == ["from-the-environment"] * 3
    assert found["instances"][0] and len(set(found["instances"])) == 1
    assert found["threads"] == [
        "OtelBatchLogRecordProcessor",
        "OtelBatchSpanRecordProcessor",
        "OtelPeriodicExportingMetricReader",
    ]
    lines = [json.loads(line) for line in said]
    assert [line["severity"] for line in lines] == ["ERROR", "INFO"], said
    assert str(file) in lines[0]["message"] and "environment is used instead" in lines[0]["message"]


def test_a_good_file_is_applied_whole(tmp_path: Path) -> None:
    """Its resource, completed by the process, is that of all signals."""
    file = tmp_path / "otel.yaml"
    file.write_text(_BROKEN % ("", "", "", ""))
    found, said = _run(_LOADED, OTEL_CONFIG_FILE=str(file), OTEL_SHIM_SECRET="s" * 40)
    assert found["services"] == ["from-the-file"] * 3
    assert found["instances"][0] and len(set(found["instances"])) == 1
    assert len(found["threads"]) == 3
    assert [json.loads(line)["severity"] for line in said] == ["INFO"]


_APPLIED_BY_ANOTHER = """
import json, os
from opentelemetry import _logs, metrics, trace
from opentelemetry.sdk._configuration import _OTelSDKConfigurator
from otel_shim import distro
_OTelSDKConfigurator().configure()
tracer = trace.get_tracer_provider().get_tracer("made before")
distro.pre_instrument()
def instances():
    tracers, meters = trace.get_tracer_provider(), metrics.get_meter_provider()
    resources = [tracers.resource, tracer.resource, meters._sdk_config.resource, _logs.get_logger_provider().resource]
    return [r.attributes.get("service.instance.id") for r in resources]
reading, writing = os.pipe()
if (child := os.fork()) == 0:
    os.write(writing, json.dumps(instances()).encode())
    os._exit(0)
os.waitpid(child, 0)
print(json.dumps({"parent": instances(), "child": json.loads(os.read(reading, 65536))}), flush=True)
os._exit(0)
"""


@pytest.mark.parametrize("named", [None, "n-1"])
def test_a_file_that_another_configurator_applied(named: str | None, tmp_path: Path) -> None:
    """Each process has an instance id of its own, a forked one too; what the file says itself stays."""
    file = tmp_path / "otel.yaml"
    given = "" if named is None else ", {name: service.instance.id, value: n-1}"
    text = (_BROKEN % ("", "", "", "")).replace("from-the-file}", "from-the-file}" + given)
    file.write_text(text)
    found, _ = _run(_APPLIED_BY_ANOTHER, OTEL_CONFIG_FILE=str(file), OTEL_SHIM_SECRET="s" * 40)
    (parent,), (child,) = set(found["parent"]), set(found["child"])
    assert parent and child and parent != child
    assert named in (None, parent)


_IMPORTED = """
import json, sys
from opentelemetry.instrumentation.auto_instrumentation import initialize
initialize()
from opentelemetry import trace
heavy = ("opentelemetry.sdk", "opentelemetry.configuration", "yaml", "otel_shim.distro")
print(json.dumps({
    "heavy": [m for m in sys.modules if m.startswith(heavy)],
    "provider": type(trace.get_tracer_provider()).__name__,
}))
"""


@pytest.mark.parametrize(
    ("text", "costs"),
    [
        ("disabled: true", False),
        ("disabled: ${SWITCH}  # by the operator", False),
        ("disabled: ${NOT_SET:-true}", False),
        ("'disabled': true", True),
    ],
)
def test_a_disabled_file_costs_nothing(text: str, costs: bool, tmp_path: Path) -> None:
    """As ``OTEL_SDK_DISABLED``: nothing is imported; written as nobody does, at least nothing is wired."""
    file = tmp_path / "otel.yaml"
    file.write_text(
        'file_format: "1.0"\n'
        + text
        + "\ntracer_provider: {processors: [simple: {exporter: {console: {}}}]}\n"
    )
    found, said = _run(_IMPORTED, OTEL_CONFIG_FILE=str(file), SWITCH="true")
    assert bool(found["heavy"]) is costs
    assert found["provider"] == "ProxyTracerProvider"
    assert not any("otel-shim is active" in line for line in said)
    file.write_text(
        'file_format: "1.0"\ndisabled: false\ntracer_provider: {processors: [simple: {exporter: {console: {}}}]}\n'
    )
    assert _run(_IMPORTED, OTEL_CONFIG_FILE=str(file))[0]["provider"] == "TracerProvider"
