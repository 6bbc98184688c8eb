"""The tables."""

from datetime import date, datetime, timezone
from typing import Any, ClassVar

from sqlalchemy import JSON, DateTime, ForeignKey, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


def _now() -> datetime:
    return datetime.now(timezone.utc)


class Base(DeclarativeBase):
    """Root of the tables."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSON,
    }


class Organisation(Base):
    """A customer account."""

    __tablename__ = "organisation"
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    plan: Mapped[str]
    # A court or an authority wants its records: nothing of it is deleted until that is over.
    legal_hold: Mapped[bool] = mapped_column(default=False)


class User(Base):
    """A person who signs in; belongs to one organisation."""

    __tablename__ = "user"
    id: Mapped[str] = mapped_column(primary_key=True)
    org_id: Mapped[str] = mapped_column(ForeignKey("organisation.id"), index=True)
    email: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    role: Mapped[str]
    password_hash: Mapped[str]
    hourly_cents: Mapped[int | None]
    active: Mapped[bool] = mapped_column(default=True)
    # Lazy on purpose: few endpoints need it, and reading it costs a query.
    organisation: Mapped[Organisation] = relationship(lazy="select")


class Token(Base):
    """A signed-in session; only the token's digest is stored."""

    __tablename__ = "token"
    digest: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("user.id"))
    created_at: Mapped[datetime] = mapped_column(default=_now)


class ApiKey(Base):
    """A partner's key: acts for an organisation, not for a person."""

    __tablename__ = "api_key"
    digest: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    org_id: Mapped[str] = mapped_column(ForeignKey("organisation.id"))
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class Plan(Base):
    """The shifts of one organisation in one week."""

    __tablename__ = "plan"
    id: Mapped[int] = mapped_column(primary_key=True)
    org_id: Mapped[str] = mapped_column(ForeignKey("organisation.id"), index=True)
    week: Mapped[date]
    status: Mapped[str] = mapped_column(default="draft")
    calendar_ref: Mapped[str | None]


class Shift(Base):
    """One person's working time on one day."""

    __tablename__ = "shift"
    id: Mapped[int] = mapped_column(primary_key=True)
    plan_id: Mapped[int] = mapped_column(ForeignKey("plan.id"), index=True)
    assignee_id: Mapped[str] = mapped_column(ForeignKey("user.id"))
    day: Mapped[date]
    hours: Mapped[float]


class Invoice(Base):
    """What an organisation owes."""

    __tablename__ = "invoice"
    id: Mapped[int] = mapped_column(primary_key=True)
    org_id: Mapped[str] = mapped_column(ForeignKey("organisation.id"), index=True)
    number: Mapped[str]
    amount_cents: Mapped[int]
    status: Mapped[str] = mapped_column(default="open")


class Usage(Base):
    """How much of a metered feature an organisation has used, and how much it may."""

    __tablename__ = "usage"
    org_id: Mapped[str] = mapped_column(ForeignKey("organisation.id"), primary_key=True)
    feature: Mapped[str] = mapped_column(primary_key=True)
    used: Mapped[int] = mapped_column(default=0)
    quota: Mapped[int]


class AuditNote(Base):
    """Who did what."""

    __tablename__ = "audit_note"
    id: Mapped[int] = mapped_column(primary_key=True)
    org_id: Mapped[str]
    user_id: Mapped[str]
    action: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(default=_now)


class ChatMessage(Base):
    """One turn of a person's conversation with the assistant."""

    __tablename__ = "chat_message"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("user.id"), index=True)
    author: Mapped[str]
    text: Mapped[str]


class Chart(Base):
    """A computed natal chart; the key is a digest of what was computed from."""

    __tablename__ = "chart"
    user_id: Mapped[str] = mapped_column(ForeignKey("user.id"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    body: Mapped[dict[str, Any]]


class PrivacyRequest(Base):
    """What a person asked for under the GDPR, and what came of it."""

    __tablename__ = "privacy_request"
    id: Mapped[str] = mapped_column(primary_key=True)
    org_id: Mapped[str]
    user_id: Mapped[str] = mapped_column(ForeignKey("user.id"))
    kind: Mapped[str]
    status: Mapped[str] = mapped_column(default="open")
    audit_record_id: Mapped[str]
    result: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime] = mapped_column(default=_now)


class Payslip(Base):
    """What a person earned in a month."""

    __tablename__ = "payslip"
    __table_args__ = (UniqueConstraint("user_id", "month"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    org_id: Mapped[str] = mapped_column(ForeignKey("organisation.id"), index=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("user.id"))
    month: Mapped[str]
    amount_cents: Mapped[int]
    # What the export to the bank made of it: `written`, `filtered` or `rejected`; none until then.
    export: Mapped[str | None]


class Item(Base):
    """Material in stock; the version rises with every change."""

    __tablename__ = "item"
    __table_args__ = (UniqueConstraint("org_id", "sku"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    org_id: Mapped[str] = mapped_column(ForeignKey("organisation.id"))
    sku: Mapped[str]
    stock: Mapped[int]
    version: Mapped[int] = mapped_column(default=1)
    __mapper_args__ = {"version_id_col": version}  # noqa: RUF012 (SQLAlchemy reads it once)


class Cursor(Base):
    """How far an import from elsewhere has got."""

    __tablename__ = "cursor"
    name: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(default=0)


class Subscription(Base):
    """A calendar outside of the product, and how far the product knows it.

    `kind` is `caldav`, whose `mark` is a sync token, or `ics`, whose `mark` is an ETag. `ready` once the
    calendar is known to be there.
    """

    __tablename__ = "subscription"
    __table_args__ = (UniqueConstraint("org_id", "kind"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    org_id: Mapped[str] = mapped_column(ForeignKey("organisation.id"))
    kind: Mapped[str]
    mark: Mapped[str | None]
    ready: Mapped[bool] = mapped_column(default=False)
    synced_at: Mapped[datetime | None]


class Entry(Base):
    """An entry of a calendar outside of the product, as last read. No names, no places: only times."""

    __tablename__ = "entry"
    __table_args__ = (UniqueConstraint("subscription_id", "href"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    subscription_id: Mapped[int] = mapped_column(ForeignKey("subscription.id"))
    href: Mapped[str]
    starts: Mapped[str]


class QueuedPlan(Base):
    """A published plan that is to be written into the staff's calendars. Times in seconds since 1970."""

    __tablename__ = "calendar_queue"
    id: Mapped[int] = mapped_column(primary_key=True)
    org_id: Mapped[str] = mapped_column(ForeignKey("organisation.id"))
    plan_id: Mapped[int] = mapped_column(ForeignKey("plan.id"))
    queued_at: Mapped[float]
    # Not before this time, after a failure.
    due_at: Mapped[float]
    taken_at: Mapped[float | None]
    attempts: Mapped[int] = mapped_column(default=0)
    # Which request published it, as operators know it.
    origin: Mapped[str | None]
