"""People at work: a few requests a second, all the time."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from itertools import cycle, pairwise

import httpx

from examples.saas.api.people import CUSTOMERS, PASSWORD

PAUSE_SECONDS = 0.2
PUBLISH_SECONDS = 2.0
SENDERS = 6
# A request that fails on its way is counted, and the next one is sent; more than this many of them are no traffic.
LOST_SHARE = 0.02
PATHS = (
    "/planning/plans",
    "/billing/usage",
    "/auth/me",
    "/planning/plans/{plan}",
    "/billing/invoices",
    "/planning/plans/{plan}/export.csv",
)
Took = list[tuple[float, float]]
"""When each request began (monotonic) and how long it took, in seconds."""


class Traffic:
    """What is sent until it is stopped; counts the answers by path and status, and what got none."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stopped = threading.Event()
        self.answers: Counter[tuple[str, int]] = Counter()
        self.lost: Counter[str] = Counter()
        self.took: defaultdict[str, Took] = defaultdict(list)

    def run(self) -> None:
        """Send until stopped."""
        asyncio.run(self._all())

    def stop(self) -> None:
        """Let the senders end."""
        self._stopped.set()

    def worst_p95(self, window: float) -> dict[str, float]:
        """The worst p95 that the senders saw, by path, in seconds, over windows of this length."""
        return {path: _worst(sorted(took), window) for path, took in self.took.items() if took}

    def too_few(self, at_least: int, window: float, since: float) -> list[str]:
        """Paths with fewer requests than that in each window since then (monotonic): no rule judges them."""
        least = at_least * (time.monotonic() - since) / window
        counts = {path: sum(at >= since for at, _ in list(self.took[path])) for path in PATHS}
        return [
            f"{count} requests to {path}; an alert needs {least:.0f}"
            for path, count in counts.items()
            if count < least
        ]

    def not_kept_up(self, longest: float) -> Iterator[str]:
        """Why this was no traffic: pauses longer than that, in seconds, or requests that got no answer."""
        for path in PATHS:
            pause = _longest_pause([at for at, _ in list(self.took[path])])
            if pause > longest:
                yield f"no request to {path} for {pause:.0f} s"
        lost, answers = sum(self.lost.values()), sum(self.answers.values())
        if lost > LOST_SHARE * answers:
            yield f"{lost} requests without an answer beside {answers}: {dict(self.lost)}"

    def said(self) -> str:
        """For the report."""
        lost = sum(self.lost.values())
        return f"{sum(self.answers.values())} requests answered, {lost} without an answer"

    async def _all(self) -> None:
        people = (self._again(index, self._person) for index in range(SENDERS))
        await asyncio.gather(*people, self._again(0, self._planner))

    async def _again(
        self, index: int, work: Callable[[httpx.AsyncClient, int], AsyncIterator[float]]
    ) -> None:
        """Work until stopped; whoever lost the connection signs in again."""
        while not self._stopped.is_set():
            with self._counted():
                async with self._signed_in(index % len(CUSTOMERS)) as (client, plan):
                    async for pause in work(client, plan):
                        if self._stopped.is_set():
                            return
                        await asyncio.sleep(pause)
            await asyncio.sleep(PAUSE_SECONDS)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        try:
            yield
        except httpx.HTTPError as error:
            self.lost[type(error).__name__] += 1

    async def _planner(self, client: httpx.AsyncClient, plan: int) -> AsyncIterator[float]:
        """Publish one plan again and again: each time an item for the calendar queue."""
        while True:
            answer = await client.post(f"/planning/plans/{plan}/publish")
            self.answers["/planning/plans/{plan}/publish", answer.status_code] += 1
            yield PUBLISH_SECONDS

    async def _person(self, client: httpx.AsyncClient, plan: int) -> AsyncIterator[float]:
        for path in cycle(PATHS):
            began = time.monotonic()
            answer = await client.get(path.replace("{plan}", str(plan)))
            self.took[path].append((began, time.monotonic() - began))
            self.answers[path, answer.status_code] += 1
            yield PAUSE_SECONDS

    @asynccontextmanager
    async def _signed_in(self, index: int) -> AsyncIterator[tuple[httpx.AsyncClient, int]]:
        # A connection each time: uvicorn closes one after an unhandled error.
        limits = httpx.Limits(max_keepalive_connections=0)
        async with httpx.AsyncClient(base_url=self._url, timeout=30, limits=limits) as client:
            credentials = {"email": CUSTOMERS[index].people[1].email, "password": PASSWORD}
            login = (await client.post("/auth/login", json=credentials)).raise_for_status()
            client.headers["Authorization"] = f"Bearer {login.json()['access_token']}"
            yield client, (await client.get("/planning/plans")).raise_for_status().json()[0]["id"]


def _longest_pause(began: Sequence[float]) -> float:
    """Of those that began, and until now; endless where none did."""
    if not began:
        return float("inf")
    return max(after - before for before, after in pairwise([*sorted(began), time.monotonic()]))


def _worst(took: Took, window: float) -> float:
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
