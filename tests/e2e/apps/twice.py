"""An application that instruments SQLAlchemy itself, as the official documentation shows it."""

from fastapi import FastAPI
from opentelemetry.instrumentation.sqlalchemy import (  # type: ignore[import-not-found]
    SQLAlchemyInstrumentor,
)

SQLAlchemyInstrumentor().instrument()
app = FastAPI()
