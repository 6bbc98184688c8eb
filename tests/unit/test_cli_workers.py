"""What command lines say."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from otel_shim.cli import application, commands, workers
from otel_shim.cli.observation import Exporter, Finding

HTTP = Exporter("traces", "opentelemetry.exporter.otlp.proto.http.x", "http://c")
GRPC = Exporter("traces", "opentelemetry.exporter.otlp.proto.grpc.x", "http://c")


def _codes(command: str, exporter: Exporter = HTTP, **environ: str) -> set[str]:
    words = command.split()
    parsed = commands.parse(words, environ)
    found = workers.findings(words, parsed, sys.executable, [exporter])
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
        ("gunicorn -w 4 app:app", {"workers"}),
        ("gunicorn -w4 app:app", {"workers"}),
        ("gunicorn --workers=4 -w 1 app:app", set()),
        ("gunicorn --reload app:app", {"reload"}),
        ("celery -A app worker", set()),
    ],
)
def test_hints(command: str, codes: set[str]) -> None:
    """Each way of starting workers."""
    assert _codes(command) == codes


def test_settings_of_the_environment_count() -> None:
    """As the servers read them."""
    assert _codes("uvicorn app:app", WEB_CONCURRENCY="3") == {"workers"}
    assert _codes("uvicorn app:app", UVICORN_WORKERS="3") == {"workers"}
    assert _codes("hypercorn app:app", WEB_CONCURRENCY="3") == set()
    assert _codes("gunicorn app:app", WEB_CONCURRENCY="3") == {"workers"}
    assert _codes("gunicorn -w 1 app:app", WEB_CONCURRENCY="3") == set()
    assert _codes("gunicorn app:app", GUNICORN_CMD_ARGS="--preload") == {"preload"}
    assert _codes("gunicorn -w 1 app:app", GUNICORN_CMD_ARGS="--workers 5") == set()


CONFIGURED = """
import multiprocessing
from pathlib import Path
Path("ran").touch()
workers: int = {workers}
preload_app = True
wsgi_app = "shop:app"
chdir = "src"
"""


@pytest.mark.parametrize(
    ("command", "file", "started"),
    [
        ("gunicorn", "gunicorn.conf.py", "3 processes"),
        ("gunicorn -c conf/web.py", "conf/web.py", "3 processes"),
        ("gunicorn --config=file:conf/web.py", "conf/web.py", "3 processes"),
        ("gunicorn -c python:conf.web", "conf/web.py", "3 processes"),
        ("gunicorn -w 7", "gunicorn.conf.py", "7 processes"),
    ],
)
def test_gunicorns_file_is_read_and_never_run(
    command: str, file: str, started: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is somebody's Python: what it works out is said to be unknown."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(CONFIGURED.format(workers="3"))
    parsed = commands.parse(command.split(), {})
    assert (parsed.target(), parsed.folder()) == ("shop:app", "src")
    found = {f.code: f.cause for f in workers.findings([], parsed, sys.executable, [HTTP])}
    assert found.keys() == {"preload", "workers"} and started in found["workers"]
    (tmp_path / file).write_text(CONFIGURED.format(workers="multiprocessing.cpu_count() * 2"))
    if "-w" not in command:
        parsed = commands.parse(command.split(), {})
        (said,) = workers._workers(parsed)
        assert "its configuration file works out" in said.cause
    (tmp_path / file).write_text("no Python:")
    assert commands.parse(command.split(), {}).file == {}
    assert not (tmp_path / "ran").exists()


def test_grpc_does_not_survive_preload() -> None:
    """A problem, not a hint."""
    assert _codes("gunicorn --preload app:app", GRPC) == {"preload-grpc"}


def _interpreter(program: Path, executable: str) -> list[Finding]:
    return list(workers.findings([str(program)], commands.Command(), executable, []))


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
        ("gunicorn -c python:settings shop:app", "shop:app"),
        ("uvicorn --factory shop:make", "shop:make()"),
    ],
)
def test_the_application_of_a_command(command: str, target: str | None) -> None:
    """The module and attribute that the server serves."""
    assert commands.parse(command.split(), {}).target() == target


@pytest.mark.parametrize(
    ("command", "folder", "paths"),
    [
        ("uvicorn shop:app", "", ()),
        ("uvicorn --app-dir src shop:app", "", ("src",)),
        ("uvicorn --app-dir=src shop:app", "", ("src",)),
        ("gunicorn --chdir src shop:app", "src", ()),
        ("gunicorn --pythonpath src,lib shop:app", "", ("src", "lib")),
        ("granian --working-dir src shop:app", "src", ()),
    ],
)
def test_where_a_server_looks_for_the_application(
    command: str,
    folder: str,
    paths: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is imported from there, and the doctor stays where it is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "shop", raising=False)
    (tmp_path / "src").mkdir()
    there = tmp_path / "src" if folder or paths else tmp_path
    (there / "shop.py").write_text("class app: routes = ()\n")
    parsed = commands.parse(command.split(), {})
    assert (parsed.folder(), parsed.paths()) == (folder, paths)
    assert application.load("shop:app", parsed.folder(), parsed.paths()).problem == ""
    assert Path.cwd() == tmp_path
    monkeypatch.delitem(sys.modules, "shop")


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


INCLUDED = """
from fastapi import APIRouter, Depends, FastAPI, WebSocket
def at_app(): ...
def at_router(): ...
def at_include(): ...
def at_route(): ...
def of_socket(): ...
def nested(): ...
def below(found=Depends(nested)): ...
def mounted(): ...
inner = APIRouter(dependencies=[Depends(at_router)])
@inner.get("/", dependencies=[Depends(at_route)])
def read(user=Depends(below)): ...
@inner.websocket("/ws")
async def listen(socket: WebSocket, who=Depends(of_socket)): ...
outer = APIRouter()
outer.include_router(inner, prefix="/inner")
app = FastAPI(dependencies=[Depends(at_app)])
app.include_router(outer, prefix="/outer", dependencies=[Depends(at_include)])
sub = FastAPI()
@sub.get("/", dependencies=[Depends(mounted)])
def read_below(): ...
app.mount("/sub", sub)
"""


def test_dependencies_of_included_routers_are_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever they are declared, however deep, whether FastAPI copies the routes or keeps the router."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "doctored_routers.py").write_text(INCLUDED)
    found = application.load("doctored_routers:app")
    declared = {"at_app", "at_router", "at_include", "at_route", "of_socket", "nested", "below"}
    assert set(found.dependencies) == {*declared, "mounted", "found", "user", "who"}, found
