"""otel_shim.capture.sqlalchemy: one span for each statement, none for anything else, none left open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from opentelemetry import trace
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode
from sqlalchemy import event, exc
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import otel_shim
from otel_shim import counters
from otel_shim.capture import sqlalchemy as capture
from tests.unit.telemetry import Telemetry

Listen = Callable[[], None]


class Base(DeclarativeBase):
    """Mapped classes of the tests."""


class Note(Base):
    """A row."""

    __tablename__ = "note"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(unique=True)


@pytest.fixture
def listen(telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch) -> Iterator[Listen]:
    """Puts the listeners on every engine, and takes them off afterwards."""
    made: list[tuple[str, Any]] = []
    real = event.listen

    def note(target: Any, name: str, function: Any, **options: Any) -> None:
        made.append((name, function))
        real(target, name, function, **options)

    def start() -> None:
        monkeypatch.setattr(event, "listen", note)
        capture._listen(None)
        monkeypatch.setattr(event, "listen", real)

    yield start
    for name, function in made:
        event.remove(sa.Engine, name, function)
    # Every statement's span ended, whatever happened to it, and no fault of ours was hidden.
    assert telemetry.started() == len(telemetry.spans())
    assert counters.snapshot() == {}


@pytest.fixture
def engine() -> Iterator[sa.Engine]:
    """An engine made before the listeners."""
    made = sa.create_engine("sqlite://", poolclass=sa.StaticPool)
    Base.metadata.create_all(made)
    yield made
    made.dispose()


@pytest.fixture
async def async_engine() -> AsyncIterator[AsyncEngine]:
    """An async engine made before the listeners."""
    made = create_async_engine("sqlite+aiosqlite://", poolclass=sa.StaticPool)
    async with made.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield made
    await made.dispose()


def _names(telemetry: Telemetry) -> list[str]:
    return [span.name for span in telemetry.spans()]


def _only(telemetry: Telemetry) -> ReadableSpan:
    (span,) = telemetry.spans()
    return span


def test_statement_is_one_client_span(
    listen: Listen, engine: sa.Engine, telemetry: Telemetry
) -> None:
    """Name, kind and attributes follow the stable conventions; parameters stay in the process."""
    listen()
    with engine.connect() as connection:
        connection.execute(sa.text("SELECT id FROM note WHERE text = :t"), {"t": "personal"})
        connection.rollback()
    span = _only(telemetry)
    assert (span.name, span.kind, span.status.status_code) == (
        "SELECT",
        SpanKind.CLIENT,
        StatusCode.UNSET,
    )
    assert dict(span.attributes or {}) == {
        "db.system.name": "sqlite",
        "db.operation.name": "SELECT",
        "db.query.text": "SELECT id FROM note WHERE text = ?",
    }
    assert "personal" not in span.to_json()


def test_target_is_described_without_credentials(
    listen: Listen, tmp_path: Any, telemetry: Telemetry
) -> None:
    """A file's name without its folder; a server's address without user and password."""
    listen()
    engine = sa.create_engine(f"sqlite:///{tmp_path}/notes.db")
    with engine.connect() as connection:
        connection.execute(sa.text("SELECT 1"))
    engine.dispose()
    assert _only(telemetry).name == "SELECT notes.db"
    assert str(tmp_path) not in _only(telemetry).to_json()
    url = sa.make_url("postgresql+asyncpg://ada:secret@db.internal:5433/notes")
    assert capture._describe("postgresql", url) == capture.Target(
        "notes",
        {
            "db.system.name": "postgresql",
            "db.namespace": "notes",
            "server.address": "db.internal",
            "server.port": 5433,
        },
    )


@pytest.mark.parametrize("when", ["before", "after"])
def test_engines_made_before_and_after(listen: Listen, when: str, telemetry: Telemetry) -> None:
    """Every engine counts, whenever it was made."""
    if when == "after":
        listen()
    engine = sa.create_engine("sqlite://")
    if when == "before":
        listen()
    with engine.connect() as connection:
        connection.execute(sa.text("SELECT 1"))
    engine.dispose()
    assert _names(telemetry) == ["SELECT"]


@pytest.mark.parametrize("when", ["before", "after"])
async def test_async_engines_made_before_and_after(
    listen: Listen, when: str, telemetry: Telemetry
) -> None:
    """An async engine gives one span for each statement too, never two."""
    if when == "after":
        listen()
    engine = create_async_engine("sqlite+aiosqlite://")
    if when == "before":
        listen()
    async with engine.connect() as connection:
        await connection.execute(sa.text("SELECT 1"))
        await connection.execute(sa.text("SELECT 2"))
    await engine.dispose()
    assert _names(telemetry) == ["SELECT", "SELECT"]


def test_unit_of_work(listen: Listen, engine: sa.Engine, telemetry: Telemetry) -> None:
    """A session's statements are spans under the current one; BEGIN and COMMIT are none."""
    listen()
    with telemetry.tracer().start_as_current_span("GET", kind=SpanKind.SERVER) as root:
        otel_shim.bind(org_id="acme")
        with Session(engine) as session:
            session.add(Note(id=1, text="a"))
            session.commit()
            assert session.get(Note, 1) is not None
    spans = telemetry.spans()[:-1]
    assert [s.name for s in spans] == ["INSERT", "SELECT"]
    assert [s.parent and s.parent.span_id for s in spans] == [root.get_span_context().span_id] * 2
    assert all((s.attributes or {})["saas.org.id"] == "acme" for s in spans)


def test_executemany_is_one_span(listen: Listen, engine: sa.Engine, telemetry: Telemetry) -> None:
    """A batch says how many it is, and none of what it holds."""
    listen()
    rows = [{"id": n, "text": f"personal-{n}"} for n in range(5)]
    with engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO note VALUES (:id, :text)"), rows)
    span = _only(telemetry)
    assert (span.name, (span.attributes or {})["db.operation.batch.size"]) == ("INSERT", 5)
    assert "personal" not in span.to_json()


def test_insert_with_returning_is_counted_in_rows(
    listen: Listen, engine: sa.Engine, telemetry: Telemetry
) -> None:
    """SQLAlchemy packs many rows into one statement: never the number of its parameters."""
    listen()
    with engine.begin() as connection:
        made = connection.execute(
            sa.insert(Note).returning(Note.id), [{"text": f"personal-{n}"} for n in range(5)]
        )
        assert len(made.all()) == 5
    span = _only(telemetry)
    assert span.name == "INSERT"
    assert (span.attributes or {}).get("db.operation.batch.size") in (None, 5)
    assert "personal" not in span.to_json()


def _integrity(connection: sa.Connection) -> None:
    connection.execute(sa.insert(Note).values(id=1, text="personal"))
    connection.execute(sa.insert(Note).values(id=1, text="personal"))


def test_failed_statement(listen: Listen, engine: sa.Engine, telemetry: Telemetry) -> None:
    """The error passes; the span has its type only, for its message may hold data."""
    listen()
    with pytest.raises(exc.IntegrityError, match="note"), engine.begin() as connection:
        _integrity(connection)
    failed = telemetry.spans()[-1]
    assert failed.status.status_code is StatusCode.ERROR and failed.status.description is None
    assert (failed.attributes or {})["error.type"] == "IntegrityError"
    assert failed.events == ()
    assert "personal" not in failed.to_json() and "UNIQUE" not in failed.to_json()


@pytest.mark.parametrize("statement", ["SELEKT", "SELECT * FROM missing", "", "   "])
def test_bad_statements(
    statement: str, listen: Listen, engine: sa.Engine, telemetry: Telemetry
) -> None:
    """Whatever is sent has a span that ends."""
    listen()
    with engine.connect() as connection:
        try:
            connection.exec_driver_sql(statement)
        except exc.DBAPIError:
            assert _only(telemetry).status.status_code is StatusCode.ERROR
    assert len(telemetry.spans()) == 1


def test_listener_of_the_application_that_refuses(
    listen: Listen, engine: sa.Engine, telemetry: Telemetry
) -> None:
    """A guard of the application that raises before the statement is sent leaves no span open."""
    listen()

    def refuse(*_: Any) -> None:
        raise PermissionError("read only")

    event.listen(engine, "before_cursor_execute", refuse)
    with pytest.raises(PermissionError), engine.connect() as connection:
        connection.execute(sa.text("DELETE FROM note"))
    assert _only(telemetry).status.status_code is StatusCode.ERROR


def test_error_handler_of_the_application(
    listen: Listen, engine: sa.Engine, telemetry: Telemetry
) -> None:
    """An application that turns errors into its own gets them as without us."""
    listen()

    def translate(context: Any) -> None:
        raise LookupError("own") from context.original_exception

    event.listen(engine, "handle_error", translate)
    with pytest.raises(LookupError, match="own"), engine.connect() as connection:
        connection.execute(sa.text("SELECT * FROM missing"))
    assert (_only(telemetry).attributes or {})["error.type"] == "OperationalError"


def test_nested_statement(listen: Listen, engine: sa.Engine, telemetry: Telemetry) -> None:
    """A statement sent from a listener of another has a span of its own."""
    listen()
    asked = False

    def before(connection: Any, *_: Any) -> None:
        nonlocal asked
        if not asked:
            asked = True
            connection.execute(sa.text("SELECT 2"))

    event.listen(engine, "before_cursor_execute", before)
    with engine.connect() as connection:
        connection.execute(sa.text("SELECT 1"))
    assert _names(telemetry) == ["SELECT", "SELECT"]


def test_streamed_result(listen: Listen, engine: sa.Engine, telemetry: Telemetry) -> None:
    """The span covers the statement, not how long its rows are read."""
    listen()
    with engine.connect() as connection:
        result = connection.execution_options(stream_results=True).execute(
            sa.text("SELECT 1 UNION SELECT 2")
        )
        assert len(telemetry.spans()) == 1
        assert len(result.all()) == 2


def test_long_statement_is_cut(listen: Listen, engine: sa.Engine, telemetry: Telemetry) -> None:
    """The text has a bound."""
    listen()
    with engine.connect() as connection:
        connection.exec_driver_sql("SELECT " + ", ".join(["1"] * 1500 + ["2"] * 400))
    assert len(str((_only(telemetry).attributes or {})["db.query.text"])) == 4096


def test_suppressed(listen: Listen, engine: sa.Engine, telemetry: Telemetry) -> None:
    """Where instrumentation is suppressed nothing is traced."""
    listen()
    with suppress_instrumentation(), engine.connect() as connection:
        connection.execute(sa.text("SELECT 1"))
    assert telemetry.started() == 0


async def test_async_unit_of_work(
    listen: Listen, async_engine: AsyncEngine, telemetry: Telemetry
) -> None:
    """An async session gives one span for each statement, with the identity of the request."""
    listen()
    with telemetry.tracer().start_as_current_span("GET", kind=SpanKind.SERVER):
        otel_shim.bind(org_id="acme")
        async with AsyncSession(async_engine) as session:
            session.add_all([Note(id=1, text="a"), Note(id=2, text="b")])
            await session.commit()
            assert (await session.get(Note, 1)) is not None
    spans = telemetry.spans()[:-1]
    assert [s.name for s in spans] == ["INSERT", "SELECT"]
    assert all((s.attributes or {})["saas.org.id"] == "acme" for s in spans)


async def test_async_error(listen: Listen, async_engine: AsyncEngine, telemetry: Telemetry) -> None:
    """An error of an async driver is the same."""
    listen()
    async with async_engine.connect() as connection:
        with pytest.raises(exc.OperationalError):
            await connection.execute(sa.text("SELECT * FROM missing"))
    assert (_only(telemetry).attributes or {})["error.type"] == "OperationalError"


async def test_cancelled_statement(
    listen: Listen, async_engine: AsyncEngine, telemetry: Telemetry
) -> None:
    """A statement whose task is cancelled has a span that ends, marked so; cancellation passes."""
    listen()
    blocked = asyncio.Event()
    release = asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow() -> int:
        loop.call_soon_threadsafe(blocked.set)
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result()
        return 1

    async with async_engine.connect() as connection:
        raw = await connection.get_raw_connection()
        driver: Any = raw.driver_connection
        await driver.create_function("slow", 0, slow)
        task = asyncio.create_task(connection.execute(sa.text("SELECT slow()")))
        await blocked.wait()
        task.cancel()
        loop.call_soon(release.set)
        with pytest.raises(asyncio.CancelledError):
            await task
        release.set()
    assert (_only(telemetry).attributes or {})["error.type"] == "CancelledError"


async def test_many_at_once(
    listen: Listen, async_engine: AsyncEngine, tmp_path: Any, telemetry: Telemetry
) -> None:
    """Statements of many tasks at once keep to their own task's identity."""
    listen()
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/db", pool_size=10)

    async def one(n: int) -> None:
        with telemetry.tracer().start_as_current_span("GET", kind=SpanKind.SERVER):
            otel_shim.bind(org_id=f"org-{n}")
            async with engine.connect() as connection:
                await connection.execute(sa.text(f"SELECT {n}"))

    await asyncio.gather(*map(one, range(50)))
    await engine.dispose()
    queries = [s.attributes or {} for s in telemetry.spans() if s.kind is SpanKind.CLIENT]
    assert {(a["db.query.text"], a["saas.org.id"]) for a in queries} == {
        (f"SELECT {n}", f"org-{n}") for n in range(50)
    }


def test_engines_can_be_collected(listen: Listen, telemetry: Telemetry) -> None:
    """What is remembered about an engine goes with it: engines made for each tenant are no leak."""
    statements = capture.Statements(trace.get_tracer("x"))
    for n in range(20):
        engine = sa.create_engine("sqlite://", query_cache_size=n + 1)
        statements._target(engine)
        engine.dispose()
    del engine
    import gc

    gc.collect()
    assert len(statements._targets) == 0


def test_connection_errors_pass(listen: Listen, telemetry: Telemetry) -> None:
    """An error without a statement is none of ours."""
    listen()
    engine = sa.create_engine("sqlite:////missing/folder/db")
    with pytest.raises(exc.OperationalError), engine.connect():
        pass
    assert telemetry.started() == 0
