"""The assistant's models at the partner: the best one that answers in time, streamed."""

import logging
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import httpx

from .errors import AppError

logger = logging.getLogger(__name__)

# The best first, each with the seconds it may take to its first word.
MODELS = {"sage-large": 0.4, "sage-small": 5.0}
# So long a model that did not answer is not asked again; then one question finds out whether it is back.
REST_SECONDS = 0.5

_resting: dict[str, float] = {}


@dataclass(frozen=True, slots=True)
class Answer:
    """A model that has begun to answer; `words` gives the rest, first word included."""

    model: str
    words: AsyncIterator[str]


async def ask(client: httpx.AsyncClient, question: str, opened: AsyncExitStack) -> Answer:
    """Ask the models in turn until one begins to answer; 503 when none does.

    Only before the first word can another model take over. `opened` closes the connection.
    """
    for model, patience in MODELS.items():
        if time.monotonic() < _resting.get(model, 0):
            continue
        try:
            words = await _begin(client, model, question, httpx.Timeout(patience), opened)
        except httpx.HTTPError as error:
            # A model that refuses this question may well answer the next one.
            if not isinstance(error, httpx.HTTPStatusError):
                _resting[model] = time.monotonic() + REST_SECONDS
            facts = {"error_code": "model_unavailable", "model": model}
            logger.warning("%s failed: %s", model, type(error).__name__, extra=facts)
            continue
        if _resting.pop(model, None) is not None:
            logger.info("%s is back", model, extra={"model": model})
        return Answer(model, words)
    raise AppError(503, "assistant_unavailable", "no model answers; try again")


async def _begin(
    client: httpx.AsyncClient,
    model: str,
    question: str,
    timeout: httpx.Timeout,
    opened: AsyncExitStack,
) -> AsyncIterator[str]:
    call = client.stream(
        "POST", f"/models/{model}/answers", json={"question": question}, timeout=timeout
    )
    answer = await opened.enter_async_context(call)
    answer.raise_for_status()
    lines = answer.aiter_lines()
    first = await anext(lines, "")
    return _with_first(first, lines)


async def _with_first(first: str, rest: AsyncIterator[str]) -> AsyncIterator[str]:
    yield first
    async for word in rest:
        yield word
