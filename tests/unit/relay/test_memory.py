"""otel_shim.relay: what is remembered outlives the process, and nobody waits for the disk."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from dataclasses import replace
from pathlib import Path

import pytest

from otel_shim.relay import memory as module
from otel_shim.relay.memory import Memory, same_episode
from otel_shim.relay.model import Finding, Remembered, Sighting
from otel_shim.relay.server import open_memory
from tests.unit.relay_messages import TRACE, alert, passed_on, relaying, with_exemplar

KEPT = Remembered(Finding((Sighting(TRACE, "r"),), "exemplars"), 9.0, 5.0)


def test_the_memory_is_on_disk_at_once(tmp_path: Path) -> None:
    """Who opens the file while the first has it open sees what was kept; old things are forgotten."""
    writer = Memory(tmp_path / "state")
    assert writer.keep([("f", KEPT)]).result() is None
    reader = Memory(tmp_path / "state")
    assert reader.recall("f") == KEPT
    assert reader.forget(time.time()).result() is None
    assert reader.recall("f") is None
    writer.close()
    reader.close()
    empty = Memory(tmp_path / "state")
    assert empty.recall("f") is None
    empty.close()


def test_what_is_too_old_is_not_read(tmp_path: Path) -> None:
    """It would be forgotten at once."""
    writer = Memory(tmp_path / "state")
    writer.keep([("f", KEPT)])
    writer.close()
    reader = Memory(tmp_path / "state", now=KEPT.seen_at + module.KEPT_SECONDS + 1)
    assert reader.recall("f") is None
    reader.close()


def test_memory_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was seen longest ago goes first."""
    monkeypatch.setattr(module, "MOST", 2)
    memory = Memory(None)
    for name in ("a", "b", "a", "c"):
        memory.keep([(name, KEPT)])
    assert [memory.recall(name) is not None for name in "abc"] == [True, False, True]
    memory.close()


@pytest.mark.parametrize(
    ("starts_at", "same"),
    [(90.0, True), (100.0, True), (100.5, False), (1e9, False)],
)
def test_an_alert_that_comes_again_is_another(starts_at: float, same: bool) -> None:
    """Ids of an episode that is over are not given to the next one."""
    assert same_episode(Remembered(Finding(), 100.0, 0.0), starts_at) is same


async def test_a_locked_file_holds_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Alerts go on with their ids while it is locked, the loop goes on, and the ids are written later."""
    memory = Memory(tmp_path / "state")
    relay, measures = relaying(with_exemplar, memory, write_wait=0.05)
    other = sqlite3.connect(tmp_path / "state", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.001)

    ticking = asyncio.create_task(tick())
    (came,) = await passed_on(relay, alert())
    ticking.cancel()
    assert came["annotations"]["trace_id"] == TRACE
    assert ticks > 1
    assert "the disk is slow" in caplog.text
    assert "otel_shim_relay_errors_total 1" in measures.text()
    await asyncio.sleep(module._LOCKED_SECONDS)  # the write has given up: the next one has it too
    other.execute("ROLLBACK")
    await asyncio.wrap_future(memory.keep([("f", KEPT)]))
    rows = other.execute("SELECT count(*) FROM episodes").fetchone()
    other.close()
    memory.close()
    assert rows == (2,)


@pytest.mark.parametrize(
    "what", [b"this is no database, and long enough to be looked at" * 100, None]
)
async def test_a_file_that_cannot_be_used_is_said(tmp_path: Path, what: bytes | None) -> None:
    """Ids are kept in the process then; the file is left as it is."""
    file = tmp_path / "state"
    if what is None:
        writer = Memory(file)
        assert writer.keep([("f", replace(KEPT, seen_at=time.time()))]).result() is None
        writer._database.execute("UPDATE episodes SET finding = 'rotten'")
        writer._database.commit()
        writer.close()
    else:
        file.write_bytes(what)
    memory, problem = open_memory(file)
    assert problem is not None and str(file) in problem
    relay, _ = relaying(with_exemplar, memory)
    (came,) = await passed_on(relay, alert())
    assert came["annotations"]["trace_id"] == TRACE
    (ended,) = await passed_on(relay, alert(-0.001, None))
    assert ended["annotations"]["trace_id"] == TRACE
    memory.close()


def test_the_file_is_json_inside(tmp_path: Path) -> None:
    """Ids only: no labels, no annotations."""
    memory = Memory(tmp_path / "state")
    memory.keep([("f", KEPT)])
    memory.close()
    with sqlite3.connect(tmp_path / "state") as database:
        ((finding,),) = database.execute("SELECT finding FROM episodes")
    assert json.loads(finding)["sightings"] == [{"trace_id": TRACE, "request_id": "r"}]
