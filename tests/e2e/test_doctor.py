"""`otel-shim doctor` names the cause of each way in which an environment is really broken here."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from examples.saas.demo.ports import free_ports

from . import environments
from .environments import APPS, LOCKED, Environment
from .matrix import ELASTIC
from .server import serving

BESIDE = Environment(
    "doctor-beside",
    (
        "opentelemetry-distro==0.66b1",
        "opentelemetry-configuration==0.66b1",
        "opentelemetry-instrumentation-sqlalchemy==0.66b1",
        "sqlalchemy==2.0.58",
    ),
)
"""The official distro and SQLAlchemy's instrumentor beside ours."""
OLD = Environment("doctor-old", ("fastapi==0.109.2", "httpx==0.17.1"))
"""A FastAPI that is not supported, and an httpx below the limits of its instrumentor."""
CREDENTIAL = "Bearer-hunter2"
TWICE = ("uvicorn", "apps.twice:app", "--workers", "2")


@dataclass(frozen=True)
class Case:
    """One breakage, and what the doctor must say about it."""

    code: str
    says: tuple[str, ...]
    """Words that must stand in the cause or the fix."""
    environment: Environment = LOCKED
    variables: Mapping[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    beside: frozenset[str] = frozenset()
    """Other problems that this breakage brings along."""


class _Sink(BaseHTTPRequestHandler):
    """Takes OTLP as a Collector does, and notes what came."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.bodies.append((self.path, len(body)))  # type: ignore[attr-defined]
        self.send_response(200 if self.path.startswith("/v1/") else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing: the test's own output is what counts."""


@pytest.fixture(scope="module")
def sink() -> Iterator[ThreadingHTTPServer]:
    """An OTLP endpoint."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Sink)
    server.bodies = []  # type: ignore[attr-defined]
    with serving(server):
        yield server


@dataclass(frozen=True)
class Doctor:
    """Runs the doctor in an environment that is healthy but for what a case breaks."""

    endpoint: str
    folder: Path

    def run(self, case: Case, *options: str) -> subprocess.CompletedProcess[str]:
        """One run."""
        program = environments.make(case.environment).program("otel-shim")
        command = ["--", *case.command] if case.command else []
        return subprocess.run(
            [program, "doctor", *options, *command],
            cwd=APPS.parent,
            env=self.environ(case),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def environ(self, case: Case) -> dict[str, str]:
        """All that the doctor is told; nothing of the environment of the tests."""
        programs = str(case.environment.path / "bin")
        return {
            "PATH": os.pathsep.join((programs, os.environ["PATH"])),
            "HOME": str(self.folder),
            "OTEL_SERVICE_NAME": "patient",
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.endpoint,
            "OTEL_EXPORTER_OTLP_HEADERS": f"authorization={CREDENTIAL}",
            "OTEL_SHIM_STATE_DIRECTORY": str(self.folder / "state"),
            **({"OTEL_PYTHON_DISTRO": "otel_shim"} if case.environment == BESIDE else {}),
            **case.variables,
        }


@pytest.fixture
def doctor(sink: ThreadingHTTPServer, tmp_path: Path) -> Doctor:
    """The doctor, with an endpoint that answers and a state directory of its own."""
    return Doctor(f"http://127.0.0.1:{sink.server_port}", tmp_path)


(CLOSED,) = free_ports(1)
BREAKAGES = {
    "wrong distro": Case(
        "distro-other",
        (
            "OTEL_PYTHON_DISTRO=distro",
            "opentelemetry-distro 0.66b1",
            "set OTEL_PYTHON_DISTRO=otel_shim",
        ),
        BESIDE,
        {"OTEL_PYTHON_DISTRO": "distro", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
        beside=frozenset({"configurator-other"}),
    ),
    "Elastic's distro": Case(
        "distro-other",
        ("OTEL_PYTHON_DISTRO=distro", "elastic-opentelemetry 1.18.0"),
        ELASTIC,
        {
            "OTEL_PYTHON_DISTRO": "distro",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": "otel",
        },
        beside=frozenset({"configurator-other"}),
    ),
    "wrong distro, whose exporter is not installed": Case(
        "loader-failed",
        ("otlp_proto_grpc",),
        BESIDE,
        {"OTEL_PYTHON_DISTRO": "distro"},
        beside=frozenset({"distro-other", "configurator-other", "not-traced"}),
    ),
    "misspelt distro": Case(
        "distro-unknown",
        (
            "OTEL_PYTHON_DISTRO=otel-shim",
            "names no installed distro",
            "set OTEL_PYTHON_DISTRO=otel_shim",
        ),
        variables={"OTEL_PYTHON_DISTRO": "otel-shim"},
    ),
    "skipped instrumentor": Case(
        "instrumentor-skipped",
        (
            "opentelemetry-instrumentation-httpx 0.66b1",
            "httpx>=0.18.0",
            "httpx 0.17.1 is installed",
        ),
        OLD,
        beside=frozenset({"package-too-old"}),
    ),
    "second handler": Case(
        "second-handler",
        ("sent 2 times", "LoggingHandler on the logger root"),
        variables={"OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED": "true"},
    ),
    "second exporter": Case(
        "second-exporter",
        ("2 exporters send traces to http://127.0.0.1:", "arrives 2 times"),
        command=("gunicorn", "apps.again:app"),
        beside=frozenset({"command-not-found"}),
    ),
    "dead exporter": Case(
        "exporter-unreachable",
        (f"127.0.0.1:{CLOSED}", "Connection refused", "traces, metrics, logs"),
        variables={"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{CLOSED}"},
    ),
    "pure-Python protobuf": Case(
        "protobuf-python",
        ("pure Python", "unset PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"),
        variables={"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"},
    ),
    "no key directory": Case(
        "key-unusable",
        ("/proc/otel-shim", "user.hash is left out", "OTEL_SHIM_STATE_DIRECTORY"),
        variables={"OTEL_SHIM_STATE_DIRECTORY": "/proc/otel-shim"},
    ),
    "double instrumentation": Case(
        "double-tracing",
        (
            "one query gave 2 spans",
            "otel_shim.sqlalchemy",
            "opentelemetry.instrumentation.sqlalchemy",
        ),
        BESIDE,
        command=TWICE,
    ),
    "bad source expression": Case(
        "bad-source",
        ("OTEL_SHIM_ORG_ID: cannot read 'dependncy:user.org_id'", "dependency:current_user.org_id"),
        variables={"OTEL_SHIM_ORG_ID": "dependncy:user.org_id"},
    ),
    "configuration file that is not there": Case(
        "config-file",
        ("OTEL_CONFIG_FILE=/nowhere/sdk.yaml",),
        BESIDE,
        {"OTEL_CONFIG_FILE": "/nowhere/sdk.yaml"},
    ),
    "configuration file without its package": Case(
        "config-file",
        ("OTEL_CONFIG_FILE=/nowhere/sdk.yaml", "extra `config-file`"),
        variables={"OTEL_CONFIG_FILE": "/nowhere/sdk.yaml"},
    ),
    "broken configuration file": Case(
        "config-file",
        ("OTEL_CONFIG_FILE=BROKEN", "is not used"),
        BESIDE,
        {"OTEL_CONFIG_FILE": "BROKEN"},
    ),
    "too old package": Case(
        "package-too-old",
        ("fastapi 0.109.2", "0.110", "pip install --upgrade"),
        OLD,
        beside=frozenset({"instrumentor-skipped"}),
    ),
}


def _report(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def _problems(report: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    return {f["code"]: f for f in report["findings"] if f["severity"] != "info"}


def test_a_healthy_environment_has_no_problem(doctor: Doctor, sink: ThreadingHTTPServer) -> None:
    """Exit code 0; every endpoint was tried with an empty request, and nothing else arrived there."""
    sink.bodies.clear()  # type: ignore[attr-defined]
    done = doctor.run(Case("", ()), "--json")
    report = _report(done)
    assert (done.returncode, report["healthy"], _problems(report)) == (0, True, {})
    came = sorted(sink.bodies)  # type: ignore[attr-defined]
    assert came == [("/v1/logs", 0), ("/v1/metrics", 0), ("/v1/traces", 0)]
    seen = report["observed"]
    assert seen["distro"]["winner"] == "otel_shim.entry:ShimDistro"
    assert seen["key"] == {
        "state": "host",
        "where": str(doctor.folder / "state"),
        "mode": "0600",
        "made": True,
        "problem": "",
    }
    states = {i["name"]: i["state"] for i in seen["instrumentors"]}
    assert states.items() >= {("fastapi", "replaced"), ("logging", "replaced"), ("httpx", "loaded")}
    assert states.items() >= {
        ("requests", "loaded"),
        ("retries", "loaded"),
        ("niquests", "skipped"),
    }
    assert seen["trial"]["query_spans"] == ["SELECT by otel_shim.sqlalchemy"]


def test_nothing_secret_is_shown(doctor: Doctor) -> None:
    """Neither credentials for the endpoint nor the key of pseudonyms, in either format."""
    address = doctor.endpoint.replace("://", "://user:hunter3@")
    case = Case("", (), variables={"OTEL_EXPORTER_OTLP_ENDPOINT": address})
    said = "".join(d.stdout + d.stderr for d in (doctor.run(case), doctor.run(case, "--json")))
    secret = (doctor.folder / "state" / "secret").read_text()
    assert "authorization=***" in said
    for hidden in (CREDENTIAL, "hunter3", secret):
        assert hidden not in said


@pytest.mark.parametrize("name", BREAKAGES)
def test_breakage_is_named(doctor: Doctor, name: str) -> None:
    """Exit code 1, one problem with cause and fix, the same in JSON and in text."""
    case = _staged(BREAKAGES[name], doctor.folder)
    done = doctor.run(case, "--json")
    assert done.returncode == 1, done.stdout + done.stderr
    problems = _problems(_report(done))
    assert case.code in problems, problems
    assert problems.keys() - {case.code} <= case.beside, problems
    finding = problems[case.code]
    words = tuple(word.replace("BROKEN", str(doctor.folder / "sdk.yaml")) for word in case.says)
    assert all(w in f"{finding['cause']} {finding['fix']}" for w in words), finding
    text = doctor.run(case)
    assert text.returncode == 1
    flat = " ".join(text.stdout.split())
    assert f"{finding['severity']} {case.code}: {' '.join(finding['cause'].split())}" in flat
    assert f"fix: {' '.join(finding['fix'].split())}" in flat


def _staged(case: Case, folder: Path) -> Case:
    """The case with its broken file in place."""
    if case.variables.get("OTEL_CONFIG_FILE") != "BROKEN":
        return case
    file = folder / "sdk.yaml"
    file.write_text('file_format: "1.0"\ntracer_provider:\n  processors:\n    - nonsense: {}\n')
    return Case(
        case.code, case.says, case.environment, {"OTEL_CONFIG_FILE": str(file)}, case.command
    )


@pytest.mark.parametrize("environment", [BESIDE, ELASTIC], ids=lambda each: each.name)
def test_several_distros_are_an_info(doctor: Doctor, environment: Environment) -> None:
    """None is named: the launcher takes ours, and so does the doctor, which says why it is no matter of chance."""
    case = Case("", (), environment)
    environ = doctor.environ(case)
    environ.pop("OTEL_PYTHON_DISTRO", None)
    done = subprocess.run(
        [environments.make(environment).program("otel-shim"), "doctor", "--json"],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    report = _report(done)
    assert (done.returncode, _problems(report)) == (0, {})
    (finding,) = (f for f in report["findings"] if f["code"] == "distro-order")
    assert "2 distros" in finding["cause"] and "takes otel_shim" in finding["cause"]
    seen = report["observed"]
    assert seen["distro"]["winner"] == "otel_shim.entry:ShimDistro"
    assert seen["configurator"]["winner"] == "otel_shim.entry:ShimConfigurator"


def test_worker_processes_are_hinted_at(doctor: Doctor) -> None:
    """The command line's workers are an info, not a problem; its application is imported."""
    command = ("opentelemetry-instrument", "uvicorn", "apps.people:nothing", "--workers", "3")
    report = _report(doctor.run(Case("", (), command=command), "--json"))
    codes = {f["code"]: f["cause"] for f in report["findings"]}
    assert "3 processes" in codes["workers"]
    assert "AttributeError" in codes["app-import"]


ROUTED = """
from fastapi import APIRouter, Depends, FastAPI
def get_current_user(): ...
router = APIRouter(dependencies=[Depends(get_current_user)])
@router.get("/")
def read(): ...
app = FastAPI()
app.include_router(router)
"""


@pytest.mark.parametrize(
    "command",
    [
        ("uvicorn", "--app-dir", "{folder}", "routed:app", "--workers", "3"),
        ("gunicorn", "--chdir", "{folder}", "-c", "{folder}/web.py", "routed:app"),
    ],
)
def test_an_application_is_looked_for_where_its_server_looks(
    doctor: Doctor, command: tuple[str, ...], tmp_path: Path
) -> None:
    """Its routers' dependencies are seen, and gunicorn's file is read; none of that is a problem."""
    (tmp_path / "routed.py").write_text(ROUTED)
    (tmp_path / "web.py").write_text("workers = 3\nraise SystemExit('run')\n")
    words = tuple(word.format(folder=tmp_path) for word in command)
    report = _report(doctor.run(Case("", (), command=words), "--json"))
    assert report["observed"]["app"]["problem"] == ""
    assert "get_current_user" in report["observed"]["app"]["dependencies"]
    codes = {finding["code"]: finding["cause"] for finding in report["findings"]}
    assert "3 processes" in codes["workers"] and "app-import" not in codes


def test_usage_is_told(doctor: Doctor) -> None:
    """An unknown option is a usage error."""
    assert doctor.run(Case("", ()), "--nonsense").returncode == 2
