"""Chat with the assistant: the answer is streamed as server-sent events, then stored."""

import json
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Annotated

import httpx
from fastapi import APIRouter, Depends, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from .. import assistant
from ..database import AsyncDB, AsyncSessions
from ..models import ChatMessage
from ..optional_identity import named_operation
from ..security import CurrentUser

logger = logging.getLogger(__name__)
router = APIRouter(prefix="/chat", tags=["chat"])


class Question(BaseModel):
    """What a person asks."""

    text: str = Field(min_length=1, max_length=2_000)


class MessageOut(BaseModel):
    """A stored turn; the author is `user` or the model's name."""

    author: str
    text: str


def get_models(request: Request) -> httpx.AsyncClient:
    """The client that lifespan made."""
    client: httpx.AsyncClient = request.app.state.partner
    return client


@router.get("/messages")
async def messages(current_user: CurrentUser, session: AsyncDB) -> list[MessageOut]:
    """The conversation so far."""
    rows = await session.scalars(
        select(ChatMessage).where(ChatMessage.user_id == current_user.id).order_by(ChatMessage.id)
    )
    return [MessageOut.model_validate(row, from_attributes=True) for row in rows]


@router.post("/messages")
async def ask(
    question: Question,
    current_user: CurrentUser,
    sessions: AsyncSessions,
    models: Annotated[httpx.AsyncClient, Depends(get_models)],
) -> StreamingResponse:
    """Ask; `word` events, then `done` with the model, or `error` when it stops half-way."""
    async with AsyncExitStack() as opened:
        answer = await begin(models, question.text, opened)
        # Kept open for the stream, which closes it.
        stream = _events(answer, opened.pop_all(), sessions, current_user.id, question.text)
    return StreamingResponse(stream, media_type="text/event-stream")


@named_operation("chat.ask")
async def begin(
    models: httpx.AsyncClient, question: str, opened: AsyncExitStack
) -> assistant.Answer:
    """Find a model that answers."""
    return await assistant.ask(models, question, opened)


async def _events(
    answer: assistant.Answer,
    opened: AsyncExitStack,
    sessions: async_sessionmaker[AsyncSession],
    user_id: str,
    question: str,
) -> AsyncIterator[str]:
    words: list[str] = []
    async with opened:
        try:
            async for word in answer.words:
                words.append(word)
                yield _event("word", word)
        except httpx.HTTPError:
            facts = {"error_code": "answer_interrupted", "model": answer.model}
            logger.exception("the model stopped half-way", extra=facts)
            yield _event("error", "answer_interrupted")
            return
    async with sessions.begin() as session:
        session.add(ChatMessage(user_id=user_id, author="user", text=question))
        session.add(ChatMessage(user_id=user_id, author=answer.model, text=" ".join(words)))
    logger.info("answered", extra={"model": answer.model, "words": len(words)})
    yield _event("done", answer.model)


def _event(kind: str, data: str) -> str:
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n"
