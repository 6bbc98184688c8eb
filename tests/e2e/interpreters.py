"""Where an interpreter of another version of Python is: on this machine, or from uv's downloads."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.wheel import BUILD, ROOT

DOWNLOAD_SECONDS = 120.0
UNREACHABLE = {"UV_HTTP_CONNECT_TIMEOUT": "3", "UV_HTTP_RETRIES": "0"}
"""A machine without the network knows at once; who has one may take its time to download."""


@functools.cache
def find(version: str) -> str | None:
    """The path of an interpreter; None where there is none and none can be downloaded."""
    if version in ("", f"{sys.version_info.major}.{sys.version_info.minor}"):
        return sys.executable
    return _of_pyenv(version) or _of_uv(version) or _downloaded(version)


def _of_pyenv(version: str) -> str | None:
    """Pyenv's shims fail for versions that are not switched on, so its folders are looked at."""
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found = sorted(root.glob(f"versions/{version}.*/bin/python"))
    return str(found[-1]) if found else None


def _of_uv(version: str) -> str | None:
    return _uv("find", "--no-python-downloads", version)


def _downloaded(version: str) -> str | None:
    """Kept below .build; None where uv cannot get it."""
    if _uv("install", "--quiet", version) is None:
        return None
    found = _uv("find", "--no-python-downloads", "--managed-python", version)
    assert found is not None, f"uv installed Python {version}, and does not find it"
    return found


def _uv(*arguments: str) -> str | None:
    """What `uv python` says; None where it fails."""
    uv = shutil.which("uv") or str(ROOT / ".build/uv/bin/uv")
    environ = {**os.environ, **UNREACHABLE, "UV_PYTHON_INSTALL_DIR": str(BUILD / "python")}
    try:
        done = subprocess.run(
            [uv, "python", *arguments],
            cwd=ROOT,
            env=environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=DOWNLOAD_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
