"""What the end-to-end tests share: environments with the wheel, Collector, Jaeger."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.saas.demo.stack import Stack, running

from . import environments, matrix, server
from .environments import Environment

CHOSEN = pytest.StashKey[tuple[matrix.Cell, ...]]()


@pytest.fixture(scope="session")
def locked() -> Environment:
    """The environment that uv.lock describes."""
    return environments.make(environments.LOCKED)


@pytest.fixture(scope="session")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[server.Backend]:
    """A Collector with Jaeger behind it, for all tests; services are told apart by their names."""
    with server.backend(tmp_path_factory.mktemp("backend")) as started:
        yield started


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    """Processes of one test, stopped at its end; their working directory is the test's own."""
    with running(tmp_path) as started:
        yield started


def pytest_collection_finish(session: pytest.Session) -> None:
    """Note which cells of the matrix this run has."""
    items = (item for item in session.items if isinstance(item, pytest.Function))
    tests = (item for item in items if item.originalname == matrix.TEST)
    cells = (item.callspec.params["cell"] for item in tests)
    chosen = tuple(cell for cell in cells if isinstance(cell, matrix.Cell))
    session.config.stash[CHOSEN] = chosen


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A cell that did not run is a failure, whatever kept it from running."""
    chosen = _chosen(session.config)
    if matrix.lacking(chosen) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the matrix, where this run has any of its cells."""
    if chosen := _chosen(terminalreporter.config):
        terminalreporter.section("loader x server x framework")
        for line in matrix.table(chosen):
            terminalreporter.line(line)


def _chosen(config: pytest.Config) -> tuple[matrix.Cell, ...]:
    """The cells that were to run."""
    return () if config.option.collectonly else config.stash.get(CHOSEN, ())
