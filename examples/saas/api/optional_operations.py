"""OPTIONAL: what operators get from otel-shim; without the package all of it does nothing."""

import hmac
from contextlib import AbstractContextManager, nullcontext
from typing import Annotated

from fastapi import FastAPI, Header

from .errors import AppError
from .settings import settings

try:
    from opentelemetry.instrumentation.utils import suppress_instrumentation

    from otel_shim import ops
except ModuleNotFoundError as missing:
    if not (missing.name or "").startswith(("otel_shim", "opentelemetry")):
        raise
    INSTALLED = False
else:
    INSTALLED = True


def operators_only(x_operator_token: Annotated[str, Header()] = "") -> None:
    """403 without the operators' token, and for everybody where none is set."""
    expected = settings.operator_token
    if not expected or not hmac.compare_digest(x_operator_token.encode(), expected.encode()):
        raise AppError(403, "operators_only", "only for operators")


def install(app: FastAPI) -> None:
    """Mount the operational summary."""
    if INSTALLED:
        app.include_router(ops.router(dependency=operators_only))


def unwatched() -> AbstractContextManager[object]:
    """A block whose queries make no spans: looking at figures is not work of anybody's."""
    return suppress_instrumentation() if INSTALLED else nullcontext()
