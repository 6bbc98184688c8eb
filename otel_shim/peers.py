"""Who is at the other end of the connection, and what that lets a caller do. Pure."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from otel_shim.config import Config

_REMEMBERED = 4096
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Trust:
    """What a caller's trace context is worth."""

    identity: bool
    """Identity may be inherited from it; otherwise the server span is an edge."""
    trace: bool
    """The trace may be continued; otherwise a new one is started and linked."""


class Peers:
    """Callers judged by one configuration; what was said of an address is remembered."""

    def __init__(self, config: Config) -> None:
        self._judge = functools.lru_cache(maxsize=_REMEMBERED)(
            lambda host, forwarded: trust((host, 0 if forwarded else 1), config)
        )
        self._local = trust(None, config)

    def trust(self, client: Sequence[Any] | None) -> Trust:
        """See ``trust``."""
        return self._judge(str(client[0]), _forwarded(client)) if client else self._local


def trust(client: Sequence[Any] | None, config: Config) -> Trust:
    """Judge a caller by the ASGI ``client`` (host, port).

    A server that put the host of a forwarding header in its place gives port 0: such a host was
    written by whoever sent the request, so it counts as public and never as a named one. No client
    is a unix socket: local.
    """
    address = None if _forwarded(client) else _address(client)
    local = client is None or (address is not None and not _public(address))
    policy = config.private_peers if local else config.public_peers
    named = any(address in network for network in config.trusted_peers) if address else False
    return Trust(identity=named, trace=policy == "continue" or named)


def _address(client: Sequence[Any] | None) -> Address | None:
    try:
        address = ipaddress.ip_address(str(client[0])) if client else None
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address


def _public(address: Address) -> bool:
    return not (address.is_loopback or address.is_private or address.is_link_local)


def _forwarded(client: Sequence[Any] | None) -> bool:
    return client is not None and len(client) > 1 and client[1] == 0
