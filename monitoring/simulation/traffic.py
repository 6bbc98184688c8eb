"""People at work: a few requests a second, all the time."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import cycle

import httpx

from examples.saas.api.people import CUSTOMERS, PASSWORD

PAUSE_SECONDS = 0.15
PUBLISH_SECONDS = 2.0
SENDERS = 4
PATHS = (
    "/planning/plans",
    "/billing/usage",
    "/auth/me",
    "/planning/plans/{plan}",
    "/billing/invoices",
    "/planning/plans/{plan}/export.csv",
)


class Traffic:
    """What is sent until it is stopped; counts the answers by path and status."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stopped = threading.Event()
        self.answers: Counter[tuple[str, int]] = Counter()
        self.took: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)

    def run(self) -> None:
        """Send until stopped."""
        asyncio.run(self._all())

    def stop(self) -> None:
        """Let the senders end."""
        self._stopped.set()

    def worst_p95(self, window: float) -> dict[str, float]:
        """The worst p95 that the senders saw, by path, in seconds, over windows of this length."""
        return {path: _worst(sorted(took), window) for path, took in self.took.items()}

    async def _all(self) -> None:
        people = (self._person(index) for index in range(SENDERS))
        await asyncio.gather(*people, self._planner())

    async def _planner(self) -> None:
        """Publish one plan again and again: each time an item for the calendar queue."""
        async with self._signed_in(0) as (client, plan):
            while not self._stopped.is_set():
                answer = await client.post(f"/planning/plans/{plan}/publish")
                self.answers["/planning/plans/{plan}/publish", answer.status_code] += 1
                await asyncio.sleep(PUBLISH_SECONDS)

    @asynccontextmanager
    async def _signed_in(self, index: int) -> AsyncIterator[tuple[httpx.AsyncClient, int]]:
        # A connection each time: uvicorn closes one after an unhandled error.
        limits = httpx.Limits(max_keepalive_connections=0)
        async with httpx.AsyncClient(base_url=self._url, timeout=30, limits=limits) as client:
            credentials = {"email": CUSTOMERS[index].people[1].email, "password": PASSWORD}
            login = (await client.post("/auth/login", json=credentials)).raise_for_status()
            client.headers["Authorization"] = f"Bearer {login.json()['access_token']}"
            yield client, (await client.get("/planning/plans")).raise_for_status().json()[0]["id"]

    async def _person(self, index: int) -> None:
        async with self._signed_in(index) as (client, plan):
            for path in cycle(PATHS):
                if self._stopped.is_set():
                    return
                began = time.monotonic()
                answer = await client.get(path.replace("{plan}", str(plan)))
                self.took[path].append((began, time.monotonic() - began))
                self.answers[path, answer.status_code] += 1
                await asyncio.sleep(PAUSE_SECONDS)


def _worst(took: list[tuple[float, float]], window: float) -> float:
    windows: defaultdict[int, list[float]] = defaultdict(list)
    for began, seconds in took:
        windows[int(began / window)].append(seconds)
    return max(sorted(each)[int(len(each) * 0.95)] for each in windows.values())


@contextmanager
def flowing(url: str) -> Iterator[Traffic]:
    """Traffic in the background."""
    traffic = Traffic(url)
    thread = threading.Thread(target=traffic.run, daemon=True)
    thread.start()
    try:
        yield traffic
    finally:
        traffic.stop()
        thread.join()
