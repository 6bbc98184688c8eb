"""An application of 200 routes, as a user writes it."""

from fastapi import FastAPI

ROUTES = 200

app = FastAPI()


async def item(item_id: int) -> dict[str, int]:
    return {"id": item_id}


for number in range(ROUTES):
    app.get(f"/area{number}/items/{{item_id}}")(item)
