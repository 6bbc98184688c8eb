"""To every Alertmanager, each in order: they form a cluster only among themselves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import httpx

from otel_shim.relay.measures import Measures

_logger = logging.getLogger(__name__)
_WAITING = 200  # batches per Alertmanager; Prometheus sends at most 256 alerts in one
_HEADERS = {"content-type": "application/json"}
_Job = tuple[bytes, int, "asyncio.Future[bool]"]


class Delivery:
    """One queue and one sender per Alertmanager, so that a slow one holds up no other."""

    def __init__(
        self,
        urls: Sequence[str],
        client: httpx.AsyncClient,
        measures: Measures,
        timeout: float,
    ) -> None:
        self._client, self._measures, self._timeout = client, measures, timeout
        self._queues: dict[str, asyncio.Queue[_Job]] = {
            url: asyncio.Queue(_WAITING) for url in urls
        }
        self._senders: list[asyncio.Task[None]] = []
        for url in urls:  # counted from 0: the first refusal is an increase, too
            for name in ("alerts_delivered", "alerts_refused"):
                measures.add(name, 0, alertmanager=_shown(url))

    def start(self) -> None:
        """Start the senders; needs the running event loop."""
        self._senders = [
            asyncio.create_task(self._send_all(url, queue)) for url, queue in self._queues.items()
        ]

    async def stop(self, seconds: float) -> None:
        """Send what waits, for at most this long, then end the senders."""
        empty = asyncio.gather(*(queue.join() for queue in self._queues.values()))
        try:
            await asyncio.wait_for(empty, seconds)
        except asyncio.TimeoutError:
            _logger.warning("alerts were still waiting for an Alertmanager at the end")
        for sender in self._senders:
            sender.cancel()

    async def deliver(self, body: bytes, alerts: int) -> bool:
        """Give a batch to all; true as soon as one has accepted it, false when all refused."""
        waiting = {self._enqueue(url, body, alerts) for url in self._queues}
        while waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if any(future.result() for future in done):
                return True
        self._measures.add("alerts_unaccepted", alerts)
        return False

    def _enqueue(self, url: str, body: bytes, alerts: int) -> asyncio.Future[bool]:
        outcome: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        try:
            self._queues[url].put_nowait((body, alerts, outcome))
        except asyncio.QueueFull:
            self._measures.add("alerts_refused", alerts, alertmanager=_shown(url))
            outcome.set_result(False)
        return outcome

    async def _send_all(self, url: str, queue: asyncio.Queue[_Job]) -> None:
        while True:
            body, alerts, outcome = await queue.get()
            accepted = await self._send(url, body)
            name = "alerts_delivered" if accepted else "alerts_refused"
            self._measures.add(name, alerts, alertmanager=_shown(url))
            if not outcome.done():  # its asker may have gone
                outcome.set_result(accepted)
            queue.task_done()

    async def _send(self, url: str, body: bytes) -> bool:
        try:
            answer = await self._client.post(
                f"{url}/api/v2/alerts", content=body, headers=_HEADERS, timeout=self._timeout
            )
        except httpx.HTTPError as error:
            _logger.warning("%s does not answer: %s", _shown(url), type(error).__name__)
            return False
        if not answer.is_success:
            _logger.warning("%s refused alerts: %s", _shown(url), answer.status_code)
        return answer.is_success


def _shown(url: str) -> str:
    """An Alertmanager's address without user and password, for logs and labels."""
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"
