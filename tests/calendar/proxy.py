"""A proxy before a real server that makes it misbehave: slow, limiting its rate, cutting its lists, breaking its answers."""

from __future__ import annotations

import http.client
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any
from urllib.parse import urlsplit

_HOP = ("connection", "transfer-encoding", "content-length", "content-encoding")
_RESPONSE = re.compile(rb"<(?:\w+:)?response>.*?</(?:\w+:)?response>", re.DOTALL)


@dataclass
class Proxy:
    """What the proxy is to do with the next answers."""

    url: str = ""
    limits: int = 0
    """So many REPORTs are answered 429, to be tried again after a second."""
    silent: Event | None = None
    """Nothing is answered until this is set."""
    truncates: bool = False
    """Lists of a synchronisation are cut to one member (RFC 6578, section 3.6)."""
    body: bytes | None = None
    """What REPORTs are answered with instead."""
    page: bytes | None = None
    """What requests of ``paged`` are answered with instead, as a login page is: 200, HTML."""
    paged: tuple[str, ...] = ("REPORT",)
    statuses: list[int] = field(default_factory=list)
    """Statuses with which the next REPORTs are answered."""

    def spoilt(self, handler: BaseHTTPRequestHandler) -> bool:
        """Answer in the place of the server; whether that was done."""
        if self.silent is not None:
            self.silent.wait(30)
            return True
        if self.page is not None and handler.command in self.paged:
            answer(handler, 200, self.page, {"Content-Type": "text/html; charset=utf-8"})
            return True
        if handler.command != "REPORT":
            return False
        if self.limits:
            self.limits -= 1
            answer(handler, 429, b"", {"Retry-After": "1"})
            return True
        if self.statuses:
            answer(handler, self.statuses.pop(0), b"no", {"Content-Type": "text/plain"})
            return True
        if self.body is not None:
            answer(handler, 207, self.body, {"Content-Type": "text/xml"})
            return True
        return False

    def cut(self, handler: BaseHTTPRequestHandler, sent: bytes, body: bytes) -> bytes:
        """Cut the list of a synchronisation."""
        if not (self.truncates and b"sync-collection" in sent):
            return body
        first = _RESPONSE.search(body)
        more = (
            b'<response xmlns="DAV:"><href>'
            + handler.path.encode()
            + b"</href><status>HTTP/1.1 507 Insufficient Storage</status></response>"
        )
        tail = body[body.rindex(b"</") :]
        token = re.search(rb"<(?:\w+:)?sync-token>.*?</(?:\w+:)?sync-token>", body, re.DOTALL)
        assert token is not None
        start = token.start() if first is None else min(first.start(), token.start())
        member = first.group() if first is not None else b""
        return body[:start] + token.group() + member + more + tail


def answer(
    handler: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str]
) -> None:
    """Send an answer."""
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


@contextmanager
def before(server: str) -> Iterator[Proxy]:
    """A proxy before a server."""
    made = Proxy()
    host = urlsplit(server).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_method(self) -> None:
            sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if made.spoilt(self):
                return
            onward = http.client.HTTPConnection(host, timeout=30)
            headers = {k: v for k, v in self.headers.items() if k.lower() != "accept-encoding"}
            onward.request(self.command, self.path, sent, headers)
            response = onward.getresponse()
            body = response.read()
            if response.status == 207:
                body = made.cut(self, sent, body)
            kept = {k: v for k, v in response.getheaders() if k.lower() not in _HOP}
            answer(self, response.status, body, kept)
            onward.close()

        do_GET = do_PUT = do_DELETE = handle_method  # noqa: N815 - the names of the standard library
        do_PROPFIND = do_REPORT = do_MKCALENDAR = do_PROPPATCH = handle_method  # noqa: N815

        def log_message(self, *_: Any) -> None:
            """Keep the output of the tests clean."""

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.daemon_threads = True
    thread = Thread(target=listening.serve_forever, args=(0.05,))
    thread.start()
    made.url = f"http://127.0.0.1:{listening.server_address[1]}/"
    try:
        yield made
    finally:
        if made.silent is not None:
            made.silent.set()
        listening.shutdown()
        listening.server_close()
        thread.join()
