"""From an observation to findings."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace

import pytest

from otel_shim.cli import diagnosis
from otel_shim.cli.observation import (
    FAILED,
    LOADED,
    SKIPPED,
    App,
    Candidate,
    Choice,
    ConfigFile,
    Exporter,
    Handler,
    Instrumentor,
    Key,
    LogLine,
    Observation,
    Trial,
    decode,
)

DISTRO = Candidate("otel_shim", "otel_shim.entry:ShimDistro", "otel-shim", "1")
OTHER = Candidate("distro", "other:Distro", "other-distro", "2")
CONFIGURATOR = Candidate("otel_shim", "otel_shim.entry:ShimConfigurator", "otel-shim", "1")
OTLP = "opentelemetry.exporter.otlp.proto.http.trace_exporter.OTLPSpanExporter"
EXPORTERS = tuple(
    Exporter(signal, OTLP, f"http://collector:4318/v1/{signal}")
    for signal in ("traces", "metrics", "logs")
)
HEALTHY = Observation(
    python="3.11.0",
    executable="/env/bin/python",
    disabled=False,
    service_name="shop",
    protobuf="upb",
    distro=Choice((DISTRO,), None, DISTRO.value),
    configurator=Choice((CONFIGURATOR,), None, CONFIGURATOR.value),
    key=Key("given", "OTEL_SHIM_SECRET"),
    trial=Trial(("GET / by fastapi",), True, ("SELECT by otel_shim.sqlalchemy",), 1),
    instrumentors=(Instrumentor("httpx", "opentelemetry-instrumentation-httpx", "1", LOADED),),
    exporters=EXPORTERS,
)


def _codes(seen: Observation) -> set[str]:
    return {finding.code for finding in diagnosis.findings(seen)}


def test_a_healthy_process_has_no_findings() -> None:
    """Nothing is found where nothing is wrong."""
    assert list(diagnosis.findings(HEALTHY)) == []


def test_what_a_library_lacks() -> None:
    """A function that is to be captured and is not there is a problem with the library's name in it."""
    (found,) = diagnosis.findings(replace(HEALTHY, absent=("caldav.lib.vcal.parse_ical",)))
    assert (found.severity, found.code) == ("warning", "capture-absent")
    assert "caldav.lib.vcal.parse_ical" in found.cause and "caldav" in found.fix


def test_an_observation_survives_json() -> None:
    """What the child process writes is what the parent reads."""
    seen = replace(
        HEALTHY,
        app=App("app:app", dependencies=("get_user",)),
        config_file=ConfigFile("/x.yaml"),
        handlers=(Handler("root", "LoggingHandler"),),
        log=(LogLine("opentelemetry", "ERROR", "m"),),
    )
    assert decode(Observation, json.loads(json.dumps(dataclasses.asdict(seen)))) == seen
    assert decode(Observation, json.loads(json.dumps(dataclasses.asdict(HEALTHY)))) == HEALTHY


def _instrumentor(state: str, reason: str = "") -> Instrumentor:
    return Instrumentor("sqlalchemy", "package", "1", state, reason, "why")


_DEAD = replace(EXPORTERS[0], problem="unreachable", detail="Connection refused")
BROKEN = {
    "disabled": {"disabled": True},
    "distro-unknown": {"distro": replace(HEALTHY.distro, asked="shim", winner="x:DefaultDistro")},
    "distro-other": {"distro": Choice((OTHER, DISTRO), None, OTHER.value)},
    "distro-order": {"distro": Choice((DISTRO, OTHER), None, DISTRO.value)},
    "configurator-none": {"configurator": Choice((CONFIGURATOR,), "nobody", None)},
    "configurator-other": {"configurator": Choice((OTHER, CONFIGURATOR), None, OTHER.value)},
    "loader-failed": {
        "log": (LogLine("o", "ERROR", "Failed to auto initialize OpenTelemetry", "X: y"),)
    },
    "config-file": {"config_file": ConfigFile("/x.yaml", "no such file")},
    "exporter-unreachable": {"exporters": (_DEAD, *EXPORTERS[1:])},
    "exporter-refused": {"exporters": (replace(_DEAD, problem="refused"), *EXPORTERS[1:])},
    "exporter-answer": {"exporters": (replace(_DEAD, problem="answer"), *EXPORTERS[1:])},
    "second-exporter": {"exporters": (*EXPORTERS, EXPORTERS[0])},
    "no-exporter": {"exporters": EXPORTERS[:2]},
    "instrumentor-failed": {"instrumentors": (_instrumentor(FAILED),)},
    "instrumentor-skipped": {"instrumentors": (_instrumentor(SKIPPED, "limits"),)},
    "instrumentor-disabled": {"instrumentors": (_instrumentor(SKIPPED, "disabled"),)},
    "double-tracing": {"trial": replace(HEALTHY.trial, request_spans=("a", "b"))},
    "not-traced": {"trial": replace(HEALTHY.trial, query_spans=())},
    "not-stamped": {"trial": replace(HEALTHY.trial, request_stamped=False)},
    "second-handler": {"trial": replace(HEALTHY.trial, log_records=2)},
    "bad-source": {"config_errors": ("OTEL_SHIM_ORG_ID: cannot read 'x'; write y",)},
    "bad-setting": {"config_errors": ("OTEL_SHIM_LOG_FORMAT: 'x' is not known; write json",)},
    "key-unusable": {"key": Key("unusable", "/var/lib/x", problem="Permission denied")},
    "key-host": {"key": Key("host", "/var/lib/x", "0600", made=True)},
    "key-mode": {"key": Key("file", "/etc/key", "0640")},
    "protobuf-python": {"protobuf": "python"},
    "no-service-name": {"service_name": "unknown_service:python"},
    "app-import": {"app": App("app:app", "KeyError at app.py:3")},
    "no-source-matches": {"app": App("app:app", dependencies=("get_db",))},
}


@pytest.mark.parametrize("code", BROKEN)
def test_each_fault_has_its_finding(code: str) -> None:
    """One thing broken, one finding, with a cause and a fix."""
    seen = dataclasses.replace(HEALTHY, **BROKEN[code])  # type: ignore[arg-type]
    (finding,) = diagnosis.findings(seen)
    assert finding.code == code
    assert finding.cause and finding.fix and "\n" not in finding.cause + finding.fix


def test_one_dead_host_is_one_finding() -> None:
    """Three signals to one address that is away are one cause."""
    dead = tuple(replace(e, problem="unreachable", detail="refused") for e in EXPORTERS)
    (finding,) = diagnosis.findings(replace(HEALTHY, exporters=dead))
    assert "traces, metrics, logs" in finding.cause and "collector:4318" in finding.cause


def test_an_instrumented_engine_of_the_application_is_double() -> None:
    """Our capture counts one span on an engine of ours; the application's own engine has two."""
    seen = replace(HEALTHY, instrumentors=(_instrumentor(LOADED),))
    assert _codes(seen) == {"double-tracing"}


def test_a_library_that_is_switched_off_need_not_be_traced() -> None:
    """An operator who disabled an instrumentor gets an info, not an error."""
    off = (_instrumentor(SKIPPED, "disabled"),)
    seen = replace(HEALTHY, trial=replace(HEALTHY.trial, query_spans=()), instrumentors=off)
    assert _codes(seen) == {"instrumentor-disabled"}


def test_sources_that_match_are_listed() -> None:
    """By the first name of a source over dependencies."""
    sources = (
        "org_id dependency:user.org_id",
        "org_id state:user.org_id",
        "plan dependency:x.plan",
    )
    seen = replace(HEALTHY, sources=sources, app=App("a:b", dependencies=("user",)))
    assert diagnosis.matching(seen) == (sources[0],)
    assert _codes(seen) == set()
