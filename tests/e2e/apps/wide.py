"""Two hundred routes."""

from __future__ import annotations

from fastapi import FastAPI

app = FastAPI()


@app.get("/health")
async def health() -> dict[str, str]:
    return {}


def thing(thing_id: int) -> int:
    return thing_id


for number in range(200):
    app.get(f"/things/{number}/{{thing_id}}")(thing)
