"""Jobs of the night: copy the database, prove the copy good, and prove that it can be restored.

SQLite only: an owner of PostgreSQL has pg_basebackup or a provider for this, and jobs beside them.
A copy has a manifest with its digest, and the number of rows of each table and the time at that very moment.
"""

import hashlib
import json
import logging
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from sqlalchemy import create_engine, func, make_url, select
from sqlalchemy.orm import Session

from . import faults
from .jobs import Processing, job
from .models import Base, Organisation, User
from .optional_identity import operation_block
from .optional_operations import job_items, recovery_point
from .settings import settings

PROCESSING = Processing("ropa-070", "legitimate_interest", "r30d")
KEPT = 5
TABLES = tuple(sorted(Base.metadata.tables))
MANIFEST = ".json"
READ_ONLY = "file:{}?mode=ro"
logger = logging.getLogger(__name__)


class BackupError(Exception):
    """A copy that is missing, damaged or incomplete."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a good copy looks like."""

    sha256: str
    rows: Mapping[str, int]
    taken_at: float


@job("backup.create", "0 1,13 * * *", max_runtime=1800, critical=True, processing=PROCESSING)
def create() -> None:
    """Copy the database while others write to it, and remove what is older than the newest few."""
    settings.backups.mkdir(parents=True, exist_ok=True)
    copy = settings.backups / f"saas-{time.time_ns()}.db"
    with operation_block("backup.copy"):
        rows, taken_at = _copy(copy)
    _write_manifest(copy, Manifest(_digest(copy), rows, taken_at))
    if faults.on("backup corrupt"):
        _damage(copy)
    _tidy(before=copy)
    job_items(read=sum(rows.values()), written=sum(rows.values()))
    logger.info("backup made", extra={"rows": sum(rows.values())})


@job("backup.verify", "30 1,13 * * *", max_runtime=1800, critical=True, processing=PROCESSING)
def verify() -> None:
    """Prove the newest copy whole: digest, SQLite's own check, the rows of each table."""
    copy = newest()
    manifest = read_manifest(copy)
    with operation_block("backup.compare_digest"):
        _require(_digest(copy) == manifest.sha256, "the digest differs")
    with operation_block("backup.check_integrity"), opened(copy) as connection:
        check_integrity(connection)
    with operation_block("backup.count_rows"), opened(copy) as connection:
        rows = count_rows(connection)
        _require(rows == manifest.rows, "the numbers of rows differ")
    # Not now: this copy may have been verified yesterday, too.
    recovery_point(manifest.taken_at)
    job_items(read=sum(rows.values()), written=sum(rows.values()))
    logger.info("backup verified", extra={"rows": sum(rows.values())})


@job(
    "backup.restore_drill", "0 5 * * 0", max_runtime=4 * 3600, critical=True, processing=PROCESSING
)
def restore_drill() -> None:
    """Restore the newest copy into a fresh file and use that as the application would."""
    copy = newest()
    fresh = settings.backups / "restored.drill"
    fresh.unlink(missing_ok=True)
    try:
        with operation_block("backup.restore"):
            _restore(copy, fresh)
        with operation_block("backup.use"):
            people = _use(fresh)
    finally:
        fresh.unlink(missing_ok=True)
    recovery_point(read_manifest(copy).taken_at)
    job_items(read=people, written=people)
    logger.info("restored", extra={"people": people})


def newest() -> Path:
    """The newest copy; `BackupError` when there is none."""
    copies = _copies()
    _require(bool(copies), "there is no backup")
    return copies[-1]


def _copies() -> list[Path]:
    """The oldest first; one without a manifest is not complete yet."""
    found = sorted(settings.backups.glob("saas-*.db"))
    return [copy for copy in found if copy.with_suffix(MANIFEST).exists()]


def _tidy(before: Path) -> None:
    """Remove what is older than the newest few, and what a crash left unfinished."""
    kept = _copies()[-KEPT:]
    for file in settings.backups.glob("saas-*"):
        if file.stem < before.stem and file.with_suffix(".db") not in kept:
            file.unlink(missing_ok=True)


def _copy(target: Path) -> tuple[dict[str, int], float]:
    """Copy, and count within the same transaction: what others write meanwhile is in neither.

    Gives the rows, and the time before any of them was read.
    """
    database = make_url(settings.sync_database_url).database
    with closing(sqlite3.connect(str(database), timeout=20)) as source:
        taken_at = time.time()
        source.execute("BEGIN")
        rows = count_rows(source)
        with closing(sqlite3.connect(target)) as copy:
            source.backup(copy)
            # The copy is one file that changes no more.
            copy.execute("PRAGMA journal_mode=DELETE")
        source.rollback()
    return rows, taken_at


def count_rows(connection: sqlite3.Connection) -> dict[str, int]:
    """How many rows each of the application's tables has."""
    statement = 'SELECT count(*) FROM "{}"'
    return {name: connection.execute(statement.format(name)).fetchone()[0] for name in TABLES}


def check_integrity(connection: sqlite3.Connection) -> None:
    """`BackupError` with what SQLite finds wrong with a file, or with its references."""
    try:
        said = [row[0] for row in connection.execute("PRAGMA integrity_check(5)")]
        broken = connection.execute("PRAGMA foreign_key_check").fetchall()
    except sqlite3.DatabaseError as error:
        raise BackupError(str(error)) from error
    _require(said == ["ok"], "; ".join(said))
    _require(not broken, f"{len(broken)} references to nothing")


def _restore(copy: Path, fresh: Path) -> None:
    with opened(copy) as source, closing(sqlite3.connect(fresh)) as target:
        source.backup(target)
        check_integrity(target)


def _use(fresh: Path) -> int:
    """Read every table through the application's own models; gives the number of people."""
    engine = create_engine(f"sqlite:///{fresh}")
    try:
        with Session(engine) as session:
            for mapper in Base.registry.mappers:
                session.scalars(select(mapper.class_).limit(10)).all()
            people = session.scalar(select(func.count()).select_from(User).join(Organisation)) or 0
    finally:
        engine.dispose()
    _require(people > 0, "nobody is in the restored database")
    return people


@contextmanager
def opened(copy: Path) -> Iterator[sqlite3.Connection]:
    """A copy, to read only."""
    with closing(sqlite3.connect(READ_ONLY.format(copy), uri=True)) as connection:
        yield connection


def read_manifest(copy: Path) -> Manifest:
    """What was written beside a copy."""
    return Manifest(**json.loads(copy.with_suffix(MANIFEST).read_text()))


def _write_manifest(copy: Path, manifest: Manifest) -> None:
    """Under another name until it is complete; only with it a copy counts."""
    unfinished = copy.with_suffix(".part")
    unfinished.write_text(json.dumps(asdict(manifest)))
    unfinished.replace(copy.with_suffix(MANIFEST))


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _damage(copy: Path) -> None:
    """As a bad disk would: a page in the middle is not what was written."""
    with copy.open("r+b") as file:
        file.seek(copy.stat().st_size // 2)
        file.write(b"\xff" * 4096)


def _require(true: bool, otherwise: str) -> None:
    if not true:
        raise BackupError(otherwise)
