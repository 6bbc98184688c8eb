"""The ways in which applications set up logging, each as its documentation says."""

from __future__ import annotations

import logging
import logging.config
import os
import sys
from collections.abc import Callable
from typing import Any

Log = Callable[[str, int], None]
CODE = "out_of_paper"


def set_up(way: str) -> Log:
    """Set logging up in this way; gives what logs an error about an order."""
    return WAYS[way]()


def basic() -> Log:
    logging.basicConfig(level=logging.INFO, stream=sys.stdout)
    return standard(logging.getLogger("shop"))


def by_dict() -> Log:
    """Replaces the handlers of root and uvicorn, as a production configuration does."""
    to_console = {"handlers": ["console"], "level": "INFO", "propagate": False}
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"plain": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
            "handlers": {
                "console": {
                    "class": "logging.StreamHandler",
                    "formatter": "plain",
                    "stream": "ext://sys.stdout",
                }
            },
            "root": {"handlers": ["console"], "level": "INFO"},
            "loggers": dict.fromkeys(("shop", "uvicorn", "uvicorn.access"), to_console),
        }
    )
    return standard(logging.getLogger("shop"))


def by_structlog() -> Log:
    """Structlog over the standard library, as its documentation recommends for existing applications."""
    import structlog

    logging.basicConfig(level=logging.INFO, stream=sys.stdout)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.add_log_level,
            structlog.stdlib.render_to_log_kwargs,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    log = structlog.get_logger("shop")
    return lambda text, order: log.error(text, order=order, pid=os.getpid(), error_code=CODE)


def by_structlog_formatter() -> Log:
    """Structlog over the standard library with its own formatter, as its documentation shows."""
    import structlog

    shared = [structlog.stdlib.add_logger_name, structlog.stdlib.add_log_level]
    formatter = structlog.stdlib.ProcessorFormatter
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, formatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    render: list[Any] = [formatter.remove_processors_meta, structlog.processors.JSONRenderer()]
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(formatter(foreign_pre_chain=shared, processors=render))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    log = structlog.get_logger("shop")
    return lambda text, order: log.error(text, order=order, pid=os.getpid(), error_code=CODE)


def by_structlog_alone() -> Log:
    """Structlog that prints, as it is but for JSON."""
    import structlog

    structlog.configure(processors=[structlog.processors.JSONRenderer()])
    log = structlog.get_logger()
    return lambda text, order: log.error(text, order=order, pid=os.getpid(), error_code=CODE)


def by_loguru_alone() -> Log:
    """Loguru as it is but for JSON; nothing is handed over."""
    from loguru import logger

    logger.remove()
    logger.add(sys.stdout, serialize=True)

    def log(text: str, order: int) -> None:
        logger.bind(order=order, pid=os.getpid(), error_code=CODE).error(text)

    return log


class ToLogging(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        own = vars(record)
        taken = {*own, "message", "asctime"}
        for name, value in own.pop("extra", {}).items():
            own[f"extra.{name}" if name in taken else name] = value
        logging.getLogger(record.name).handle(record)


def by_loguru() -> Log:
    """Loguru handed over to the standard library, as docs/install.md says."""
    from loguru import logger

    logging.basicConfig(level=logging.INFO, stream=sys.stdout)
    logger.remove()
    logger.add(ToLogging(), format="{message}")

    def log(text: str, order: int) -> None:
        logger.bind(order=order, pid=os.getpid(), error_code=CODE).error(text)

    return log


def standard(logger: logging.Logger) -> Log:
    def log(text: str, order: int) -> None:
        logger.error(text, extra={"order": order, "pid": os.getpid(), "error_code": CODE})

    return log


WAYS: dict[str, Callable[[], Log]] = {
    "basic": basic,
    "dict": by_dict,
    "structlog": by_structlog,
    "structlog-formatter": by_structlog_formatter,
    "structlog-alone": by_structlog_alone,
    "loguru": by_loguru,
    "loguru-alone": by_loguru_alone,
}
