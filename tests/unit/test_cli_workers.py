"""What command lines say."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from otel_shim.cli import application, workers
from otel_shim.cli.observation import Exporter, Finding

HTTP = Exporter("traces", "opentelemetry.exporter.otlp.proto.http.x", "http://c")
GRPC = Exporter("traces", "opentelemetry.exporter.otlp.proto.grpc.x", "http://c")


def _codes(command: str, exporter: Exporter = HTTP, **environ: str) -> set[str]:
    found = workers.findings(command.split(), environ, sys.executable, [exporter])
    return {finding.code for finding in found} - {"command-not-found", "other-python"}


@pytest.mark.parametrize(
    ("command", "codes"),
    [
        ("uvicorn app:app", set()),
        ("uvicorn app:app --workers 1", set()),
        ("uvicorn app:app --workers 4", {"workers"}),
        ("opentelemetry-instrument python -m uvicorn app:app --workers=4", {"workers"}),
        ("uvicorn app:app --reload", {"reload"}),
        ("hypercorn -w 2 app:app", {"workers"}),
        ("gunicorn -k uvicorn.workers.UvicornWorker app:app", set()),
        ("gunicorn --preload app:app", {"preload"}),
        ("celery -A app worker", set()),
    ],
)
def test_hints(command: str, codes: set[str]) -> None:
    """Each way of starting workers."""
    assert _codes(command) == codes


def test_settings_of_the_environment_count() -> None:
    """As the servers read them."""
    assert _codes("uvicorn app:app", WEB_CONCURRENCY="3") == {"workers"}
    assert _codes("gunicorn app:app", GUNICORN_CMD_ARGS="--preload") == {"preload"}


def test_grpc_does_not_survive_preload() -> None:
    """A problem, not a hint."""
    assert _codes("gunicorn --preload app:app", GRPC) == {"preload-grpc"}


def _interpreter(program: Path, executable: str) -> list[Finding]:
    return list(workers.findings([str(program)], {}, executable, []))


def test_a_program_of_another_environment_is_named(tmp_path: Path) -> None:
    """By the first line of its script."""
    program = tmp_path / "uvicorn"
    program.write_text("#!/elsewhere/bin/python3\n")
    program.chmod(0o755)
    assert [f.code for f in _interpreter(program, "/here/bin/python")] == ["other-python"]
    assert _interpreter(program, "/elsewhere/bin/python") == []
    program.write_text("#!/bin/sh\n")
    assert _interpreter(program, "/here/bin/python") == []
    assert [f.code for f in _interpreter(tmp_path / "none", "/x")] == ["command-not-found"]


@pytest.mark.parametrize(
    ("command", "target"),
    [
        ("uvicorn shop.main:app --host 127.0.0.1:80", "shop.main:app"),
        ("gunicorn -b 0.0.0.0:8000 shop:make()", "shop:make()"),
        ("python -m uvicorn shop:app", "shop:app"),
        ("python manage.py", None),
        ("uvicorn --version", None),
    ],
)
def test_the_application_of_a_command(command: str, target: str | None) -> None:
    """The module and attribute that the server serves."""
    assert application.target_of(command.split()) == target


def test_an_application_is_imported_and_described(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names of its dependencies, nested ones too; of what it raises only kind and place."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "doctored_app.py").write_text(
        "from fastapi import Depends, FastAPI\n"
        "def get_session(): ...\n"
        "def get_user(session=Depends(get_session)): ...\n"
        "app = FastAPI()\n"
        "@app.get('/')\n"
        "def read(user=Depends(get_user)): ...\n"
        "def make(): return app\n"
    )
    expected = ("get_session", "get_user", "session", "user")
    assert application.load("doctored_app:app").dependencies == expected
    assert application.load("doctored_app:make()").dependencies == expected
    (tmp_path / "doctored_broken.py").write_text("raise KeyError('postgres://user:secret@db')\n")
    assert application.load("doctored_broken:app").problem == "KeyError at doctored_broken.py:1"
