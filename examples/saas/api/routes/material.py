"""Material: list the stock, add to it, reserve from it. Two who reserve at once: one gets a 409."""

import logging

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm.exc import StaleDataError

from ..database import AsyncDB
from ..errors import AppError
from ..models import Item
from ..security import CurrentUser, require_role

logger = logging.getLogger(__name__)
router = APIRouter(prefix="/material", tags=["material"])


class NewItem(BaseModel):
    """Something to stock."""

    sku: str = Field(min_length=1, max_length=40)
    stock: int = Field(ge=0)


class ItemOut(NewItem):
    """Something in stock; `version` is what a reservation must name."""

    id: int
    version: int


class Reservation(BaseModel):
    """How many to take, and of which version the caller knows."""

    quantity: int = Field(gt=0)
    version: int


@router.get("/items")
async def items(current_user: CurrentUser, session: AsyncDB) -> list[ItemOut]:
    """The organisation's stock."""
    rows = await session.scalars(
        select(Item).where(Item.org_id == current_user.org_id).order_by(Item.sku)
    )
    return [ItemOut.model_validate(row, from_attributes=True) for row in rows]


@router.post("/items", status_code=201, dependencies=[Depends(require_role("planner", "admin"))])
async def add_item(new: NewItem, current_user: CurrentUser, session: AsyncDB) -> ItemOut:
    """Stock something new; 409 when the organisation has this SKU already."""
    item = Item(org_id=current_user.org_id, **new.model_dump())
    session.add(item)
    try:
        await session.commit()
    except IntegrityError:
        raise AppError(409, "sku_taken", "there is an item with this SKU") from None
    return ItemOut.model_validate(item, from_attributes=True)


@router.post("/items/{item_id}/reservations", status_code=201)
async def reserve(
    item_id: int, wanted: Reservation, current_user: CurrentUser, session: AsyncDB
) -> ItemOut:
    """Take from the stock; 409 when somebody else changed it since, or too little is left."""
    item = await session.get(Item, item_id)
    if item is None or item.org_id != current_user.org_id:
        raise AppError(404, "item_not_found", "no such item")
    if item.version != wanted.version:
        raise AppError(409, "item_changed", "somebody changed this item; look again")
    if item.stock < wanted.quantity:
        raise AppError(409, "out_of_stock", f"only {item.stock} left")
    item.stock -= wanted.quantity
    try:
        await session.commit()
    except StaleDataError:
        raise AppError(409, "item_changed", "somebody changed this item; look again") from None
    logger.info("material reserved", extra={"item_id": item_id, "quantity": wanted.quantity})
    return ItemOut.model_validate(item, from_attributes=True)
