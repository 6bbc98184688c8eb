"""Natal charts, an extra that people buy: computed in other processes, once for each birth."""

import asyncio
import hashlib
import logging
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime, timezone
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import AwareDatetime, BaseModel, Field
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from ..astronomy import natal_chart
from ..database import AsyncDB
from ..models import Chart
from ..optional_identity import named_operation
from ..security import CurrentUser

logger = logging.getLogger(__name__)
router = APIRouter(prefix="/charts", tags=["charts"])

Born = Annotated[
    AwareDatetime,
    Field(
        ge=datetime(1800, 1, 1, tzinfo=timezone.utc), lt=datetime(2050, 1, 1, tzinfo=timezone.utc)
    ),
]


class Birth(BaseModel):
    """When and where; degrees north and east. At the poles nothing rises."""

    born: Born
    latitude: float = Field(ge=-66, le=66)
    longitude: float = Field(ge=-180, le=180)


class ChartOut(BaseModel):
    """A chart: longitudes in degrees, aspects and transits as triples."""

    cached: bool
    ascendant: float
    positions: dict[str, float]
    aspects: list[tuple[str, str, str]]
    transits: list[tuple[str, str, str]]


def get_processes(request: Request) -> ProcessPoolExecutor:
    """The processes that lifespan made."""
    processes: ProcessPoolExecutor = request.app.state.processes
    return processes


@router.post("/natal")
async def natal(
    birth: Birth,
    current_user: CurrentUser,
    session: AsyncDB,
    processes: Annotated[ProcessPoolExecutor, Depends(get_processes)],
) -> ChartOut:
    """The chart of a birth; the second time it is read."""
    user_id = current_user.id
    key = hashlib.sha256(birth.model_dump_json().encode()).hexdigest()
    stored = await session.get(Chart, (user_id, key))
    if stored is not None:
        return ChartOut(cached=True, **stored.body)
    body = await compute(birth, processes)
    await _store(session, Chart(user_id=user_id, key=key, body=body))
    return ChartOut(cached=False, **body)


@named_operation("chart.compute")
async def compute(birth: Birth, processes: ProcessPoolExecutor) -> dict[str, Any]:
    """Compute where it does not hold up the event loop."""
    loop = asyncio.get_running_loop()
    body: dict[str, Any] = await loop.run_in_executor(
        processes, natal_chart, birth.born, birth.latitude, birth.longitude
    )
    logger.info("chart computed", extra={"transits": len(body["transits"])})
    return body


async def _store(session: AsyncSession, chart: Chart) -> None:
    session.add(chart)
    try:
        await session.commit()
    except IntegrityError:
        # The same person asked twice at once: the other one's is the same.
        await session.rollback()
