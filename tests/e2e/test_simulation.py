"""`make simulate`: alerts fire, are delivered on three channels and resolve, on real programs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from monitoring.simulation.checks import SCENARIOS
from tests.wheel import ROOT

SECONDS = 600


def test_every_alert_fires_is_delivered_and_resolves(tmp_path: Path) -> None:
    """The report says so; it holds the messages as they were received."""
    argv = (sys.executable, "-m", "monitoring.simulation", "--out", tmp_path, "--healthy", "15")
    done = subprocess.run(
        argv, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = (tmp_path / "report.md").read_text()
    assert "- Problems: none" in report
    assert report.count(", resolved\n") >= 3 * len(SCENARIOS)
