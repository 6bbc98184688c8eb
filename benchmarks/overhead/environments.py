"""The two virtual environments that are compared, made with uv from the project's lock."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# The official instrumentor refuses 2.1 and traces nothing there, so both get the newest 2.0.
SQLALCHEMY = "sqlalchemy==2.0.58"
_SHOWN = ("fastapi", "httpx", "opentelemetry-sdk", "opentelemetry-instrumentation", "sqlalchemy")
_GROUPS = {
    "official": ("--only-group", "bench-official"),
    "shim": (
        "--no-default-groups",
        "--group=saas-api",
        "--no-editable",
        "--reinstall-package=otel-shim",
    ),
}
_VERSIONS = """
import importlib.metadata, json, platform
found = {d.name.lower(): d.version for d in importlib.metadata.distributions()}
print(json.dumps({"python": platform.python_version(), **dict(sorted(found.items()))}))
"""


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment and what is installed in it."""

    directory: Path
    versions: dict[str, str]

    def program(self, name: str) -> str:
        """The path of one of its programs."""
        return str(self.directory / "bin" / name)

    def shown(self) -> dict[str, str]:
        """The versions that matter for the comparison."""
        return {name: self.versions[name] for name in ("python", *_SHOWN)}


def make(name: str) -> Environment:
    """Bring an environment up to date; ``subprocess.CalledProcessError`` where uv cannot."""
    directory = ROOT / ".build" / "envs" / f"bench-{name}"
    _uv("sync", "--frozen", *_GROUPS[name], environment=directory)
    python = directory / "bin" / "python"
    _uv("pip", "install", "--python", str(python), SQLALCHEMY, environment=directory)
    found = subprocess.run([python, "-c", _VERSIONS], check=True, capture_output=True, text=True)
    return Environment(directory, json.loads(found.stdout))


def differing(one: Environment, other: Environment) -> list[str]:
    """The packages that both have, in different versions; there must be none."""
    both = one.versions.keys() & other.versions.keys()
    return sorted(name for name in both if one.versions[name] != other.versions[name])


def _uv(*arguments: str, environment: Path) -> None:
    env = {**os.environ, "UV_PROJECT_ENVIRONMENT": str(environment)}
    env.pop("VIRTUAL_ENV", None)
    subprocess.run(["uv", *arguments, "--quiet"], cwd=ROOT, env=env, check=True)
