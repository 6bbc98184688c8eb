"""A WebSocket client, as much of RFC 6455 as the tests need."""

from __future__ import annotations

import base64
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

_TEXT, _CLOSE, _PING, _PONG = 0x1, 0x8, 0x9, 0xA


class Connection:
    """An open connection; ``headers`` are those of the answer to the handshake, in lower case."""

    def __init__(self, connected: socket.socket, target: str) -> None:
        self._socket = connected
        self._stream = connected.makefile("rb")
        key = base64.b64encode(os.urandom(16)).decode()
        lines = (
            f"GET {target} HTTP/1.1",
            "Host: 127.0.0.1",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}",
            "Sec-WebSocket-Version: 13",
        )
        connected.sendall("\r\n".join((*lines, "", "")).encode())
        self.status = int(self._stream.readline().split()[1])
        self.headers: dict[str, str] = {}
        while line := self._stream.readline().strip():
            name, _, value = line.decode().partition(":")
            self.headers[name.lower()] = value.strip()

    def send(self, text: str) -> None:
        """Send a short text."""
        self._frame(_TEXT, text.encode())

    def close(self) -> None:
        """Say good-bye."""
        self._frame(_CLOSE, (1000).to_bytes(2, "big"))

    def receive(self) -> str:
        """The next short text; a server that asks meanwhile whether we are there is answered."""
        while True:
            first, length = self._stream.read(2)
            assert length < 126
            body = self._stream.read(length)
            if first & 0x0F != _PING:
                assert first & 0x0F == _TEXT
                return body.decode()
            self._frame(_PONG, body)

    def _frame(self, kind: int, body: bytes) -> None:
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(body))
        self._socket.sendall(bytes((0x80 | kind, 0x80 | len(body))) + mask + masked)


@contextmanager
def connect(url: str, target: str) -> Iterator[Connection]:
    """Open a connection; at the end of the block it is closed in good order."""
    place = urlsplit(url)
    with socket.create_connection((place.hostname or "", place.port or 0), timeout=60) as connected:
        connection = Connection(connected, target)
        yield connection
        connection.close()
