"""The pytest plugin, used as an application's tests would use it, in a pytest of its own."""

from __future__ import annotations

import textwrap

import pytest

pytest_plugins = ["pytester"]

APP = """
    import logging
    from typing import Annotated

    import pytest
    from fastapi import Depends, FastAPI
    from fastapi.testclient import TestClient
    from opentelemetry import trace

    from otel_shim import bind, identity, operation

    tracer = trace.get_tracer("app")
    app = FastAPI()
    logger = logging.getLogger("app")

    class User:
        def __init__(self, id, org_id):
            self.id, self.org_id, self.role = id, org_id, "owner"

    def get_current_user() -> User:
        return User("anna", "org-1")

    @app.get("/invoices")
    def invoices(current_user: Annotated[User, Depends(get_current_user)]) -> str:
        logger.warning("listed")
        return "ok"

    @app.get("/open")
    def open_to_all() -> str:
        return "ok"

"""


def _run(pytester: pytest.Pytester, body: str, *arguments: str) -> pytest.RunResult:
    pytester.makepyfile(textwrap.dedent(APP) + textwrap.dedent(body))
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:asyncio", *arguments)


def test_an_application_under_test_has_identity(pytester: pytest.Pytester) -> None:
    """Dependencies, spans and logs, without the launcher."""
    result = _run(
        pytester,
        """
        def test_request(telemetry):
            with TestClient(app) as client:
                client.get("/invoices")
            assert [log.log_record.body for log in telemetry.logs] == ["listed"]
            telemetry.assert_identity(org_id="org-1", user_id="anna", actor_role="owner")
            server = telemetry.span("GET /invoices")
            assert server.kind is trace.SpanKind.SERVER
            assert server.attributes["http.route"] == "/invoices"

        def test_an_application_that_has_served(telemetry):
            with TestClient(app) as client:
                assert client.get("/open").headers["X-Trace-Id"]
            telemetry.span("GET /open")

        def test_nobody(telemetry):
            with TestClient(app) as client:
                client.get("/open")
            assert telemetry.spans
            telemetry.assert_no_identity()
        """,
    )
    result.assert_outcomes(passed=3)


def test_a_mounted_application_is_a_part_of_its_request(pytester: pytest.Pytester) -> None:
    """One server span with the whole route, in a version of FastAPI that traces itself or not."""
    result = _run(
        pytester,
        """
        from fastapi import APIRouter

        def mounted():
            inner, router = FastAPI(), APIRouter(prefix="/r")
            for owner in (inner, router):
                owner.get("/me/{number}")(lambda number: "ok")
            inner.include_router(router)
            outer = FastAPI()
            outer.mount("/v2", inner)
            return outer

        @pytest.mark.parametrize("path", ["/v2/me/7", "/v2/r/me/7"])
        def test_mounted(telemetry, path):
            route = path.replace("7", "{number}")
            with TestClient(mounted()) as client:
                assert client.get(path).status_code == 200
            names = [span.name for span in telemetry.spans if span.kind is trace.SpanKind.SERVER]
            assert names == [f"GET {route}"]
            assert telemetry.span(names[0]).attributes["http.route"] == route
            assert "GET /me/{number}" not in [span.name for span in telemetry.spans]
            assert not [s for s in telemetry.spans if s.name.startswith("GET") and s.parent]
        """,
    )
    result.assert_outcomes(passed=2)


def test_events_of_structlog_are_as_exported(pytester: pytest.Pytester) -> None:
    """The body is the event, the rest are attributes; an exception's class is the code."""
    result = _run(
        pytester,
        """
        import structlog

        def test_event(telemetry):
            structlog.configure(
                processors=[structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
                logger_factory=structlog.stdlib.LoggerFactory(),
            )
            with identity(org_id="org-1"), tracer.start_as_current_span("work"):
                try:
                    raise LookupError
                except LookupError:
                    structlog.get_logger("app").exception("no paper", order=7)
            (log,) = telemetry.logs
            assert log.log_record.body == "no paper"
            assert log.log_record.attributes["order"] == 7
            assert log.log_record.attributes["saas.error.code"] == "LookupError"
            telemetry.assert_identity(org_id="org-1")
        """,
    )
    result.assert_outcomes(passed=1)


def test_assertions_fail_where_they_should(pytester: pytest.Pytester) -> None:
    """Each of these must be an AssertionError."""
    result = _run(
        pytester,
        """
        import contextlib

        @contextlib.contextmanager
        def fails(text):
            with pytest.raises(AssertionError, match=text):
                yield

        def test_wrong(telemetry):
            with fails("no span and no log"):
                telemetry.assert_identity(org_id="org-1")
            with identity(org_id="org-1", user_id="anna"), tracer.start_as_current_span("one"):
                pass
            telemetry.assert_identity(org_id="org-1", user_id="anna")
            with fails("span 'one' has"):
                telemetry.assert_identity(org_id="org-2")
            with fails("span 'one' has"):
                telemetry.assert_identity(org_id="org-1", user_id="ben")
            with fails("expected nobody"):
                telemetry.assert_no_identity()
            with fails("user_id needs org_id"):
                telemetry.assert_identity(user_id="anna")
            with fails("which identity"):
                telemetry.assert_identity()
            with fails("0 spans are called 'two'"):
                telemetry.span("two")
            with tracer.start_as_current_span("two"):
                pass
            with fails("span 'two' has"):
                telemetry.assert_identity(org_id="org-1")
            telemetry.assert_identity(org_id="org-1", of=telemetry.span("one"))
            telemetry.assert_no_identity(of=[telemetry.span("two")])
        """,
    )
    result.assert_outcomes(passed=1)


def test_ids_are_fixed_and_tests_apart(pytester: pytest.Pytester) -> None:
    """A tracer made at import works in every test, and each test counts from 1."""
    result = _run(
        pytester,
        """
        @pytest.mark.parametrize("round", range(3))
        def test_ids(telemetry, round):
            with tracer.start_as_current_span("outer"), tracer.start_as_current_span("inner"):
                pass
            ids = [(s.name, s.context.trace_id, s.context.span_id) for s in telemetry.spans]
            assert ids == [("inner", 1, 2), ("outer", 1, 1)]
            telemetry.clear()
            assert telemetry.spans == telemetry.logs == ()
        """,
    )
    result.assert_outcomes(passed=3)


def test_everything_global_is_restored(pytester: pytest.Pytester) -> None:
    """After a test that used it, a test that does not sees nothing of it."""
    result = _run(
        pytester,
        """
        from opentelemetry import _logs, propagate
        import fastapi.routing

        def state():
            return (
                trace.get_tracer_provider(), _logs.get_logger_provider(), propagate.get_global_textmap(),
                FastAPI.__call__, FastAPI.__init__, fastapi.routing.solve_dependencies,
                [h for h in logging.getLogger().handlers if type(h).__name__ == "TakingHandler"],
            )

        BEFORE = state()

        def test_with(telemetry):
            assert state() != BEFORE
            test_with.telemetry = telemetry
            with tracer.start_as_current_span("seen"):
                pass

        def test_without():
            assert state() == BEFORE
            with tracer.start_as_current_span("not seen") as span:
                assert not span.is_recording()
            assert [s.name for s in test_with.telemetry.spans] == ["seen"]
        """,
    )
    result.assert_outcomes(passed=2)


def test_it_costs_nothing_where_it_is_not_used(pytester: pytest.Pytester) -> None:
    """No part of the SDK is imported for a suite that does not ask for telemetry."""
    pytester.makepyfile(
        """
        import sys

        def test_nothing_imported():
            assert "otel_shim.testing" in sys.modules
            assert not [name for name in sys.modules if name.startswith("opentelemetry.sdk")]
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:asyncio")
    result.assert_outcomes(passed=1)
