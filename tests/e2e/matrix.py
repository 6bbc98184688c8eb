"""Every way in which an application is really run: the cells of the matrix, and the table of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.wheel import BUILD, building, run_uv

from .environments import APPS, Environment

_SERVERS = ("gunicorn==27.0.1", "uvicorn-worker==0.4.0", "hypercorn==0.18.0", "websockets==17.4")
_LOGGING = ("structlog==26.1.0", "loguru==0.7.3")
_OFFICIAL = (
    "opentelemetry-configuration==0.66b1",
    "opentelemetry-instrumentation-sqlalchemy==0.66b1",
    "opentelemetry-instrumentation-starlette==0.66b1",
)
_ALL = (*_SERVERS, *_LOGGING, *_OFFICIAL)
_SQLALCHEMY_2_0 = "sqlalchemy==2.0.58"
_OLD_FASTAPI = ("fastapi==0.110.0", "starlette==0.36.3")
NEWEST = Environment("matrix-newest", _ALL)
NEWEST_SQL20 = Environment("matrix-newest-sql20", (*_ALL, _SQLALCHEMY_2_0))
OLD = Environment("matrix-old", (*_ALL, *_OLD_FASTAPI))
OLD_SQL20 = Environment("matrix-old-sql20", (*_ALL, *_OLD_FASTAPI, _SQLALCHEMY_2_0))
ENVIRONMENTS = (NEWEST, NEWEST_SQL20, OLD, OLD_SQL20)


@dataclass(frozen=True)
class Framework:
    """What the application is written with."""

    name: str
    environment: Environment
    app: str = "apps.shop:app"


FASTAPI = Framework("FastAPI 0.165, SQLAlchemy 2.1", NEWEST)
FASTAPI_SQL20 = Framework("FastAPI 0.165, SQLAlchemy 2.0", NEWEST_SQL20)
CONTRIB = Framework("FastAPI 0.110, SQLAlchemy 2.1", OLD)
CONTRIB_SQL20 = Framework("FastAPI 0.110, SQLAlchemy 2.0", OLD_SQL20)
STARLETTE = Framework("Starlette 1.10, SQLAlchemy 2.1", NEWEST, "apps.plain:app")
STARLETTE_OLD = Framework("Starlette 0.36, SQLAlchemy 2.0", OLD_SQL20, "apps.plain:app")


@dataclass(frozen=True)
class Loader:
    """What else is installed, what the operator set, and what must be said about it."""

    name: str
    variables: Mapping[str, str]
    beside: bool = False
    """Whether the official distro is found, and found before ours."""
    file: str | None = None
    """What stands in the file of OTEL_CONFIG_FILE."""
    errors: tuple[str, ...] = ()


_FILE = """\
file_format: "1.0"
resource:
  attributes:
    - {{name: service.name, value: print-shop}}
tracer_provider:
  processors:
    - {processor}: {{exporter: {{otlp_http: {{endpoint: "{otlp}/v1/traces"}}}}{delay}}}
logger_provider:
  processors:
    - batch: {{schedule_delay: 300, exporter: {{otlp_http: {{endpoint: "{otlp}/v1/logs"}}}}}}
distribution:
  otel_shim:
    org_id: [dependency:current_user.org_id, dependency:get_current_user.org_id, user:org_id]
"""
_GOOD = _FILE.replace("{processor}", "batch").replace("{delay}", ", schedule_delay: 300")
_UNKNOWN = _FILE.replace("{processor}", "our_own").replace("{delay}", "")
_HTTP = {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
ALONE = Loader("ours alone", {})
UNSET = Loader("theirs beside, none named", {}, beside=True)
OURS = Loader("theirs beside, ours named", {"OTEL_PYTHON_DISTRO": "otel_shim"}, beside=True)
THEIRS = Loader(
    "theirs beside, theirs named",
    {"OTEL_PYTHON_DISTRO": "distro", **_HTTP},
    beside=True,
    errors=("Configuration of otel_shim not loaded, configurator already loaded",),
)
MISSPELT = Loader(
    "theirs beside, misspelt",
    {"OTEL_PYTHON_DISTRO": "otel-shim"},
    beside=True,
    errors=(
        "OTEL_PYTHON_DISTRO=otel-shim is not installed",
        "Configuration of configurator not loaded because otel_shim is set",
    ),
)
FILE = Loader("configuration file", {}, file=_GOOD)
FILE_BROKEN = Loader(
    "file that is no YAML", {}, file="file_format: [", errors=("OTEL_CONFIG_FILE=",)
)
FILE_UNUSABLE = Loader(
    "file with an unknown processor", {}, file=_UNKNOWN, errors=("OTEL_CONFIG_FILE=",)
)


@dataclass(frozen=True)
class Server:
    """How the application is served; ``argv`` makes its arguments from application and port."""

    name: str
    argv: Callable[[str, int], tuple[str, ...]]
    workers: int = 1


def _uvicorn(*options: str) -> Callable[[str, int], tuple[str, ...]]:
    folder = str(APPS.parent)
    return lambda app, port: (
        *("uvicorn", "--app-dir", folder, "--port", str(port)),
        *(*options, app),
    )


def _gunicorn(*options: str) -> Callable[[str, int], tuple[str, ...]]:
    worker = "uvicorn_worker.UvicornWorker"
    return lambda app, port: (
        *("gunicorn", "--chdir", str(APPS.parent), "--bind", f"127.0.0.1:{port}"),
        *("--workers", "2", "--worker-class", worker, "--access-logfile", "-"),
        *("--no-control-socket", *options, app),
    )


UVICORN = Server("uvicorn", _uvicorn())
UVICORN_WORKERS = Server(
    "uvicorn --workers 2", _uvicorn("--workers", "2", "--timeout-worker-healthcheck", "60"), 2
)
UVICORN_RELOAD = Server("uvicorn --reload", _uvicorn("--reload", "--reload-dir", str(APPS)))
GUNICORN = Server("gunicorn", _gunicorn(), 2)
GUNICORN_PRELOAD = Server("gunicorn --preload", _gunicorn("--preload"), 2)
HYPERCORN = Server(
    "hypercorn",
    lambda app, port: (
        *("hypercorn", "--bind", f"127.0.0.1:{port}", "--access-logfile", "-", app),
    ),
)


@dataclass(frozen=True)
class Cell:
    """One way of running the application."""

    loader: Loader
    server: Server
    framework: Framework

    def __str__(self) -> str:
        return f"{self.loader.name} | {self.server.name} | {self.framework.name}"


CELLS = (
    Cell(ALONE, UVICORN, FASTAPI),
    Cell(ALONE, UVICORN, FASTAPI_SQL20),
    Cell(ALONE, UVICORN, CONTRIB),
    Cell(ALONE, UVICORN, CONTRIB_SQL20),
    Cell(ALONE, UVICORN, STARLETTE),
    Cell(ALONE, UVICORN, STARLETTE_OLD),
    Cell(ALONE, UVICORN_WORKERS, FASTAPI),
    Cell(ALONE, UVICORN_RELOAD, CONTRIB),
    Cell(ALONE, GUNICORN, FASTAPI),
    Cell(ALONE, GUNICORN, STARLETTE_OLD),
    Cell(ALONE, GUNICORN_PRELOAD, STARLETTE),
    Cell(ALONE, HYPERCORN, CONTRIB_SQL20),
    Cell(UNSET, UVICORN, FASTAPI_SQL20),
    Cell(UNSET, GUNICORN, CONTRIB_SQL20),
    Cell(OURS, UVICORN_WORKERS, FASTAPI_SQL20),
    Cell(THEIRS, UVICORN, FASTAPI_SQL20),
    Cell(THEIRS, GUNICORN_PRELOAD, CONTRIB_SQL20),
    Cell(THEIRS, HYPERCORN, STARLETTE_OLD),
    Cell(MISSPELT, HYPERCORN, FASTAPI),
    Cell(MISSPELT, UVICORN_RELOAD, FASTAPI_SQL20),
    Cell(FILE, UVICORN, FASTAPI),
    Cell(FILE, GUNICORN, CONTRIB),
    Cell(FILE_BROKEN, UVICORN_WORKERS, FASTAPI),
    Cell(FILE_UNUSABLE, UVICORN, CONTRIB_SQL20),
)

results: dict[str, str] = {}
"""What came of each cell in this run of the tests."""


def table() -> list[str]:
    """The matrix as lines of text; a cell that was not run says so."""
    rows = [("loader", "server", "framework", "result")]
    rows += [
        (c.loader.name, c.server.name, c.framework.name, results.get(str(c), "NOT RUN"))
        for c in CELLS
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return ["  ".join(text.ljust(w) for text, w in zip(row, widths, strict=True)) for row in rows]


def official_distro() -> Path:
    """A folder with the official distro alone; before all others on the path, it is found first."""
    folder = BUILD / "official-distro-0.66b1"
    with building():
        if not (folder / "complete").exists():
            run_uv(
                *("pip", "install", "--quiet", "--no-deps", "--target", str(folder)),
                "opentelemetry-distro==0.66b1",
            )
            (folder / "complete").touch()
    return folder


def official_launcher() -> Path:
    """The official launcher in an environment with the locked libraries and without ours."""
    folder = BUILD / "official-launcher"
    with building():
        if not (folder / "complete").exists():
            run_uv("venv", "--quiet", "--clear", str(folder))
            export = ("export", "--frozen", "--quiet", "--only-group", "bench-official")
            into = ("--python", str(folder / "bin/python"), "--requirements", "-")
            run_uv("pip", "install", "--quiet", *into, stdin=run_uv(*export))
            (folder / "complete").touch()
    return folder
