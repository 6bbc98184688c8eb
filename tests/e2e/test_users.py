"""Users as applications have them, under the launcher: found where they are loaded, and never asked a question."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest

from examples.saas.demo.stack import running

from . import collectors, environments, expected, matrix, otlp, server
from .apps.people import Person
from .environments import APPS
from .matrix import Cell
from .test_matrix import start, who

USERS = "apps.users:app"
FRAMEWORKS = {
    each.name: replace(each, app=USERS) for each in (matrix.FASTAPI, matrix.CONTRIB_SQL20)
}
MEMBER = Person("mem-1", "org-1", "owner", "", "", "", "")
KNOWN = {
    "saas.org.id": MEMBER.org_id,
    "user.hash": expected.user_hash(server.SECRET, MEMBER),
    "saas.actor.type": "user",
    "saas.actor.role": MEMBER.role,
}
NOBODY = {"saas.actor.type": "anonymous"}
SHAPES: dict[str, tuple[Mapping[str, str], int]] = {
    "/pydantic": (KNOWN, 0),
    "/dict": (KNOWN, 0),
    "/orm": (KNOWN, 1),
    "/expired": (NOBODY, 1),
    "/detached": (NOBODY, 1),
    "/hostile": (NOBODY, 0),
}
"""Who is known of each, and how many statements the application itself runs."""
TEAM = {
    "OTEL_SHIM_ORG_ID": "dependency:current_user.team.id,dependency:current_user.org_id,dependency:api_key.org_id"
}
"""The operator names a relationship; where that is not loaded it counts as absent."""


@dataclass(frozen=True)
class Served:
    """The running application, and where its telemetry goes."""

    shop: server.Server
    sink: collectors.Fake

    def ask(self, path: str, **params: str) -> tuple[httpx.Response, list[otlp.Span], list[str]]:
        """The answer, the spans that it left, and the statements that the database was given meanwhile."""
        self.statements()
        answer = httpx.get(self.shop.url + path, params=params, timeout=30)
        trace_id = answer.headers["X-Trace-Id"]

        def spans() -> list[otlp.Span]:
            return [span for span in otlp.spans(self.sink) if span.trace_id == trace_id]

        statements = self.statements()
        server.eventually(lambda: len(spans()) > len(statements), 30, f"all spans of {path}")
        return answer, spans(), statements

    def statements(self) -> list[str]:
        """What the driver has been given since this was last asked."""
        found: list[str] = self.shop.get("/statements").json()
        return found


@pytest.fixture(scope="module", params=FRAMEWORKS)
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """On FastAPI's own telemetry and on the official instrumentor, over both generations of SQLAlchemy."""
    framework = FRAMEWORKS[request.param]
    environments.make(framework.environment)
    out = tmp_path_factory.mktemp("users")
    with collectors.healthy() as sink, running(out) as stack:
        env = {
            **server.telemetry("users", sink.url),
            **TEAM,
            "OTEL_METRICS_EXPORTER": "none",
            "PYTHONPATH": str(APPS.parent),
            "USERS_DATABASE": str(out / "users.db"),
        }
        shop = start(stack, Cell(matrix.ALONE, matrix.UVICORN, framework), env)
        yield Served(shop, sink)


@pytest.mark.parametrize("path", SHAPES)
def test_a_user_is_found_without_a_question(served: Served, path: str) -> None:
    """The request works, the database is asked by the application alone, and the span knows what was loaded."""
    known, queries = SHAPES[path]
    answer, spans, statements = served.ask(path)
    assert answer.status_code == 200
    assert len(statements) == queries, statements
    assert Counter(span.what for span in spans) == +Counter(server=1, query=queries)
    (root,) = (span for span in spans if span.what == "server")
    assert who(root.attributes) == {**known, "saas.request.id": answer.headers["X-Request-Id"]}


def test_nothing_is_said_of_users_that_cannot_be_read(served: Served) -> None:
    """What raises or is not loaded is no fault of the application's, and no reason for a warning."""
    for path in SHAPES:
        served.ask(path)
    lines = [line for line in served.shop.log.splitlines() if '"severity": "INFO"' not in line]
    assert not lines


def test_a_machine_is_known_by_its_key(served: Served) -> None:
    """Organisation, type and pseudonym of a key are on the span: no person, and no id in clear."""
    answer, spans, _ = served.ask("/machine", key="the-secret-key")
    (root,) = spans
    told: dict[str, Any] = who(root.attributes)
    assert told.pop("saas.actor.hash").count(".") == 1
    assert told == {
        "saas.org.id": "org-machines",
        "saas.actor.type": "api_key",
        "saas.request.id": answer.headers["X-Request-Id"],
    }
    assert "key-7" not in str(root)
