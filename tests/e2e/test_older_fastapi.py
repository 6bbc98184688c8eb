"""The pytest plugin with a FastAPI that has no telemetry of its own."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.wheel import ROOT

from . import environments
from .environments import Environment

_PYTEST = ("pytest", "pytest-asyncio", "structlog==26.1.0", "httpx==0.27.2")
OLDEST = Environment("testing-oldest", (*_PYTEST, "fastapi==0.110.0", "starlette==0.36.3"))
NEWEST = Environment("testing-contrib", (*_PYTEST, "fastapi==0.141.1"))


@pytest.mark.parametrize("environment", [OLDEST, NEWEST], ids=lambda each: each.name)
def test_the_plugin(environment: Environment) -> None:
    """Its own tests pass there: server spans, identity, mounted applications, and all as it was afterwards."""
    python = environments.make(environment).program("python")
    env = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "PYTHON"))}
    tests = ("-m", "pytest", "-p", "no:cacheprovider", "tests/unit/test_testing.py")
    done = subprocess.run(
        [python, *tests], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:]
