"""otel_shim.relay: an alert is held for less than two seconds, however the relay is set."""

from __future__ import annotations

import argparse

import pytest

from otel_shim.cli import alert_relay
from tests.unit.relay_messages import settings

WITHIN_SECONDS = 2.0
LEAST_FOR_THE_REST = 0.09


def parser() -> argparse.ArgumentParser:
    """That of the command."""
    made = argparse.ArgumentParser()
    alert_relay.add_to(made.add_subparsers())
    return made


def test_look_ups_and_the_disk_leave_time_for_the_rest() -> None:
    """By default half a second; with the most that can be set a tenth."""
    by_default = settings()
    assert by_default.budget + by_default.write_wait <= 0.75 * WITHIN_SECONDS
    held = alert_relay._MOST_SECONDS + by_default.write_wait
    assert WITHIN_SECONDS - held >= LEAST_FOR_THE_REST
    given = parser().parse_args(["alert-relay", "--alertmanager", "http://am"])
    assert given.budget == by_default.budget


@pytest.mark.parametrize("budget", ["0", "-1", "1.7", "nan", "much"])
def test_what_would_hold_alerts_for_too_long_cannot_be_set(
    budget: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command says so."""
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(["alert-relay", "--alertmanager", "http://am", "--budget", budget])
    assert ended.value.code == 2
    assert "--budget" in capsys.readouterr().err
