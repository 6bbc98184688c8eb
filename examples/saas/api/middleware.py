"""A middleware of the common kind; on purpose it fails, see `faults`."""

import logging
import time

from fastapi import Request, Response
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint

from . import faults

logger = logging.getLogger(__name__)


class RequestLog(BaseHTTPMiddleware):
    """Log each request with its duration and tell it to the caller."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Time the request."""
        started = time.perf_counter()
        faults.before_routing(request.url.path)
        response = await call_next(request)
        took_ms = (time.perf_counter() - started) * 1000
        response.headers["Server-Timing"] = f"app;dur={took_ms:.1f}"
        logger.info(
            "%s %s %s",
            request.method,
            request.url.path,
            response.status_code,
            extra={"duration_ms": round(took_ms, 1)},
        )
        return response
