"""APScheduler 3: each run of a job is a trace of its own, on thread, process and asyncio executors.

    BaseExecutor.submit_job ─▶ RunTimes: name, trigger, link ─▶ run_job, in whichever thread or process
    run_job                 ─▶ a run of ``jobs`` for each time ─▶ Events with reports
    Events                  ─▶ a run that its process could not tell of is recorded by the scheduler's

What it does is imported with APScheduler: ``scheduled_runs`` where jobs run, ``schedulers`` where they wait.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from opentelemetry.instrumentation.instrumentor import (  # type: ignore[attr-defined]
    BaseInstrumentor,
)

from otel_shim.capture.patches import Patches


class ApschedulerInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """Instruments APScheduler 3, when the application imports it.

    ``instrument`` takes ``meter_provider``; the global one is the default. Executors of gevent, Tornado
    and Twisted are left alone.
    """

    def instrumentation_dependencies(self) -> Collection[str]:
        """The versions whose functions are known."""
        return ("apscheduler >= 3.10, < 4",)

    def _instrument(self, **kwargs: Any) -> None:
        self._patches = patches = Patches()
        meters = kwargs.get("meter_provider")

        def imported(_: Any) -> None:
            from otel_shim.capture import schedulers  # noqa: PLC0415 - not before it is needed

            schedulers.install(patches, meters)

        patches.do_when_imported("apscheduler", imported)

    def _uninstrument(self, **kwargs: Any) -> None:
        self._patches.remove()
