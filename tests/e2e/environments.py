"""Fresh virtual environments with the wheel in them, as a stranger's application would have."""

from __future__ import annotations

import functools
import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.wheel import BUILD, ROOT, build_wheel, building, package_digest, remove_old, run_uv

from . import interpreters

APPS = Path(__file__).resolve().parent / "apps"


@dataclass(frozen=True)
class Environment:
    """A virtual environment; ``replaced`` are the requirements that differ from uv.lock."""

    name: str
    replaced: tuple[str, ...] = ()
    python: str = ""
    """The version of Python, as ``3.13``; empty for the one that runs the tests."""
    locked: bool = True
    """Whether it starts from uv.lock; else from what the index gives today."""
    group: str = "saas-api"
    """The dependency group of the application, where it starts from uv.lock."""

    @functools.cached_property
    def path(self) -> Path:
        """Where it is, for the sources of the moment."""
        lock = hashlib.sha256((ROOT / "uv.lock").read_bytes()).hexdigest()
        made_from = f"{package_digest()} {lock} {self.python} {' '.join(self.replaced)}"
        return BUILD / f"{self.name}-{hashlib.sha256(made_from.encode()).hexdigest()[:12]}"

    def program(self, name: str) -> str:
        """The path of one of its programs."""
        return str(self.path / "bin" / name)


LOCKED = Environment("locked")
"""FastAPI with its own telemetry, SQLAlchemy 2.1, all as locked."""
SQLALCHEMY_2_0 = Environment("sqlalchemy-2.0", ("sqlalchemy==2.0.58",))
"""The newest 2.0, which most applications run on."""
CONTRIB_FASTAPI = Environment("contrib-fastapi", ("fastapi==0.141.1", "sqlalchemy==2.0.58"))
"""The newest FastAPI without telemetry of its own, so that the official instrumentor does the work."""
JOBS = Environment("jobs", group="saas-jobs")
"""With what the sample's scheduler needs: urllib3-future stands in the place of urllib3."""

CALENDAR = Environment("calendar", group="calendar")
"""Clients and servers of calendars: urllib3-future stands in the place of urllib3."""
OLDEST_QUEUES = Environment(
    "oldest-queues",
    (
        *("celery[redis]==5.3.0", "rq==3.0.0", "apscheduler==3.10.0"),
        *("icalendar==5.0.0", "google-api-python-client==2.50.0"),
        "setuptools==79.0.1",  # APScheduler before 3.10.2 asks it for its own version
    ),
)
"""The oldest versions that our instrumentors declare, of all but caldav."""
OLDEST_CALDAV = Environment(
    "oldest-caldav", ("caldav==3.5.0", "google-api-python-client==2.50.0"), group="calendar"
)
"""The oldest caldav, which needs a newer icalendar, with what the tests of calendars need."""
QUEUES = Environment("queues", ("celery[redis]==5.7.0", "rq==3.0.0", "icalendar==7.3.0"))
"""With both of the libraries for queues, the client of Redis, and the reader of feeds."""


def make(environment: Environment) -> Environment:
    """Install wheel and application packages, unless that was done for these very sources."""
    wheel = build_wheel()
    with building():
        if not (environment.path / "complete").exists():
            remove_old(f"{environment.name}-*")
            shutil.rmtree(environment.path, ignore_errors=True)
            _fill(environment, wheel)
    return environment


def _fill(environment: Environment, wheel: Path) -> None:
    runs = interpreters.find(environment.python)
    assert runs is not None, f"no Python {environment.python}"
    run_uv("venv", "--quiet", "--python", runs, str(environment.path))
    python = environment.program("python")
    if environment.locked:
        locked = run_uv(
            *("export", "--frozen", "--quiet", "--no-emit-project", "--no-default-groups"),
            *("--group", environment.group),
        )
        _install(python, "--requirements", "-", stdin=locked)
        _install(python, "--no-deps", str(wheel))
        if environment.replaced:
            _install(python, *environment.replaced)
    else:
        _install(python, str(wheel), *environment.replaced)
    run_uv("pip", "check", "--quiet", "--python", python)
    (environment.path / "complete").touch()


def _install(python: str, *what: str, stdin: str | None = None) -> None:
    run_uv("pip", "install", "--quiet", "--python", python, *what, stdin=stdin)
