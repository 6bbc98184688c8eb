"""Is the service up?"""

from fastapi import APIRouter

router = APIRouter(tags=["health"])


@router.get("/health")
async def health() -> dict[str, str]:
    """For load balancers."""
    return {"status": "ok"}
