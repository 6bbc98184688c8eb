"""What the end-to-end tests share: environments with the wheel, Collector, Jaeger."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.saas.demo.stack import Stack, running

from . import environments, server
from .environments import Environment
from .telling import Telling

LONGEST = "test_simulation.py"


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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest file first: begun last, it would go on when the other processes have nothing left."""
    items.sort(key=lambda item: item.path.name != LONGEST)


def pytest_configure(config: pytest.Config) -> None:
    """Tell at the end what came of it all, unless this process only runs tests for another."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Telling())
