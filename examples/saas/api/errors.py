"""Errors as callers see them: `{"error": {"code": ..., "message": ...}}`."""

import logging

import httpx
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from .optional_identity import who

logger = logging.getLogger(__name__)

CODES = {401: "unauthorized", 403: "forbidden", 404: "not_found", 405: "method_not_allowed"}


class AppError(Exception):
    """An error with a code that callers may rely on."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def _body(status: int, code: str, message: str) -> JSONResponse:
    return JSONResponse({"error": {"code": code, "message": message}}, status_code=status)


async def _app_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, AppError)
    logger.warning(
        "request refused: %s",
        error.code,
        extra={"error_code": error.code, "path": request.url.path},
    )
    return _body(error.status, error.code, str(error))


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code = CODES.get(error.status_code, "http_error")
    return _body(error.status_code, code, str(error.detail))


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    fields = [".".join(str(part) for part in item["loc"]) for item in error.errors()]
    return _body(422, "invalid_request", f"check: {', '.join(fields)}")


async def _partner_down(request: Request, error: Exception) -> JSONResponse:
    facts = {"error_code": "connector_unavailable"}
    logger.error("connector failed for %s", who(), exc_info=error, extra=facts)
    return _body(502, "connector_unavailable", "the partner did not answer; try again")


def install(app: FastAPI) -> None:
    """Give an app, or a mounted one, these handlers. Anything else stays an unhandled 500."""
    app.add_exception_handler(AppError, _app_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(httpx.HTTPError, _partner_down)
