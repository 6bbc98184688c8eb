"""Settings, read from the environment once."""

import os
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the API finds its database and its partner."""

    database_url: str
    connector_url: str

    @property
    def async_database_url(self) -> str:
        """The same SQLite file for the asyncio engine."""
        return self.database_url.replace("sqlite://", "sqlite+aiosqlite://", 1)


def from_env(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read `SAAS_DATABASE_URL` (a `sqlite:///` URL) and `SAAS_CONNECTOR_URL`."""
    return Settings(
        database_url=environ.get("SAAS_DATABASE_URL", "sqlite:///saas.db"),
        connector_url=environ.get("SAAS_CONNECTOR_URL", "http://127.0.0.1:8001"),
    )


settings = from_env()
