"""One question to a backend over HTTP, and what its failure means."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import httpx

from otel_shim.relay.model import LookupFailed, LookupRefused, Sighting

_BUSY = (408, 425, 429)  # 4xx that say nothing about the question
_MOST_CHARACTERS = 150


async def asked(
    client: httpx.AsyncClient,
    who: str,
    url: str,
    parameters: Mapping[str, str],
    read: Callable[[Any], tuple[Sighting, ...]],
) -> tuple[Sighting, ...]:
    """What `read` finds in the answer. Raises LookupRefused for a bad question, else LookupFailed."""
    try:
        answer = await client.get(url, params=parameters)
        if answer.is_client_error and answer.status_code not in _BUSY:
            raise LookupRefused(f"{who} refused the question: {_said(answer)}")
        if not answer.is_success:
            raise LookupFailed(f"{who}: {_said(answer)}")
        return read(answer.json())
    except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise LookupFailed(f"{who}: {type(error).__name__}") from error


def _said(answer: httpx.Response) -> str:
    """The status, and the beginning of what stands beside it, in one line."""
    return f"{answer.status_code} {' '.join(answer.text.split())}"[:_MOST_CHARACTERS].strip()
