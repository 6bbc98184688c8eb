"""SQLAlchemy: one client span for each statement, from its own events.

Listens on the ``Engine`` class, so every engine counts: sync and async, made before or after, by
whichever function, in every version that has these events; no connection spans. Attributes follow
the stable database conventions. Values of parameters and messages of errors are never recorded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any
from weakref import WeakKeyDictionary

import wrapt
from opentelemetry import trace
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.semconv.attributes.db_attributes import (
    DB_NAMESPACE,
    DB_OPERATION_BATCH_SIZE,
    DB_OPERATION_NAME,
    DB_QUERY_TEXT,
    DB_RESPONSE_STATUS_CODE,
    DB_SYSTEM_NAME,
)
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.semconv.attributes.server_attributes import SERVER_ADDRESS, SERVER_PORT
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from otel_shim._guard import guarded
from otel_shim._sdk_compat import light_spans
from otel_shim.model import Scalar

_SPAN = "_otel_shim_span"
_SYSTEMS = {"oracle": "oracle.db", "mssql": "microsoft.sql_server"}
_LONGEST_QUERY = 4096
_KNOWN_QUERIES = 500
"""As many as SQLAlchemy itself keeps compiled for an engine."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is the same for every statement of an engine, and for every execution of a statement."""

    namespace: str
    attributes: dict[str, Scalar]
    known: dict[str, tuple[str, dict[str, Scalar]]] = field(default_factory=dict)

    def learn(self, statement: str) -> tuple[str, dict[str, Scalar]]:
        """The span's name and attributes; short statements are remembered, as many as repeat."""
        operation = _operation(statement)
        attributes = {
            **self.attributes,
            DB_OPERATION_NAME: operation,
            DB_QUERY_TEXT: statement[:_LONGEST_QUERY],
        }
        found = (f"{operation} {self.namespace}" if self.namespace else operation), attributes
        if len(statement) <= _LONGEST_QUERY:
            if len(self.known) >= _KNOWN_QUERIES:
                self.known.clear()
            self.known[statement] = found
        return found


def install() -> None:
    """Listen to all engines, once the application imports SQLAlchemy."""
    wrapt.register_post_import_hook(_listen, "sqlalchemy.engine")


@guarded(default=None)
def _listen(_module: Any) -> None:
    # Imported where the application has done so already: the shim does not need it.
    from sqlalchemy import event  # noqa: PLC0415
    from sqlalchemy.engine import Engine  # noqa: PLC0415

    statements = Statements(trace.get_tracer("otel_shim.sqlalchemy"))
    event.listen(Engine, "before_cursor_execute", statements.started)
    event.listen(Engine, "after_cursor_execute", statements.finished)
    event.listen(Engine, "handle_error", statements.failed)


class Statements:
    """The listeners; a statement's span is kept on SQLAlchemy's own execution context."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer
        self._targets: WeakKeyDictionary[Any, Target] = WeakKeyDictionary()

    @guarded(default=None)
    def started(
        self, conn: Any, _cursor: Any, statement: str, parameters: Any, execution: Any, many: bool
    ) -> None:
        """A statement is about to be sent."""
        if execution is None or not is_instrumentation_enabled():
            return
        target = self._target(conn.engine)
        name, attributes = target.known.get(statement) or target.learn(statement)
        if many and not _is_one_insert(execution):
            attributes = {**attributes, DB_OPERATION_BATCH_SIZE: len(parameters)}
        span = light_spans.start_span(self._tracer, name, SpanKind.CLIENT, attributes)
        setattr(execution, _SPAN, span)

    @guarded(default=None)
    def finished(
        self, _conn: Any, _cursor: Any, _text: str, _values: Any, execution: Any, _: bool
    ) -> None:
        """A statement was answered."""
        span = _take(execution)
        if span is not None:
            span.end()

    @guarded(default=None)
    def failed(self, error: Any) -> None:
        """A statement failed, or was cancelled."""
        span = _take(error.execution_context)
        if span is None:
            return
        original = error.original_exception
        span.set_attribute(ERROR_TYPE, type(original).__qualname__)
        code = getattr(original, "sqlstate", None) or getattr(original, "pgcode", None)
        if code is not None:
            span.set_attribute(DB_RESPONSE_STATUS_CODE, str(code))
        span.set_status(Status(StatusCode.ERROR))
        span.end()

    def _target(self, engine: Any) -> Target:
        target = self._targets.get(engine)
        if target is None:
            target = self._targets[engine] = _describe(engine.dialect.name, engine.url)
        return target


def _is_one_insert(execution: Any) -> bool:
    """Whether many rows go in one INSERT (SQLAlchemy's insertmanyvalues), which is no batch."""
    style = getattr(execution, "execute_style", None)
    return getattr(style, "name", None) == "INSERTMANYVALUES"


def _take(execution: Any) -> Span | None:
    """The span of a statement, which from now on nobody else ends."""
    span: Span | None = getattr(execution, _SPAN, None)
    if span is not None:
        setattr(execution, _SPAN, None)
    return span


def _describe(dialect: str, url: Any) -> Target:
    # SQLite's database is a file: its name says enough, its folder is the host's own business.
    namespace = PurePath(url.database or "").name if dialect == "sqlite" else url.database
    parts = {
        DB_SYSTEM_NAME: _SYSTEMS.get(dialect, dialect),
        DB_NAMESPACE: namespace or None,
        SERVER_ADDRESS: url.host,
        SERVER_PORT: url.port,
    }
    return Target(
        namespace or "", {key: value for key, value in parts.items() if value is not None}
    )


def _operation(statement: str) -> str:
    """The first word, as the conventions allow where a statement is not parsed."""
    words = statement.lstrip()[:40].split(None, 1)
    return words[0].upper() if words else "EXECUTE"
