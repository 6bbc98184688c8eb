"""Ports for what is started: two processes that ask at the same time are never given the same."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from examples.saas.demo import ports
from tests.wheel import ROOT

ASKING = """
from examples.saas.demo import ports
ports._candidates = lambda candidates=iter(ports.PORTS): candidates
print(*ports.free_ports(40), flush=True)
input()
"""


def test_processes_that_ask_at_once_share_none() -> None:
    """They begin at the same place on purpose, and keep what they were given until they end."""
    asking = [
        subprocess.Popen(
            [sys.executable, "-c", ASKING],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    given = []
    for each in asking:
        assert each.stdout is not None
        given += [int(port) for port in each.stdout.readline().split()]
    for each in asking:
        each.communicate("\n", timeout=30)
    assert len(set(given)) == len(given) == 3 * 40
    assert set(given) <= set(ports.PORTS)


def test_a_port_that_somebody_else_uses_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who binds without asking here is seen; and nothing is given twice."""
    taken, free = ports.free_ports(2)
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", taken))
        stranger.listen()
        candidates = iter((taken, free))
        monkeypatch.setattr(ports, "_candidates", lambda: candidates)
        assert ports.free_ports(1) == [free]
        with pytest.raises(OSError, match="no 1 free ports"):
            ports.free_ports(1)
