"""Sending requests and remembering what came back."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends a request, as the application should see it; all None: nobody."""

    kind: str = "anonymous"
    org_id: str | None = None
    user_id: str | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """A request to send and the statuses it may get."""

    method: str
    path: str
    expected: frozenset[int]
    json: Any = None
    signed_in: bool = True


@dataclass(frozen=True, slots=True)
class Call:
    """A request that was sent, and what came back."""

    caller: Caller
    step: Step
    status: int
    sent_request_id: str | None
    request_id: str | None
    trace_id: str | None

    def __str__(self) -> str:
        return f"{self.step.method} {self.step.path} → {self.status}"


NOBODY = Caller()


def step(method: str, path: str, *expected: int, json: Any = None, signed_in: bool = True) -> Step:
    """A step; `signed_in=False` where the application never gets to know the caller."""
    return Step(method, path, frozenset(expected), json, signed_in)


class Driver:
    """Sends steps to one API and remembers every call."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.calls: list[Call] = []

    async def send(
        self, caller: Caller, todo: Step, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """Send one step and read the answer to its end."""
        sent = dict(headers or {})
        answer = await self.client.request(todo.method, todo.path, json=todo.json, headers=sent)
        self.calls.append(
            Call(
                caller if todo.signed_in else NOBODY,
                todo,
                answer.status_code,
                sent.get("X-Request-Id"),
                answer.headers.get("X-Request-Id"),
                answer.headers.get("X-Trace-Id"),
            )
        )
        return answer
