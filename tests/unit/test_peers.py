"""otel_shim.peers: what a caller's trace context is worth, by the address it really has."""

from __future__ import annotations

import pytest

from otel_shim.config import from_environ
from otel_shim.peers import Trust, trust

NOTHING = Trust(identity=False, trace=False)
TRACE = Trust(identity=False, trace=True)
BOTH = Trust(identity=True, trace=True)


@pytest.mark.parametrize(
    ("client", "expected"),
    [
        pytest.param(("127.0.0.1", 4000), TRACE, id="loopback"),
        pytest.param(("::1", 4000), TRACE, id="loopback, IPv6"),
        pytest.param(("10.1.2.3", 4000), TRACE, id="private"),
        pytest.param(("192.168.1.1", 4000), TRACE, id="private, class C"),
        pytest.param(("fd00::1", 4000), TRACE, id="unique local"),
        pytest.param(("fe80::1%eth0", 4000), TRACE, id="link local with a zone"),
        pytest.param(("::ffff:10.1.2.3", 4000), TRACE, id="private, mapped"),
        pytest.param(None, TRACE, id="unix socket"),
        pytest.param(("8.8.8.8", 4000), NOTHING, id="public"),
        pytest.param(("2606:4700::1", 4000), NOTHING, id="public, IPv6"),
        pytest.param(("::ffff:8.8.8.8", 4000), NOTHING, id="public, mapped"),
        pytest.param(("testclient", 50000), NOTHING, id="no address"),
        pytest.param(("", 4000), NOTHING, id="empty"),
        pytest.param((), NOTHING, id="empty client"),
        pytest.param(("10.1.2.3", 0), NOTHING, id="forwarded private"),
        pytest.param(("127.0.0.1", 0), NOTHING, id="forwarded loopback"),
        pytest.param(("8.8.8.8", 0), NOTHING, id="forwarded public"),
        pytest.param(("172.20.1.5", 4000), BOTH, id="trusted"),
        pytest.param(("::ffff:172.20.1.5", 4000), BOTH, id="trusted, mapped"),
        pytest.param(("203.0.113.9", 4000), BOTH, id="trusted by its public address"),
        pytest.param(("172.20.1.5", 0), NOTHING, id="forwarded, as if trusted"),
    ],
)
def test_default_policy(client: tuple[str, int] | None, expected: Trust) -> None:
    """Private peers continue a trace, public ones do not; identity needs a named TCP peer.

    Port 0 marks a host that a proxy header gave: whoever sent the request wrote it.
    """
    config = from_environ({"OTEL_SHIM_TRUSTED_PEERS": "172.20.0.0/16, 203.0.113.9/32"})
    assert config.errors == ()
    assert trust(client, config) == expected


def test_policies_can_be_turned_round() -> None:
    """Both policies follow the configuration; identity is given by neither."""
    config = from_environ(
        {"OTEL_SHIM_PUBLIC_PEERS": "continue", "OTEL_SHIM_PRIVATE_PEERS": "restart"}
    )
    assert trust(("8.8.8.8", 1), config) == TRACE
    assert trust(("10.0.0.1", 1), config) == NOTHING
    assert trust(None, config) == NOTHING
