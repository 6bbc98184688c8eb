"""The sample SaaS on SQLite: chat, privacy, charts, keys, payroll and material, each under its own identity.

On PostgreSQL the same is looked at, and more: ``test_postgres``.
"""

from __future__ import annotations

import pytest

from examples.saas.demo import checks, journey_checks, parts

from . import product, server
from .environments import Environment


@pytest.fixture(scope="module")
def evidence(
    backend: server.Backend, locked: Environment, tmp_path_factory: pytest.TempPathFactory
) -> checks.Evidence:
    """Answers and traces of the demo's traffic; the file's path is relative, as in the demo."""
    out = tmp_path_factory.mktemp("sqlite")
    database = f"sqlite:///{parts.DATABASE}"
    product.seed(locked, database, out)
    return product.evidence(locked, backend, database, out)


def test_the_application_answers(evidence: checks.Evidence) -> None:
    """All journeys work, with the statuses that they have without telemetry."""
    product.hold(checks.of_answers(evidence.calls))


def test_identity_is_on_every_span(evidence: checks.Evidence) -> None:
    """Nobody's is missing, nobody's is another's."""
    product.hold(checks.of_traces(evidence))


def test_journeys_leave_what_they_should(evidence: checks.Evidence) -> None:
    """Each journey's own spans, operations and errors."""
    product.hold(journey_checks.of_journeys(evidence))


def test_statements_are_of_sqlite(evidence: checks.Evidence) -> None:
    """Guards the tests above: hundreds of queries, and no other database."""
    spans = (span for trace in evidence.traces.values() for span in trace.spans)
    systems = [span.tags["db.system.name"] for span in spans if "db.system.name" in span.tags]
    assert len(systems) > 1_000 and set(systems) == {"sqlite"}
