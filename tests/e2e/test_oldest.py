"""The oldest versions that our instrumentors declare: all that is to be captured is there, and a sample of it works."""

from __future__ import annotations

import subprocess
from importlib.metadata import entry_points

import pytest
from packaging.requirements import Requirement

from tests.wheel import ROOT

from . import environments
from .environments import OLDEST_CALDAV, OLDEST_QUEUES, Environment
from .test_queues import (
    place,
    redis,
    taker,
    test_a_run_that_hangs_is_judged,
    test_attempts_of_one_run,
    test_calendars_of_work_horses,
)
from .test_scheduler import (
    test_a_killed_worker_of_a_pool_is_a_failed_run,
    test_what_a_trigger_declares,
)

__all__ = [
    "place",
    "redis",
    "taker",
    "test_a_killed_worker_of_a_pool_is_a_failed_run",
    "test_a_run_that_hangs_is_judged",
    "test_attempts_of_one_run",
    "test_calendars_of_work_horses",
    "test_what_a_trigger_declares",
]
OURS = ("apscheduler", "caldav", "google_calendar", "icalendar", "celery", "rq")
OLDEST = {
    name: version
    for each in (*OLDEST_CALDAV.replaced, *OLDEST_QUEUES.replaced)
    for name, _, version in [each.replace("[redis]", "").partition("==")]
    if name != "setuptools"
}
SAMPLE = (
    "first_synchronisation or incremental or test_lost_token or test_conflict"
    " or test_rate_limit or pages_are_one or test_a_look or test_items_that_cannot_be_read"
)
ABSENT = """
import importlib, importlib.util
from importlib.metadata import entry_points
from otel_shim.capture import patches
for each in entry_points(group="opentelemetry_instrumentor"):
    if each.value.startswith("otel_shim."):
        each.load()().instrument()
tried = []
while left := [m for m in patches.waiting() if m not in tried]:
    tried += left
    for module in left:
        if importlib.util.find_spec(module.partition(".")[0]) is not None:
            try:
                importlib.import_module(module)
            except ModuleNotFoundError as error:
                assert module.startswith(("urllib3", "niquests", "tenacity")), error
print("absent:", *patches.absent())
"""


@pytest.fixture(scope="module")
def environment() -> Environment:
    """What the tests of queues run in here."""
    return environments.make(OLDEST_QUEUES)


@pytest.fixture(scope="module")
def scheduler() -> Environment:
    """What the tests of APScheduler run in here."""
    return environments.make(OLDEST_QUEUES)


def test_the_oldest_is_what_is_declared() -> None:
    """What is tested here is the lower end of each range."""
    found = {}
    for each in entry_points(group="opentelemetry_instrumentor"):
        if each.name in OURS and each.value.startswith("otel_shim."):
            (text,) = each.load()().instrumentation_dependencies()
            needed = Requirement(text)
            (lowest,) = (s.version for s in needed.specifier if s.operator == ">=")
            found[needed.name] = lowest
    assert found.keys() == OLDEST.keys()
    for name, lowest in found.items():
        assert (OLDEST[name] + ".").startswith(lowest + "."), name


@pytest.mark.parametrize("oldest", [OLDEST_QUEUES, OLDEST_CALDAV], ids=lambda each: each.name)
def test_all_that_is_captured_is_there(oldest: Environment) -> None:
    """No function that we wrap is missing."""
    python = environments.make(oldest).program("python")
    done = subprocess.run([python, "-c", ABSENT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "absent:", done.stdout


def test_calendars() -> None:
    """A sample of the tests against real servers."""
    python = environments.make(OLDEST_CALDAV).program("python")
    done = subprocess.run(
        [python, "-m", "pytest", "tests/calendar", "-k", f"({SAMPLE}) and not async"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout
