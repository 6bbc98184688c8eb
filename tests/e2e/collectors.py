"""Collectors as they should not be: dead, silent, talking nonsense. And one that is well, to compare."""

from __future__ import annotations

import gzip
import socket
import socketserver
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field

from examples.saas.demo.parts import url
from examples.saas.demo.ports import free_ports

JUNK = b"<html>\x00\xff this is no OTLP </html>"


@dataclass
class Fake:
    """A listener; what reached it is kept. Bodies are as sent, decompressed."""

    url: str
    connections: int = 0
    paths: list[str] = field(default_factory=list)
    bodies: list[tuple[str, bytes]] = field(default_factory=list)


Behaviour = Callable[[socket.socket, Fake, threading.Event], None]


def _request(connection: socket.socket, fake: Fake) -> bool:
    """Read one HTTP request; False where the peer is gone."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return False
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in lines[1:])}
    while len(body) < int(headers.get("content-length", "0")):
        body += connection.recv(65536)
    path = lines[0].split(" ")[1]
    fake.paths.append(path)
    packed = headers.get("content-encoding") == "gzip"
    fake.bodies.append((path, gzip.decompress(body) if packed else body))
    return True


def answering(status: str, body: bytes, after: float = 0.0) -> Behaviour:
    """Answers every request so, after so many seconds."""
    answer = b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n" % (status.encode(), len(body)) + body

    def behave(connection: socket.socket, fake: Fake, over: threading.Event) -> None:
        while _request(connection, fake):
            over.wait(after)
            connection.sendall(answer)

    return behave


def only_spans(connection: socket.socket, fake: Fake, over: threading.Event) -> None:
    """Takes spans, as a tracing backend does, and knows no other signal."""
    while _request(connection, fake):
        known = fake.paths[-1] == "/v1/traces"
        status = b"200 OK" if known else b"404 Not Found"
        connection.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")


def silent(connection: socket.socket, fake: Fake, over: threading.Event) -> None:
    """Accepts, and never says a word."""
    over.wait()


def resetting(connection: socket.socket, fake: Fake, over: threading.Event) -> None:
    """Reads a request and breaks the connection."""
    _request(connection, fake)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@contextmanager
def listening(behave: Behaviour, port: int = 0) -> Iterator[Fake]:
    """A listener that treats each connection so, until the end of the block."""
    over = threading.Event()
    fake = Fake("")
    connected: list[socket.socket] = []

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            fake.connections += 1
            connected.append(self.request)
            try:
                behave(self.request, fake, over)
            except OSError:  # the application went away
                return

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True
        request_queue_size = 128

    with Server(("127.0.0.1", port), Handler) as server:
        fake.url = url(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield fake
        finally:
            over.set()
            server.shutdown()
            thread.join()
            for connection in connected:
                with suppress(OSError):  # closed already
                    connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def dead() -> Iterator[Fake]:
    """Nobody listens."""
    (port,) = free_ports(1)
    yield Fake(url(port))


def healthy() -> AbstractContextManager[Fake]:
    """Takes everything, as OTLP says: an empty message is full success."""
    return listening(answering("200 OK", b""))


BROKEN: dict[str, Callable[[], AbstractContextManager[Fake]]] = {
    "dead": dead,
    "silent": lambda: listening(silent),
    "error-and-junk": lambda: listening(answering("500 Oh No", JUNK)),
    "resetting": lambda: listening(resetting),
    "nonsense": lambda: listening(lambda c, *_: c.sendall(JUNK)),
}
