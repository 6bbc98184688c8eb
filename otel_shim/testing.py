"""A pytest plugin: an application's spans and logs in memory, as the shim would export them.

``telemetry`` is the one fixture. Nothing of OpenTelemetry is imported until a test asks for it.

    def test_invoice(telemetry, client):
        client.get("/invoices", headers=ANNA)
        telemetry.assert_identity(org_id="org-1", user_id="anna")
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from otel_shim.memory import Telemetry


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    """Spans and logs of this test with the shim's processors; ids start at 1; all is restored after it.

    Takes the place of whatever providers are set. Requests of FastAPI, records of ``logging`` and spans
    made by hand are seen; other captures (SQLAlchemy, HTTP clients, plain Starlette) are installed by
    ``opentelemetry-instrument``, not by this fixture.
    """
    from otel_shim import memory  # noqa: PLC0415 - so that a suite without telemetry pays nothing

    with memory.telemetry() as found:
        yield found
