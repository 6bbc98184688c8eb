"""The sample's queue and jobs on a real PostgreSQL: several workers, no item twice, nothing exported twice."""

from __future__ import annotations

import json
from typing import Any

import pytest

from examples.saas.api.people import CUSTOMERS
from examples.saas.demo import parts
from examples.saas.demo.stack import run_once

from . import environments, postgres, server
from .environments import Environment
from .test_jobs import arrived, owners, script

ITEMS = 60
SERVICE = "night-on-postgres"
NIGHT = """
import json, sys, threading
sys.path.insert(0, sys.argv[1])
from sqlalchemy import func, select
from api import calendar_queue as queue, payroll_export, privacy_rollup, retention
from api.database import SessionLocal
from api.models import AuditNote, Payslip

for _ in range({items}):
    with SessionLocal.begin() as session:
        session.execute(queue.added("org-hotel", 5))
before, took, lock = queue.depths(), [], threading.Lock()

def work():
    while queue.depths().ready:
        item = queue.take()
        if item is not None:
            with lock:
                took.append(item.id)
            queue.done(item)

workers = [threading.Thread(target=work) for _ in range(4)]
[worker.start() for worker in workers]
[worker.join() for worker in workers]
for _ in range(2):
    retention.run()
    payroll_export.run()
privacy_rollup.run()
with SessionLocal() as session:
    exports = dict(session.execute(select(Payslip.export, func.count()).group_by(Payslip.export)).all())
    old = select(func.count()).select_from(AuditNote).where(AuditNote.action == "plan.published")
    print("said:" + json.dumps({{
        "before": [before.ready, before.oldest_age >= 0], "took": took, "after": queue.depths().ready,
        "exports": exports, "old notes": session.scalar(old),
    }}))
"""


@pytest.fixture(scope="module")
def jobs() -> Environment:
    """The environment of the scheduler."""
    return environments.make(environments.JOBS)


@pytest.fixture(scope="module")
def said(
    jobs: Environment, backend: server.Backend, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What a night's work left behind."""
    out = tmp_path_factory.mktemp("night-on-postgres")
    with postgres.cluster() as cluster:
        database = {"SAAS_DATABASE_URL": cluster.url}
        run_once("seed", (jobs.program("python"), "-m", "api.seed"), parts.SAAS, database)
        env = {**server.telemetry(SERVICE, backend.otlp), **database, "SAAS_EXPORTS": str(out)}
        ended = script(jobs, ("-c", NIGHT.format(items=ITEMS), str(parts.SAAS)), env, out)
    (line,) = [line for line in ended.output.splitlines() if line.startswith("said:")]
    answer: dict[str, Any] = json.loads(line.removeprefix("said:"))
    return answer | {"files": sorted(file.name for file in out.glob("payroll-*.csv"))}


def test_four_workers_take_each_item_once(said: dict[str, Any]) -> None:
    """Nobody waits for another's lock and gets the same item afterwards."""
    assert said["before"] == [ITEMS, True]
    assert len(said["took"]) == len(set(said["took"])) == ITEMS
    assert said["after"] == 0


def test_jobs_do_the_same_as_on_sqlite(said: dict[str, Any]) -> None:
    """Twice in a row: the second run finds nothing to do."""
    assert said["exports"] == {"written": 7, "filtered": 5, "rejected": 5}
    assert len(said["files"]) == len(CUSTOMERS)
    assert said["old notes"] == 4


def test_each_run_is_found(said: dict[str, Any], backend: server.Backend) -> None:
    """A trace for each run, and each organisation's part is its own."""
    traces = arrived(backend, SERVICE, 100)
    runs = [trace for trace in traces if trace.roots()[0].name == "audit.retention.job"]
    assert len(runs) == 2
    for trace in runs:
        assert dict(owners(trace, "audit.expire")) == {customer.id: 1 for customer in CUSTOMERS}
        assert "saas.org.id" not in trace.roots()[0].tags
