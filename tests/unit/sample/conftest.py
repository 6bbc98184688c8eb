"""The sample application's database, filled, in a file of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine

from examples.saas.api import backup, payroll_export, seed
from examples.saas.api.database import SessionLocal
from examples.saas.api.database import engine as usual
from examples.saas.api.jobs import JOBS
from examples.saas.api.settings import settings
from otel_shim.heartbeats import FUNCTION, heartbeats

# What the sample declares when it is imported is not for other tests to see.
for name in JOBS:
    heartbeats.withdraw(name, FUNCTION)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """The engine of a filled database; files that jobs make go to the test's folder."""
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    engine = create_engine(url, connect_args={"timeout": 20})
    seed.ensure(engine)
    SessionLocal.configure(bind=engine)
    places = replace(
        settings, database_url=url, backups=tmp_path / "backups", exports=tmp_path / "exports"
    )
    for module in (backup, payroll_export):
        monkeypatch.setattr(module, "settings", places)
    yield engine
    SessionLocal.configure(bind=usual)
    engine.dispose()
