"""Stands before the calendar server and makes it slow or unreachable on purpose: `python -m connector.gate`.

Listens on the loopback port `SAAS_GATE_PORT`, passes every byte on to `SAAS_GATE_TARGET`, and obeys the
lines `calendar down` and `calendar slow <seconds>` of `connector/faults.py`.
"""

import asyncio
import os
from contextlib import suppress

from . import faults

CHUNK = 65_536


async def serve(port: int, target: int) -> None:
    """Take connections for ever."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if faults.on("calendar down"):
            _reset(writer)
            return
        with suppress(OSError):
            await _pass_on(reader, writer, target)
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: int) -> None:
    """Both directions at once; when one ends, so does the other."""
    there_reader, there_writer = await asyncio.open_connection("127.0.0.1", target)
    ways = (_copy(reader, there_writer, "calendar slow"), _copy(there_reader, writer, ""))
    tasks = [asyncio.ensure_future(way) for way in ways]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        there_writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, slow: str) -> None:
    """Whatever comes, until the end; where a fault says so, later. Broken off when the server is down."""
    while chunk := await reader.read(CHUNK):
        if faults.on("calendar down"):
            return
        if slow:
            await asyncio.sleep(faults.seconds(slow))
        writer.write(chunk)
        await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    """As a port where nobody listens."""
    writer.transport.abort()


if __name__ == "__main__":
    asyncio.run(serve(int(os.environ["SAAS_GATE_PORT"]), int(os.environ["SAAS_GATE_TARGET"])))
