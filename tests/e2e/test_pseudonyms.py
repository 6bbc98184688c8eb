"""One person, one pseudonym: in every process of a host, and after they were started anew."""

from __future__ import annotations

import json
import stat
from pathlib import Path

from examples.saas.demo.stack import Stack

from . import server
from .apps.people import PEOPLE
from .environments import Environment

PERSON = PEOPLE[0]
SECONDS = 30.0


def hashes(log: str) -> dict[int, set[str]]:
    """The pseudonyms that each process wrote to its log, by process id."""
    found: dict[int, set[str]] = {}
    for line in map(json.loads, log.splitlines()):
        if "user.hash" in line and "pid" in line:
            found.setdefault(line["pid"], set()).add(line["user.hash"])
    return found


def test_processes_of_a_host_agree_and_so_do_restarts(
    stack: Stack, locked: Environment, backend: server.Backend, tmp_path: Path
) -> None:
    """Two workers and a second server, started at once without a secret, make one between them.

    All give a person the same pseudonym, and so does a server that is started later; what is made is
    readable by its owner only, and said in exactly one warning.
    """
    state = tmp_path / "state"
    server.fill_database(locked, tmp_path)
    env = server.telemetry("pseudonyms", backend.otlp) | {"OTEL_SHIM_STATE_DIRECTORY": str(state)}
    del env["OTEL_SHIM_SECRET"]
    first, second = server.start_together(stack, locked, env, workers=(2, 1))

    def everyone_wrote() -> bool:
        for desk in (first, second):
            assert desk.get("/async", PERSON.token).status_code == 200
        return len(hashes(first.log)) == 2 and len(hashes(second.log)) == 1

    server.eventually(everyone_wrote, SECONDS, "all three processes served the person")
    wrote = hashes(first.log) | hashes(second.log)
    assert len(wrote) == 3, wrote
    (pseudonym,) = set.union(*wrote.values())

    assert stat.S_IMODE((state / "secret").stat().st_mode) == 0o600
    made = server.lines_with(first.log + second.log, "made a secret")
    assert len(made) == 1 and json.loads(made[0])["severity"] == "WARNING"

    first.stop(seconds=20)
    third = server.start(stack, locked, env)
    assert third.get("/sync", PERSON.token).status_code == 200
    assert set.union(*hashes(third.log).values()) == {pseudonym}

    def searchable() -> bool:
        found = backend.jaeger.search("pseudonyms", {"saas.org.id": PERSON.org_id})
        seen = {span.tags.get("user.hash") for trace in found for span in trace.spans}
        assert seen <= {pseudonym}
        return any(span.name == "GET /sync" for trace in found for span in trace.spans)

    server.eventually(searchable, SECONDS, "Jaeger has the restarted server's request")


def test_without_a_place_for_the_secret_there_is_no_pseudonym(
    stack: Stack, locked: Environment, backend: server.Backend, tmp_path: Path
) -> None:
    """A state directory that cannot be made is one clear error; the rest of identity is there."""
    server.fill_database(locked, tmp_path)
    (tmp_path / "file").write_text("in the way")
    env = server.telemetry("no-secret", backend.otlp)
    env["OTEL_SHIM_STATE_DIRECTORY"] = str(tmp_path / "file" / "state")
    del env["OTEL_SHIM_SECRET"]
    desk = server.start(stack, locked, env)
    assert desk.get("/sync", PERSON.token).status_code == 200
    desk.stop(seconds=20)
    (error,) = server.lines_with(desk.log, '"severity": "ERROR"')
    assert "user.hash is left out" in error and str(tmp_path / "file") in error
    lines = [json.loads(line) for line in server.lines_with(desk.log, '"message": "sync"')]
    assert [line["saas.org.id"] for line in lines] == [PERSON.org_id]
    assert not hashes(desk.log)
