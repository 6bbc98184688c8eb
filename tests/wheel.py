"""The wheel as it would be published, built once for each state of the sources."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / ".build" / "e2e"
KEEP_SECONDS = 3600.0
UV_SECONDS = 600.0
_PACKAGE = ("pyproject.toml", "README.md")


def run_uv(*arguments: str, stdin: str | None = None) -> str:
    """Run uv and return its standard output; raises AssertionError with its error output."""
    uv = shutil.which("uv") or str(ROOT / ".build/uv/bin/uv")
    environ = {
        k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT")
    }
    done = subprocess.run(
        [uv, *arguments],
        cwd=ROOT,
        env=environ,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=UV_SECONDS,
    )
    assert done.returncode == 0, f"uv {' '.join(arguments)}: {done.stderr}"
    return done.stdout


def digest(files: Sequence[Path]) -> str:
    """A short hash over names and contents."""
    found = hashlib.sha256()
    for file in sorted(files):
        found.update(str(file.relative_to(ROOT)).encode() + b"\0" + file.read_bytes() + b"\0")
    return found.hexdigest()[:16]


def package_digest() -> str:
    """A short hash over all that goes into the wheel."""
    sources = [f for f in (ROOT / "otel_shim").rglob("*") if f.suffix in (".py", ".typed")]
    return digest([*sources, *(ROOT / name for name in _PACKAGE)])


@contextmanager
def building() -> Iterator[None]:
    """Only one process of this host builds at a time."""
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def remove_old(pattern: str) -> None:
    """Remove what was built for sources of the past; what another run may still use is kept."""
    for old in BUILD.glob(pattern):
        if time.time() - old.stat().st_mtime > KEEP_SECONDS:
            shutil.rmtree(old)


def build_wheel() -> Path:
    """Build the wheel, unless it is there for these very sources."""
    folder = BUILD / f"wheel-{package_digest()}"
    with building():
        if not list(folder.glob("*.whl")):
            remove_old("wheel-*")
            run_uv("build", "--wheel", "--quiet", "--out-dir", str(folder))
    (wheel,) = folder.glob("*.whl")
    return wheel
