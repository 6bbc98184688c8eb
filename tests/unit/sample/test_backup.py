"""The sample's backups: complete while others write, and nothing damaged is taken for good."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from examples.saas.api import backup
from examples.saas.api.database import SessionLocal
from examples.saas.api.models import AuditNote


def test_a_copy_is_verified_and_restored(shop: Engine, tmp_path: Path) -> None:
    """The manifest has the rows of each table; the drill leaves nothing behind."""
    backup.create()
    backup.verify()
    backup.restore_drill()
    manifest = backup.read_manifest(backup.newest())
    assert set(manifest.rows) == set(backup.TABLES)
    assert manifest.rows["user"] == 17
    assert {file.suffix for file in (tmp_path / "backups").iterdir()} == {".db", ".json"}


def test_what_is_told_is_the_age_of_the_copy(shop: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy that is verified again and again gets older: `backup.create` that fails is noticed."""
    told: list[float] = []
    monkeypatch.setattr(backup, "recovery_point", told.append)
    before = time.time()
    backup.create()
    after = time.time()
    for _ in range(2):
        backup.verify()
    backup.restore_drill()
    assert len(told) == 3 and len(set(told)) == 1
    assert before <= told[0] <= after
    backup.create()
    _overwrite(backup.newest())
    with pytest.raises(backup.BackupError):
        backup.verify()
    assert len(told) == 3
    backup.create()
    backup.verify()
    assert told[3] > after


def test_copies_made_while_others_write_are_whole(shop: Engine) -> None:
    """Rows are counted and copied within one transaction: what is written meanwhile is in neither."""
    stop = threading.Event()
    written = threading.Event()

    def write() -> None:
        while not stop.is_set():
            with SessionLocal.begin() as session:
                session.add(AuditNote(org_id="org-hotel", user_id="-", action="test"))
            written.set()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert written.wait(20)
        counts = []
        for _ in range(5):
            backup.create()
            backup.verify()
            counts.append(backup.read_manifest(backup.newest()).rows["audit_note"])
    finally:
        stop.set()
        writer.join()
    assert counts == sorted(counts)
    assert counts[-1] > counts[0], "nothing was written meanwhile"


def test_only_the_newest_few_are_kept(shop: Engine, tmp_path: Path) -> None:
    """A copy and its manifest go together."""
    for _ in range(backup.KEPT + 2):
        backup.create()
    names = {file.stem for file in (tmp_path / "backups").iterdir()}
    assert len(names) == backup.KEPT
    assert len(list((tmp_path / "backups").iterdir())) == 2 * backup.KEPT


def test_what_a_crash_left_is_removed(
    shop: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy without its manifest is no backup, and does not stay for ever."""
    with monkeypatch.context() as broken:
        broken.setattr(backup, "_write_manifest", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            backup.create()
    assert len(list((tmp_path / "backups").iterdir())) == 1
    backup.create()
    assert {file.stem for file in (tmp_path / "backups").iterdir()} == {backup.newest().stem}
    backup.verify()


def _overwrite(copy: Path) -> None:
    with copy.open("r+b") as file:
        file.seek(copy.stat().st_size // 2)
        file.write(b"\xff" * 4096)


def _shorten(copy: Path) -> None:
    copy.write_bytes(copy.read_bytes()[: copy.stat().st_size // 2])


def _lose_a_row(copy: Path) -> None:
    with sqlite3.connect(copy) as connection:
        connection.execute("DELETE FROM audit_note WHERE id = 1")
    connection.close()
    manifest = copy.with_suffix(".json")
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(content | {"sha256": backup._digest(copy)}))


@pytest.mark.parametrize("damage", [_overwrite, _shorten, _lose_a_row])
def test_a_damaged_copy_is_found(shop: Engine, damage: Callable[[Path], None]) -> None:
    """By its digest; and a copy whose digest fits, by its rows."""
    backup.create()
    damage(backup.newest())
    with pytest.raises(backup.BackupError):
        backup.verify()


def test_damage_is_found_without_the_digest(shop: Engine) -> None:
    """SQLite's own check sees a page of rubbish; so does a restore of it."""
    backup.create()
    _overwrite(backup.newest())
    with (
        backup.opened(backup.newest()) as connection,
        pytest.raises(backup.BackupError),
    ):
        backup.check_integrity(connection)
    with pytest.raises(backup.BackupError):
        backup.restore_drill()


def test_without_a_copy_nothing_is_verified(shop: Engine) -> None:
    """No backup is not a good backup; neither is one without its manifest."""
    with pytest.raises(backup.BackupError, match="no backup"):
        backup.verify()
    backup.create()
    backup.newest().with_suffix(".json").unlink()
    with pytest.raises(backup.BackupError, match="no backup"):
        backup.restore_drill()


def test_the_fault_damages_the_next_copy(
    shop: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`backup corrupt` makes verification fail, until a copy without it is made."""
    switch = tmp_path / "faults"
    monkeypatch.setenv("SAAS_FAULTS", str(switch))
    switch.write_text("backup corrupt")
    backup.create()
    switch.unlink()
    with pytest.raises(backup.BackupError):
        backup.verify()
    backup.create()
    backup.verify()


def test_the_application_goes_on_meanwhile(shop: Engine) -> None:
    """A copy holds no lock that a writer would wait for."""
    with shop.begin() as connection:
        connection.execute(text("UPDATE item SET stock = stock + 1"))
        backup.create()
    backup.verify()
