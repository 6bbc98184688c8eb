"""What an operator gets wrong, or switches off, never takes the application down."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from examples.saas.demo.stack import Stack

from . import collectors, server
from .apps.people import PEOPLE
from .environments import Environment

PERSON = PEOPLE[5]


def console(desk: server.Server, message: str) -> dict[str, Any]:
    """The one line with this message."""
    (line,) = (json.loads(n) for n in desk.log.splitlines() if json.loads(n)["message"] == message)
    return dict(line)


@pytest.mark.parametrize(
    ("value", "organisation"),
    [
        ("current_user->org_id,dependency:current_user.org_id", PERSON.org_id),
        ("dependency:current_user.org_id,header:X-Org", PERSON.org_id),
        ("current_user->org_id", None),
    ],
)
def test_an_expression_that_cannot_be_read_is_one_clear_error(
    stack: Stack, locked: Environment, tmp_path: Path, value: str, organisation: str | None
) -> None:
    """Variable, text and fix are named; the application serves with identity from the other sources."""
    server.fill_database(locked, tmp_path)
    with collectors.healthy() as collector:
        env = server.telemetry("wrong", collector.url) | {"OTEL_SHIM_ORG_ID": value}
        desk = server.start(stack, locked, env)
        assert desk.get("/async", PERSON.token).status_code == 200
        desk.stop(seconds=20)
    (error,) = server.lines_with(desk.log, '"severity": "ERROR"')
    message = json.loads(error)["message"]
    (wrong,) = (part for part in value.split(",") if not part.startswith("dependency:"))
    assert message.startswith(f"OTEL_SHIM_ORG_ID: cannot read '{wrong}'")
    assert "write <kind>:<name>" in message and "dependency:current_user.org_id" in message
    line = console(desk, "async")
    assert line.get("saas.org.id") == organisation
    assert line["saas.actor.role"] == PERSON.role
    assert line["saas.plan"] == PERSON.plan


def test_a_disabled_sdk_exports_nothing(stack: Stack, locked: Environment, tmp_path: Path) -> None:
    """With OTEL_SDK_DISABLED the application serves and nobody is contacted."""
    server.fill_database(locked, tmp_path)
    with collectors.healthy() as collector:
        env = server.telemetry("disabled", collector.url) | {"OTEL_SDK_DISABLED": "true"}
        desk = server.start(stack, locked, env)
        for path, status in (("/async", 200), ("/sync", 200), ("/boom", 500)):
            assert desk.get(path, PERSON.token).status_code == status
        desk.stop(seconds=20)
        assert collector.connections == 0
    assert not server.lines_with(desk.log, "otel-shim is active")


def test_an_enabled_sdk_exports_to_the_same_collector(
    stack: Stack, locked: Environment, tmp_path: Path
) -> None:
    """The counterpart: without the switch the same collector is contacted, so that its silence means something."""
    server.fill_database(locked, tmp_path)
    with collectors.healthy() as collector:
        desk = server.start(stack, locked, server.telemetry("enabled", collector.url))
        assert desk.get("/async", PERSON.token).status_code == 200
        desk.stop(seconds=20)
        assert {"/v1/traces", "/v1/logs"} <= set(collector.paths)
