"""Servers that a test needs and that no registry of Python has: found, or installed where we are root."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from examples.saas.demo.stack import clean_environment
from tests.wheel import building

Found = TypeVar("Found")
# Debian's packages start servers of their own unless the policy of the system forbids it.
_ENVIRON = {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}


def found_or_installed(
    find: Callable[[], Found | None], package: str, settings: Mapping[Path, str]
) -> Found | None:
    """What ``find`` gives, after the installation of Debian's package where it gave nothing.

    ``settings`` are files that the package is to find when it is installed.

    Nothing is installed by anybody but root, nor where there is no apt-get. Raises AssertionError with
    the output of an installation that failed.
    """
    found = find()
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        with building():  # two processes of a test run do not install at once
            if find() is None:
                for path, text in settings.items():
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(text)
                _install(package)
        found = find()
    return found


def _install(package: str) -> None:
    install = ("apt-get", "install", "--yes", "--no-install-recommends", package)
    for argv in (("apt-get", "update"), install):
        run(argv, _ENVIRON)


def run(argv: tuple[str, ...], environ: Mapping[str, str], **more: Any) -> None:
    """Run a program to its end, with variables beside the caller's; AssertionError with its output if it fails."""
    done = subprocess.run(
        argv,
        env=clean_environment() | dict(environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        **more,
    )
    assert done.returncode == 0, f"{' '.join(argv)}:\n{done.stdout}"
