"""Alerts that went on without a trace are looked for once more, while Alertmanager still waits for others."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from otel_shim.relay.alerts import Incoming
from otel_shim.relay.relaying import Prepared

_logger = logging.getLogger(__name__)
_MOST = 200  # alerts at a time; for the others Prometheus's next message has to do


class SecondLook:
    """Asks again after a while, and passes on what has a trace then.

    Nobody waits for it, so that a slow backend is given more time; and an exemplar that was not yet
    exported when the alert fired is there.
    """

    def __init__(
        self,
        again: Callable[[Sequence[Incoming]], Awaitable[Prepared]],
        deliver: Callable[[Prepared], Awaitable[bool]],
        after: float,
    ) -> None:
        self._again, self._deliver, self._after = again, deliver, after
        self._waiting = 0
        self._looks: set[asyncio.Task[None]] = set()

    def at(self, batch: Sequence[Incoming]) -> None:
        """Have another look at these, later; not at all where too many wait already."""
        if not batch or self._waiting + len(batch) > _MOST:
            return
        self._waiting += len(batch)
        look = asyncio.create_task(self._look(batch))
        self._looks.add(look)
        look.add_done_callback(self._looks.discard)

    def stop(self) -> None:
        """Forget those that wait."""
        for look in self._looks:
            look.cancel()

    async def _look(self, batch: Sequence[Incoming]) -> None:
        try:
            await asyncio.sleep(self._after)
            found = await self._again(batch)
            if found.alerts:
                await self._deliver(found)
        except Exception:  # the alerts are delivered already
            _logger.exception("a second look failed")
        finally:
            self._waiting -= len(batch)
