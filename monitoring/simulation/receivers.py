"""Where Alertmanager delivers: PagerDuty's Events API v2, a Slack webhook and an SMTP server, on loopback.

They refuse what the real ones would refuse, and keep what they took.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage, Message
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

ROUTING_KEY = "0123456789abcdef0123456789abcdef"
SLACK_PATH = "/services/T0/B0/simulated"
HEARTBEAT_PATH = "/heartbeat"
CHANNELS = ("pagerduty", "slack", "email")
_SEVERITIES = {"critical", "error", "warning", "info"}
_LINE = re.compile(r"^(\w[\w ]*): (.+)$", re.MULTILINE)
_LIMIT = re.compile(r"\(threshold (.*)\)$")
_TITLE = re.compile(r"\[(FIRING|RESOLVED)[^\]]*\] \S+ ([\w.]+):")


@dataclass(frozen=True, slots=True)
class Received:
    """One message as it came; `at` in Unix seconds."""

    channel: str
    at: float
    status: str
    alert_id: str
    fields: Mapping[str, str]
    raw: str


@dataclass(slots=True)
class Inbox:
    """What was taken, what was refused and why, and when heartbeats came (Unix seconds)."""

    messages: list[Received] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    heartbeats: list[float] = field(default_factory=list)

    def of(self, alert_id: str, channel: str, status: str) -> list[Received]:
        """The messages of one kind, the earliest first."""
        return [
            item
            for item in list(self.messages)
            if (item.alert_id, item.channel, item.status) == (alert_id, channel, status)
        ]


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the receivers listen."""

    pagerduty: str
    slack: str
    smtp: str
    heartbeat: str


def pagerduty_message(body: bytes) -> Received:
    """An event of the Events API v2. Raises ValueError as PagerDuty would answer 400."""
    event = json.loads(body)
    if event["routing_key"] != ROUTING_KEY:
        raise ValueError("routing key")
    if event["event_action"] not in ("trigger", "resolve") or not event["dedup_key"]:
        raise ValueError("event action or dedup key")
    payload = event["payload"]
    if not payload["summary"] or not payload["source"] or payload["severity"] not in _SEVERITIES:
        raise ValueError("payload")
    if any(not link.get("href") for link in event.get("links", ())):
        raise ValueError("link without href")
    details = {str(name): str(value) for name, value in payload["custom_details"].items()}
    status = "firing" if event["event_action"] == "trigger" else "resolved"
    links = " ".join(link["href"] for link in event.get("links", ()))
    fields = {**details, **_limit(details), "links": links, "severity": payload["severity"]}
    fields |= {"dedup_key": event["dedup_key"], "trace_url": details.get("trace", "")}
    return Received("pagerduty", time.time(), status, details["alert"], fields, _pretty(event))


def _limit(fields: Mapping[str, str]) -> dict[str, str]:
    """The threshold, which stands behind the value."""
    found = _LIMIT.search(fields.get("value", ""))
    return {"threshold": found[1] if found else ""}


def slack_message(body: bytes) -> Received:
    """A message of an incoming webhook. Raises ValueError when it has no text."""
    post = json.loads(body)
    attachment = post["attachments"][0]
    if not attachment["text"]:
        raise ValueError("no text")
    return _titled("slack", attachment["title"], attachment["text"], _pretty(post))


def email_message(content: bytes) -> Received:
    """A mail; its plain text counts."""
    mail: Message = message_from_bytes(content, policy=default)
    assert isinstance(mail, EmailMessage)
    body = mail.get_body(("plain",))
    if body is None or mail.get_body(("html",)) is None:
        raise ValueError("mail without plain text or HTML")
    text = body.get_content()
    headers = f"From: {mail['From']}\nTo: {mail['To']}\nSubject: {mail['Subject']}\n\n"
    return _titled("email", str(mail["Subject"]), text, headers + text)


def _titled(channel: str, title: str, text: str, raw: str) -> Received:
    match = _TITLE.match(title)
    if match is None:
        raise ValueError(f"title: {title}")
    lines = {name.lower(): value.strip() for name, value in _LINE.findall(text)}
    names = {"request": "request_id", "trace": "trace_id", "open the trace": "trace_url"}
    names["trace found by"] = "trace_source"
    fields = {new: lines.get(old, "") for old, new in names.items()}
    fields |= {**lines, **_limit(lines), "links": text}
    return Received(channel, time.time(), match[1].lower(), match[2], fields, raw)


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


class _Web(BaseHTTPRequestHandler):
    """Both web receivers; the server carries the inbox."""

    def do_POST(self) -> None:
        """Take a message."""
        body = self.rfile.read(int(self.headers["content-length"]))
        inbox: Inbox = self.server.inbox  # type: ignore[attr-defined]
        if self.path == HEARTBEAT_PATH:
            inbox.heartbeats.append(time.time())
            self._answer(200, b"ok")
            return
        take = {"/v2/enqueue": pagerduty_message, SLACK_PATH: slack_message}.get(self.path)
        try:
            if take is None:
                raise ValueError(f"path {self.path}")
            message = take(body)
        except (ValueError, KeyError, IndexError, TypeError) as error:
            inbox.refused.append(f"{self.path}: {error!r}: {body[:500]!r}")
            self._answer(400, b"invalid")
            return
        inbox.messages.append(message)
        self._answer(*_TAKEN[message.channel])

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
        """Say nothing: the report says it."""


_TAKEN = {
    "pagerduty": (202, b'{"status": "success", "message": "Event processed"}'),
    "slack": (200, b"ok"),
}


class _Mail:
    """The SMTP server's handler."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - its name there
        """Take a mail."""
        content = envelope.content
        assert isinstance(content, bytes)
        try:
            self._inbox.messages.append(email_message(content))
        except ValueError as error:
            self._inbox.refused.append(f"smtp: {error!r}")
            return "550 refused"
        return "250 OK"


@contextmanager
def receiving(smtp_port: int) -> Iterator[tuple[Inbox, Addresses]]:
    """Run the receivers."""
    inbox = Inbox()
    web = ThreadingHTTPServer(("127.0.0.1", 0), _Web)
    web.inbox = inbox  # type: ignore[attr-defined]
    serve: Callable[[], None] = web.serve_forever
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    mail = Controller(_Mail(inbox), hostname="127.0.0.1", port=smtp_port)
    mail.start()
    base = f"http://127.0.0.1:{web.server_address[1]}"
    try:
        mail_address = f"127.0.0.1:{smtp_port}"
        heartbeat = base + HEARTBEAT_PATH
        yield inbox, Addresses(base + "/v2/enqueue", base + SLACK_PATH, mail_address, heartbeat)
    finally:
        mail.stop()
        web.shutdown()
        web.server_close()
        thread.join()
