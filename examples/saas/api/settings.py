"""Settings, read from the environment once."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

# Each database's driver for the synchronous engine and for the asyncio one.
DRIVERS = {
    "sqlite": ("sqlite", "sqlite+aiosqlite"),
    "postgresql": ("postgresql+psycopg", "postgresql+asyncpg"),
}


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the API finds its database and its partner, and what its operators show."""

    database_url: str
    connector_url: str
    operator_token: str = field(default="", repr=False)
    calendar_url: str = ""
    calendar_user: str = ""
    calendar_password: str = field(default="", repr=False)
    backups: Path = Path("backups")
    exports: Path = Path("exports")

    @property
    def database(self) -> str:
        """Which database it is: `sqlite` or `postgresql`."""
        return self.database_url.partition(":")[0].partition("+")[0]

    @property
    def sync_database_url(self) -> str:
        """The URL for the synchronous engine, whichever driver the setting names."""
        return self._with_driver(DRIVERS[self.database][0])

    @property
    def async_database_url(self) -> str:
        """The same database for the asyncio engine."""
        return self._with_driver(DRIVERS[self.database][1])

    def _with_driver(self, driver: str) -> str:
        return driver + self.database_url[self.database_url.index(":") :]


def from_env(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read `SAAS_DATABASE_URL` (`sqlite:///…`, `postgresql+asyncpg://…`), `SAAS_CONNECTOR_URL` and
    `SAAS_OPERATOR_TOKEN`; for jobs the CalDAV home `SAAS_CALENDAR_URL` (none: no CalDAV) with
    `SAAS_CALENDAR_USER` and `SAAS_CALENDAR_PASSWORD`, and the folders `SAAS_BACKUPS` and `SAAS_EXPORTS`.
    """
    return Settings(
        database_url=environ.get("SAAS_DATABASE_URL", "sqlite:///saas.db"),
        connector_url=environ.get("SAAS_CONNECTOR_URL", "http://127.0.0.1:8001"),
        operator_token=environ.get("SAAS_OPERATOR_TOKEN", ""),
        calendar_url=environ.get("SAAS_CALENDAR_URL", ""),
        calendar_user=environ.get("SAAS_CALENDAR_USER", ""),
        calendar_password=environ.get("SAAS_CALENDAR_PASSWORD", ""),
        backups=Path(environ.get("SAAS_BACKUPS", "backups")),
        exports=Path(environ.get("SAAS_EXPORTS", "exports")),
    )


settings = from_env()
