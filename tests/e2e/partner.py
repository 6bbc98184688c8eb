"""A partner's server that answers as its path says, one word for each time it is asked: `/503-200/a`."""

from __future__ import annotations

import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from examples.saas.demo import parts

from .server import serving

RESET = "reset"
SILENT = "silent"
MOVED = "302"


@dataclass
class Partner:
    """Where it is, and the headers of what it was asked."""

    url: str = ""
    asked: list[dict[str, str]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)


@contextmanager
def partner() -> Iterator[Partner]:
    """Serve until the end of the block."""
    made, times = Partner(), Counter[str]()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            made.asked.append({name.lower(): value for name, value in self.headers.items()})
            words = self.path.split("/")[1].split("-")
            word = words[min(times[self.path], len(words) - 1)]
            times[self.path] += 1
            self.say(word)

        def say(self, word: str) -> None:
            if word == SILENT:
                made.over.wait()
            elif word == RESET:
                self.connection.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
                self.close_connection = True
            else:
                self.answer(int(word))

        def answer(self, status: int) -> None:
            self.send_response(status)
            if status == 429:
                self.send_header("Retry-After", "1")
            if status == int(MOVED):
                self.send_header("Location", f"{made.url}/200/moved")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_: Any) -> None:
            """Keep the output of the tests clean."""

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as port:
        made.url = parts.url(port)
        try:
            yield made
        finally:
            made.over.set()
