"""Two models that answer from the staff handbook: one thorough, one quick."""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, HTTPException, Path
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

router = APIRouter(prefix="/models", tags=["models"])

HANDBOOK = (
    "Shifts are published two weeks ahead.",
    "Who swaps a shift asks a colleague first and then the planner.",
    "Overtime is paid with the next payroll run.",
    "Holiday requests go to the planner and are answered within three days.",
    "A sick note is due on the third day of illness.",
    "Between two shifts there are at least eleven hours of rest.",
)
WORD_SECONDS = 0.001


@dataclass(frozen=True, slots=True)
class Model:
    """How much of the handbook a model quotes, what it takes to think, and what it can take."""

    quotes: int
    seconds_per_word: float
    most_words: int


MODELS = {"sage-large": Model(2, 0.02, 60), "sage-small": Model(1, 0.000_5, 400)}


class Question(BaseModel):
    """What is asked."""

    question: str


@router.post("/{name}/answers")
async def answer(name: Annotated[str, Path()], body: Question) -> StreamingResponse:
    """Think, then stream the answer, a word a line; 503 for more words than the model can hold."""
    model = MODELS.get(name)
    if model is None:
        raise HTTPException(404, "no such model")
    words = _words(body.question)
    if len(words) > model.most_words:
        raise HTTPException(503, "the model is out of memory")
    await asyncio.sleep(model.seconds_per_word * len(words))
    return StreamingResponse(_answer(model, words), media_type="text/plain")


async def _answer(model: Model, question: list[str]) -> AsyncIterator[str]:
    asked = set(question)
    best = sorted(HANDBOOK, key=lambda line: len(asked & set(_words(line))), reverse=True)
    for word in " ".join(best[: model.quotes]).split():
        yield f"{word}\n"
        await asyncio.sleep(WORD_SECONDS)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
