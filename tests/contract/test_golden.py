"""The golden files are what the real SDK emits through the shim's processor today."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from otel_shim import _semconv
from tests.golden.write import CASES, file_of
from tests.wheel import ROOT

FILES = [file_of(case) for case in CASES]


def attributes(file: Path, span_name: str) -> list[dict[str, Any]]:
    """The attributes of the spans with this name, in the order in which they ended."""
    request = json.loads(file.read_text())
    return [
        {item["key"]: next(iter(item["value"].values())) for item in span.get("attributes", ())}
        for resource in request["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
        if span["name"] == span_name
    ]


def test_the_files_are_what_is_emitted() -> None:
    """Otherwise run `python -m tests.golden.write`, look at the difference, and mind the Go side."""
    result = subprocess.run(
        [sys.executable, "-m", "tests.golden.write", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_no_file_holds_an_id_of_a_person(file: Path) -> None:
    """What the cases bind as `user_id` is there as a pseudonym only."""
    text = file.read_text()
    assert not [clear for clear in ("u-1", "key-3", "publisher", "user.id") if f'"{clear}"' in text]


def test_the_cases_leave_the_processor_something_to_do() -> None:
    """A query before authentication is without organisation, the server span above it has one."""
    (early, late) = attributes(FILES[0], "SELECT roster")
    (server,) = attributes(FILES[0], "GET /shifts")
    (connector,) = attributes(FILES[0], "GET /hours")
    assert _semconv.SAAS_ORG_ID not in early
    assert late[_semconv.SAAS_ORG_ID] == server[_semconv.SAAS_ORG_ID] == "org_7"
    assert connector == {}


def test_the_cases_have_every_barrier() -> None:
    """An edge, an anonymous request, and a job over several organisations."""
    assert attributes(file_of(CASES[2]), "GET /shifts")[0][_semconv.SAAS_IDENTITY_EDGE] is True
    (anonymous,) = attributes(file_of(CASES[1]), "GET /shifts")
    assert anonymous[_semconv.SAAS_ACTOR_TYPE] == _semconv.SAAS_ACTOR_TYPE_ANONYMOUS
    (job,) = attributes(file_of(CASES[3]), "planning.publish")
    assert job[_semconv.SAAS_IDENTITY_SCOPE] == _semconv.SAAS_IDENTITY_SCOPE_MULTI
    tenants = [span.get(_semconv.SAAS_ORG_ID) for span in attributes(FILES[3], "SELECT roster")]
    assert tenants == [None, "org_1", "org_2", "org_3"]
