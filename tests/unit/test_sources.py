"""otel_shim.sources: reading who somebody is runs none of the application's code."""

from __future__ import annotations

import collections
import dataclasses
import enum
import functools
import types
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, NamedTuple

import pydantic
import pytest
from sqlalchemy import ForeignKey, String, create_engine, event, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    MappedAsDataclass,
    Session,
    deferred,
    mapped_column,
    relationship,
)

from otel_shim import sources

UUID = uuid.UUID("0199F0A2-6A3C-7BD2-9F0E-3F1F5A3C9A10")


class Trap(AssertionError):
    """Raised by code of an application that must not run."""


# --- the grammar ---------------------------------------------------------------------------------


def test_sources_keep_their_order_and_rank() -> None:
    """The order of a list is the order of preference; blanks and empty parts do not matter."""
    found, errors = sources.parse(
        "org_id", " dependency:user.org_id ,, state:org,user:a.b.c,path:org_id,", "V"
    )
    assert errors == []
    assert [(str(s), s.rank, s.field) for s in found] == [
        ("dependency:user.org_id", 0, "org_id"),
        ("state:org", 1, "org_id"),
        ("user:a.b.c", 2, "org_id"),
        ("path:org_id", 3, "org_id"),
    ]


@pytest.mark.parametrize(
    "text",
    ["org_id", "header:x", "state", "state:", ":x", "state:a..b", "state:a.", "state:.a", "state:a-b", "state:1a",
     "state: a", "Dependency:a", "state:a()", "state:__import__('os')", "state:a\n", "state:a b", "state:é", "x" * 500],
)  # fmt: skip
def test_what_is_no_expression_is_one_error(text: str) -> None:
    """An error names variable, text and fix, in few words however long the text."""
    found, errors = sources.parse("org_id", text.replace("\n", "\nx"), "OTEL_SHIM_ORG_ID")
    assert found == ()
    (error,) = errors
    message = str(error)
    assert message.startswith("OTEL_SHIM_ORG_ID: ") and len(message) < 400
    assert "<kind>:<name>" in message and "for example dependency:current_user.org_id" in message


def test_defaults_can_all_be_parsed() -> None:
    """The shipped lists are themselves in the grammar."""
    for field, text in sources.DEFAULTS.items():
        found, errors = sources.parse(field, text, "V")
        assert found and not errors


# --- shapes that hold their values -----------------------------------------------------------------


class Slotted:
    """An object without ``__dict__``."""

    __slots__ = ("org_id", "unset")

    def __init__(self) -> None:
        self.org_id = "acme"


class Pair(NamedTuple):
    """A named tuple."""

    org_id: str


@dataclasses.dataclass(frozen=True)
class Data:
    """A dataclass."""

    org_id: str


@dataclasses.dataclass(frozen=True, slots=True)
class SlottedData:
    """A dataclass without ``__dict__``."""

    org_id: str


class Model(pydantic.BaseModel):
    """A pydantic model with a computed field, which is code."""

    org_id: str

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def plan(self) -> str:
        raise Trap


class Constant:
    """The value stands on the class."""

    org_id = "acme"


class Cached:
    """A value that was computed is loaded; one that was not is left alone."""

    @functools.cached_property
    def org_id(self) -> str:
        return "acme"


def _cached() -> Cached:
    value = Cached()
    assert value.org_id == "acme"
    return value


@pytest.mark.parametrize(
    "value",
    [
        pytest.param({"org_id": "acme"}, id="dict"),
        pytest.param(collections.OrderedDict(org_id="acme"), id="ordered dict"),
        pytest.param(types.SimpleNamespace(org_id="acme"), id="namespace"),
        pytest.param(Slotted(), id="slots"),
        pytest.param(Pair("acme"), id="named tuple"),
        pytest.param(Data("acme"), id="dataclass"),
        pytest.param(SlottedData("acme"), id="dataclass with slots"),
        pytest.param(Model(org_id="acme"), id="pydantic"),
        pytest.param(Constant(), id="class attribute"),
        pytest.param(_cached(), id="cached property, computed"),
    ],
)
def test_loaded_values_are_read(value: Any) -> None:
    """Whatever shape a user has, what it holds is found, also one level down."""
    assert sources.read(value, ["org_id"]) == "acme"
    assert sources.read({"user": value}, ["user", "org_id"]) == "acme"


# --- shapes that would run code ----------------------------------------------------------------------


class Property:
    """A property that must not run."""

    @property
    def org_id(self) -> str:
        raise Trap


class GetAttr:
    """Answers to every name, by code."""

    def __getattr__(self, name: str) -> Any:
        raise Trap


class GetAttribute:
    """Intercepts every access."""

    def __getattribute__(self, name: str) -> Any:
        raise Trap


class Proxy:
    """Stands for an object it would load, as lazy objects of frameworks do."""

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        raise Trap

    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        raise Trap


class LoadingDict(dict[str, Any]):
    """A dict whose access is code."""

    def get(self, *_: Any) -> Any:
        raise Trap

    def __getitem__(self, name: str) -> Any:
        raise Trap

    def __missing__(self, name: str) -> Any:
        raise Trap

    def __contains__(self, name: object) -> bool:
        raise Trap


class Descriptor:
    """A data descriptor, as ORMs have."""

    def __get__(self, *_: Any) -> Any:
        raise Trap

    def __set__(self, *_: Any) -> None:
        raise Trap


class Described:
    """An attribute behind a descriptor."""

    org_id = Descriptor()


class Overridden(Pair):
    """A named tuple whose field became code."""

    @property
    def org_id(self) -> str:
        raise Trap


class Meta(type):
    """A metaclass that intercepts access to the class, once armed."""

    armed = False

    def __getattribute__(cls, name: str) -> Any:
        if Meta.armed:
            raise Trap
        return super().__getattribute__(name)


class OfMeta(metaclass=Meta):
    """An instance of such a class."""


class Equal:
    """Comparing and hashing it is code."""

    def __eq__(self, other: object) -> bool:
        raise Trap

    def __hash__(self) -> int:
        raise Trap

    def __bool__(self) -> bool:
        raise Trap


@pytest.mark.parametrize(
    "make",
    [Property, GetAttr, GetAttribute, Proxy, LoadingDict, Described, lambda: Overridden("acme"), Cached, Equal,
     lambda: vars(Slotted)["org_id"], lambda: None, int, str, bytes, list, tuple, object, lambda: object,
     lambda: Property, lambda: len, lambda: types],
)  # fmt: skip
def test_nothing_of_the_application_runs(make: Callable[[], Any]) -> None:
    """Properties, traps, descriptors and proxies are passed over: absent, and without an error."""
    value = make()
    assert sources.read(value, ["org_id"]) is None
    assert sources.read(value, ["org_id", "id"]) is None
    assert sources.read({"user": value}, ["user", "org_id"]) is None


def test_metaclass_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Access to the class of a value may be code too."""
    value = OfMeta()
    monkeypatch.setattr(Meta, "armed", True)
    found = sources.read(value, ["org_id"]), sources.canonical(value)
    monkeypatch.setattr(Meta, "armed", False)
    assert found == (None, None)


def test_unset_slot_is_absent() -> None:
    """A slot that was declared and not set has no value."""
    assert sources.read(Slotted(), ["unset"]) is None


def test_dict_subclass_is_read_without_its_own_code() -> None:
    """What a dict holds is found also where the class makes access do more."""
    assert sources.read(LoadingDict(org_id="acme"), ["org_id"]) == "acme"


# --- identifiers -----------------------------------------------------------------------------------


class Colour(enum.Enum):
    """An enumeration."""

    RED = "red"
    ONE = 1
    NONE = None


class Level(enum.IntEnum):
    """Integers with names."""

    HIGH = 3


class Role(str, enum.Enum):
    """Text with names, as FastAPI applications write it."""

    ADMIN = "admin"


class HostileText(str):
    """Text that runs code when it is asked."""

    def __str__(self) -> str:
        raise Trap

    def __len__(self) -> int:
        raise Trap

    def isprintable(self) -> bool:
        raise Trap


class HostileInt(int):
    """An integer that runs code when it is asked."""

    def __str__(self) -> str:
        raise Trap

    def __repr__(self) -> str:
        raise Trap


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("acme", "acme"),
        ("Ünïcode 組織", "Ünïcode 組織"),
        ("x" * 256, "x" * 256),
        (42, "42"),
        (0, "0"),
        (-7, "-7"),
        (2**63, str(2**63)),
        (UUID, "0199f0a2-6a3c-7bd2-9f0e-3f1f5a3c9a10"),
        (Colour.RED, "red"),
        (Colour.ONE, "1"),
        (Level.HIGH, "3"),
        (Role.ADMIN, "admin"),
    ],
)
def test_identifiers_have_one_text(value: Any, text: str) -> None:
    """Text, integers, UUIDs and enumerations of these are the same text in every language."""
    found = sources.canonical(value)
    assert found == text
    assert type(found) is str


@pytest.mark.parametrize(
    "value",
    [None, True, False, 1.5, b"acme", "", "x" * 257, "x" * 10_000_000, "a\nb", "a\x00", "\x1b[31m", "\u202e", "\ud800",
     10**300, 10**6000, [], {}, object(), Colour.NONE, float("nan"), str, Colour],
    ids=lambda value: str(type(value)),
)  # fmt: skip
def test_what_is_no_identifier_is_refused(value: Any) -> None:
    """Other types, empty, longer than 256 characters, unprintable: none is an identifier, none raises."""
    assert sources.canonical(value) is None


def test_subclasses_cannot_run_code() -> None:
    """The text of a subclass is taken as its base has it."""
    assert (sources.canonical(HostileText("acme")) == "acme") is True
    assert sources.canonical(HostileInt(5)) == "5"


def test_traps_are_no_identifiers() -> None:
    """Objects that lie about their class are seen for what they are."""
    assert [sources.canonical(make()) for make in (Proxy, GetAttr, GetAttribute, Equal)] == [
        None
    ] * 4


# --- SQLAlchemy --------------------------------------------------------------------------------------


class Base(DeclarativeBase):
    """Mapped classes of the tests."""


class Org(Base):
    """An organisation."""

    __tablename__ = "org"
    id: Mapped[int] = mapped_column(primary_key=True)
    plan: Mapped[str]


class User(Base):
    """A user with everything that can be lazy."""

    __tablename__ = "user"
    id: Mapped[int] = mapped_column(primary_key=True)
    org_id: Mapped[int] = mapped_column(ForeignKey("org.id"))
    role: Mapped[str] = deferred(mapped_column(String))
    org: Mapped[Org] = relationship()

    @hybrid_property
    def plan(self) -> str:
        """A computed value."""
        raise Trap


class DataBase(MappedAsDataclass, DeclarativeBase):
    """Mapped dataclasses."""


class DataUser(DataBase):
    """A user that is a dataclass too."""

    __tablename__ = "data_user"
    id: Mapped[int] = mapped_column(primary_key=True)
    org_id: Mapped[int] = mapped_column(default=7)


PATHS = (
    ["id"],
    ["org_id"],
    ["role"],
    ["plan"],
    ["org", "id"],
    ["org", "plan"],
    ["missing"],
    ["metadata"],
)


def _read_all(user: object) -> list[Any]:
    return [sources.read(user, path) for path in PATHS]


@contextmanager
def _no_query(engine: Any) -> Iterator[None]:
    """Fails where a statement is sent inside."""
    sent: list[str] = []

    def note(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        sent.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    yield
    event.remove(engine, "before_cursor_execute", note)
    assert sent == []


@pytest.fixture
def session() -> Iterator[Session]:
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(User(id=1, role="admin", org=Org(id=10, plan="pro")))
        session.commit()
        session.expunge_all()
        yield session
    engine.dispose()


def _user(session: Session) -> User:
    return session.scalars(select(User)).one()


def test_mapped_object_gives_what_is_loaded(session: Session) -> None:
    """Loaded columns are read; deferred columns and relationships stay as they are."""
    user = _user(session)
    with _no_query(session.bind):
        assert _read_all(user) == [1, 10, None, None, None, None, None, None]


def test_loaded_relationship_is_followed(session: Session) -> None:
    """What the application loaded itself is there."""
    user = _user(session)
    assert user.org.plan == "pro" and user.role == "admin"
    with _no_query(session.bind):
        assert _read_all(user) == [1, 10, "admin", None, 10, "pro", None, None]


def test_expired_object_is_not_refreshed(session: Session) -> None:
    """After a commit every attribute is expired: absent, and no query."""
    user = _user(session)
    session.commit()
    with _no_query(session.bind):
        assert _read_all(user) == [None] * len(PATHS)
    assert user.id == 1


def test_detached_object_does_not_raise(session: Session) -> None:
    """An expired object whose session is gone would raise DetachedInstanceError: here it is absent."""
    user = _user(session)
    session.commit()
    session.expunge(user)
    assert _read_all(user) == [None] * len(PATHS)


def test_deleted_and_transient_objects(session: Session) -> None:
    """Objects that are not in the database are read as far as they go."""
    user = _user(session)
    session.delete(user)
    session.flush()
    with _no_query(session.bind):
        assert sources.read(user, ["id"]) == 1
        assert sources.read(User(id=5), ["id"]) == 5
        assert sources.read(User(), ["id"]) is None
        assert sources.read(User, ["id"]) is None
        assert sources.read(DataUser(id=3, org_id=7), ["org_id"]) == 7


@asynccontextmanager
async def _async_engine() -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine("sqlite+aiosqlite://")
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield engine
    await engine.dispose()


async def test_async_object_is_not_refreshed() -> None:
    """An expired object of an async session would raise MissingGreenlet: here it is absent, and no query."""
    async with _async_engine() as engine, AsyncSession(engine) as session:
        session.add(User(id=1, role="admin", org=Org(id=10, plan="pro")))
        await session.commit()
        user = (await session.scalars(select(User).execution_options(populate_existing=True))).one()
        with _no_query(engine.sync_engine):
            assert sources.read(user, ["org_id"]) == 10
        await session.commit()
        with _no_query(engine.sync_engine):
            assert _read_all(user) == [None] * len(PATHS)
