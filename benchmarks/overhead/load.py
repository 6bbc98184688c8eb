"""The load: each connection sends its next request when it has the answer to the last one.

    python load.py <port> <path> <connections> <seconds>

Prints JSON: requests answered, how many of these not with 200, median and 99th percentile of the
time from request to answer in microseconds.
"""

import asyncio
import json
import re
import sys
import time

LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)
END = b"\r\n\r\n"
OK = b"HTTP/1.1 200 "


class Connection(asyncio.Protocol):
    """One connection that is kept alive until the deadline (of ``time.perf_counter``)."""

    def __init__(self, request: bytes, deadline: float) -> None:
        self.latencies: list[float] = []
        self.failed = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = request
        self._deadline = deadline
        self._answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._send()

    def _send(self) -> None:
        self._answer = b""
        self._sent = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._answer += data
        if not complete(self._answer):
            return
        now = time.perf_counter()
        self.latencies.append(now - self._sent)
        self.failed += not self._answer.startswith(OK)
        if now < self._deadline:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self.done.set_result(None)


def complete(answer: bytes) -> bool:
    """Whether an answer has arrived as a whole; each must say its length."""
    head, end, body = answer.partition(END)
    if not end:
        return False
    length = LENGTH.search(head + b"\r\n")
    if length is None:
        raise ValueError(f"an answer without content-length: {head!r}")
    return len(body) >= int(length[1])


async def run(port: int, path: str, connections: int, seconds: float) -> dict[str, float]:
    """Load a server of this machine."""
    request = f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\naccept: */*\r\n\r\n".encode()
    deadline = time.perf_counter() + seconds
    loop = asyncio.get_running_loop()
    opened = [
        (await loop.create_connection(lambda: Connection(request, deadline), "127.0.0.1", port))[1]
        for _ in range(connections)
    ]
    await asyncio.gather(*(connection.done for connection in opened))
    latencies = sorted(seconds for each in opened for seconds in each.latencies)
    return {
        "requests": len(latencies),
        "failed": sum(each.failed for each in opened),
        "p50_us": latencies[len(latencies) // 2] * 1e6,
        "p99_us": latencies[len(latencies) * 99 // 100] * 1e6,
    }


if __name__ == "__main__":
    answer = asyncio.run(run(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
    print(json.dumps(answer))
