"""Every way in which an application is really run: the cells of the matrix, and the table of them."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path

from tests.wheel import BUILD, building, run_uv

from . import interpreters
from .apps.people import Person
from .environments import APPS, Environment

_SERVERS = ("gunicorn==27.0.1", "uvicorn-worker==0.4.0", "hypercorn==0.18.0", "websockets==17.4")
_LOGGING = ("structlog==26.1.0", "loguru==0.7.3")
_OFFICIAL = (
    "opentelemetry-configuration==0.66b1",
    "opentelemetry-instrumentation-sqlalchemy==0.66b1",
    "opentelemetry-instrumentation-starlette==0.66b1",
)
_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
_ALL = (*_SERVERS, *_LOGGING, *_OFFICIAL)
_SQLALCHEMY_2_0 = "sqlalchemy==2.0.58"
_OLDEST_FASTAPI = ("fastapi==0.110.0", "starlette==0.36.3")
_OLD_FASTAPI = ("fastapi==0.110.3", "starlette==0.37.2")
# aiosqlite 0.22 is no thread any more, which SQLAlchemy knows from 2.0.45 on.
_OLDEST_SQLALCHEMY = ("sqlalchemy==2.0.0", "aiosqlite==0.19.0")
_ELASTIC = ("elastic-opentelemetry==1.18.0", _SQLALCHEMY_2_0)
_FOR_3_10 = ("fastapi==0.162.5", "sqlalchemy[asyncio]==2.0.58", "aiosqlite==0.22.1", "uvicorn")
NEWEST = Environment("matrix-newest", _ALL)
NEWEST_SQL20 = Environment("matrix-newest-sql20", (*_ALL, _SQLALCHEMY_2_0))
OLD = Environment("matrix-old", (*_ALL, *_OLDEST_FASTAPI))
OLD_SQL20 = Environment("matrix-old-sql20", (*_ALL, *_OLD_FASTAPI, *_OLDEST_SQLALCHEMY))
ELASTIC = Environment("matrix-elastic", (*_ALL, *_ELASTIC))
PYTHON_3_10 = Environment(
    "matrix-python-3.10", (*_LOGGING, *_OFFICIAL, *_FOR_3_10), "3.10", locked=False
)
PYTHON_3_12 = Environment("matrix-python-3.12", _ALL, "3.12")
PYTHON_3_13 = Environment("matrix-python-3.13", _ALL, "3.13")
PYTHON_3_14 = Environment("matrix-python-3.14", _ALL, "3.14")


@dataclass(frozen=True)
class Framework:
    """What the application is written with."""

    name: str
    environment: Environment
    app: str = "apps.shop:app"


FASTAPI = Framework("FastAPI 0.165, SQLAlchemy 2.1", NEWEST)
FASTAPI_SQL20 = Framework("FastAPI 0.165, SQLAlchemy 2.0.58", NEWEST_SQL20)
CONTRIB = Framework("FastAPI 0.110.0, SQLAlchemy 2.1", OLD)
CONTRIB_SQL20 = Framework("FastAPI 0.110.3, SQLAlchemy 2.0.0", OLD_SQL20)
STARLETTE = Framework("Starlette 1.10, SQLAlchemy 2.1", NEWEST, "apps.plain:app")
STARLETTE_OLD = Framework("Starlette 0.37, SQLAlchemy 2.0.0", OLD_SQL20, "apps.plain:app")
WITH_ELASTIC = Framework("FastAPI 0.165, SQLAlchemy 2.0.58", ELASTIC)
ON_3_10 = Framework("FastAPI 0.162, SQLAlchemy 2.0.58", PYTHON_3_10)
ON_3_12 = Framework("FastAPI 0.165, SQLAlchemy 2.1", PYTHON_3_12)
ON_3_13 = Framework("FastAPI 0.165, SQLAlchemy 2.1", PYTHON_3_13)
ON_3_14 = Framework("FastAPI 0.165, SQLAlchemy 2.1", PYTHON_3_14)


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
    plan: Callable[[Person], str] = attrgetter("plan")
    """What ``saas.plan`` must be; a file says that it is to be read from another place than by default."""
    queries: bool = True
    """Whether the statements of the database are traced."""
    off: bool = False
    """Whether there is to be no telemetry at all."""

    @property
    def other(self) -> bool:
        """Whether another distro is installed, about which the loader speaks before there is a log."""
        return self.beside or self.name.startswith("Elastic")


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
    plan: [dependency:current_user.role, dependency:get_current_user.role, user:role]
"""
_GOOD = _FILE.replace("{processor}", "batch").replace("{delay}", ", schedule_delay: 300")
_UNKNOWN = _FILE.replace("{processor}", "our_own").replace("{delay}", "")
_WITHOUT_SQLALCHEMY = """\
instrumentation/development:
  python:
    sqlalchemy: {{enabled: false}}
"""
_HTTP = {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
ALONE = Loader("ours alone", {})
UNSET = Loader("theirs beside, none named", {}, beside=True)
OURS = Loader("theirs beside, ours named", {"OTEL_PYTHON_DISTRO": "otel_shim"}, beside=True)
THEIRS = Loader(
    "theirs beside, theirs named",
    {"OTEL_PYTHON_DISTRO": "distro", **_HTTP},
    beside=True,
    errors=("Configuration of otel_shim not loaded",),
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
ELASTIC_UNSET = Loader("Elastic's installed, none named", {})
ELASTIC_OURS = Loader("Elastic's installed, ours named", {"OTEL_PYTHON_DISTRO": "otel_shim"})
ELASTIC_THEIRS = Loader(
    "Elastic's installed, theirs named",
    {
        "OTEL_PYTHON_DISTRO": "distro",
        # Its own detectors ask the clouds who they are, over the network.
        "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": "telemetry_distro,service_instance,otel",
        **_HTTP,
    },
    errors=("Configuration of otel_shim not loaded",),
)
_role = attrgetter("role")
FILE = Loader("configuration file", {}, file=_GOOD, plan=_role)
FILE_OFF = Loader(
    "file with sqlalchemy off", {}, file=_GOOD + _WITHOUT_SQLALCHEMY, plan=_role, queries=False
)
FILE_THEIRS = replace(
    THEIRS,
    name="file, theirs named",
    file=_GOOD,
    plan=_role,
    errors=(*THEIRS.errors, "OTEL_CONFIG_FILE is set; ignoring configurator kwargs"),
)
FILE_BROKEN = Loader(
    "file that is no YAML", {}, file="file_format: [", errors=("OTEL_CONFIG_FILE=",)
)
FILE_UNUSABLE = Loader(
    "file with an unknown processor",
    {},
    file=_UNKNOWN,
    errors=("OTEL_CONFIG_FILE=",),
    plan=_role,
)
PARTLY_OFF = Loader(
    "instrumentation disabled",
    {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "sqlalchemy"},
    queries=False,
)
OFF = Loader("OTEL_SDK_DISABLED", {"OTEL_SDK_DISABLED": "true"}, off=True)


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

    @property
    def columns(self) -> tuple[str, ...]:
        """What stands in its row, but for the result."""
        python = self.framework.environment.python or _PYTHON
        return self.loader.name, self.server.name, self.framework.name, python

    @property
    def nodeid(self) -> str:
        """What pytest calls the test of it."""
        return f"{TEST}[{self}]"

    def __str__(self) -> str:
        return " | ".join(self.columns)


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
    Cell(FILE_OFF, UVICORN_WORKERS, FASTAPI),
    Cell(FILE_OFF, HYPERCORN, CONTRIB),
    Cell(FILE_THEIRS, UVICORN, FASTAPI_SQL20),
    Cell(PARTLY_OFF, UVICORN, FASTAPI),
    Cell(PARTLY_OFF, GUNICORN, CONTRIB_SQL20),
    Cell(OFF, UVICORN, FASTAPI),
    Cell(OFF, GUNICORN_PRELOAD, CONTRIB),
    Cell(ELASTIC_UNSET, UVICORN, WITH_ELASTIC),
    Cell(ELASTIC_OURS, GUNICORN, WITH_ELASTIC),
    Cell(ELASTIC_THEIRS, UVICORN, WITH_ELASTIC),
    Cell(ALONE, UVICORN, ON_3_10),
    Cell(ALONE, GUNICORN, ON_3_12),
    Cell(ALONE, UVICORN_WORKERS, ON_3_13),
    Cell(ALONE, UVICORN, ON_3_14),
)

RED, NOT_RUN = "RED", "NOT RUN"
TEST = "tests/e2e/test_matrix.py::test_a_cell_gives_correct_traces_and_logs"
"""The test that runs the cells."""


@functools.cache
def cells() -> tuple[Cell, ...]:
    """The cells of this machine: those for which it has the interpreter, or can get it."""
    return tuple(
        cell for cell in CELLS if interpreters.find(cell.framework.environment.python) is not None
    )


def table(results: Sequence[tuple[Cell, str]]) -> list[str]:
    """Cells as lines of text with what came of each, and last which Pythons are not here."""
    head = ("loader", "server", "framework", "python", "result")
    rows = [head, *((*cell.columns, result) for cell, result in results)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(text.ljust(w) for text, w in zip(row, widths, strict=True)) for row in rows]
    elsewhere = sorted(
        {cell.columns[-1] for cell in CELLS} - {cell.columns[-1] for cell in cells()}
    )
    return lines + [
        f"Python {version} is not on this machine and cannot be had from here: not in the matrix"
        for version in elsewhere
    ]


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
