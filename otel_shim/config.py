"""The configuration, read once from the environment. Pure: reads a mapping, touches nothing."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from otel_shim import environment_variables as env
from otel_shim import sources

_LOOPBACK = "127.0.0.1"
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_SOURCE_VARIABLES = {
    "org_id": env.OTEL_SHIM_ORG_ID,
    "user_id": env.OTEL_SHIM_USER_ID,
    "actor_role": env.OTEL_SHIM_ACTOR_ROLE,
    "plan": env.OTEL_SHIM_PLAN,
}


@dataclass(frozen=True)
class Config:
    """What the operator chose.

    ``errors`` names what could not be used and what to write instead; it has its default then.
    """

    sources: tuple[sources.Source, ...]
    user_identity: str = "hash"
    secret: str | None = field(default=None, repr=False)
    secret_file: str | None = None
    trusted_peers: tuple[Network, ...] = ()
    public_peers: str = "restart"
    private_peers: str = "continue"
    queue_relation: str = "link"
    log_format: str = "json"
    on_sigterm: str = "flush"
    metrics_port: int | None = None
    metrics_host: str = "127.0.0.1"
    metrics_token: str | None = field(default=None, repr=False)
    metrics_token_file: str | None = None
    metrics_directory: str | None = None
    errors: tuple[str, ...] = ()


def from_environ(environ: Mapping[str, str]) -> Config:
    """Read the configuration; never raises, see ``Config.errors``."""
    errors: list[str] = []
    return Config(
        sources=_sources(environ, errors),
        user_identity=_choice(environ, env.OTEL_SHIM_USER_IDENTITY, ("hash", "clear"), errors),
        secret=environ.get(env.OTEL_SHIM_SECRET) or None,
        secret_file=environ.get(env.OTEL_SHIM_SECRET_FILE) or None,
        trusted_peers=_networks(environ, env.OTEL_SHIM_TRUSTED_PEERS, errors),
        public_peers=_choice(environ, env.OTEL_SHIM_PUBLIC_PEERS, ("restart", "continue"), errors),
        private_peers=_choice(
            environ, env.OTEL_SHIM_PRIVATE_PEERS, ("continue", "restart"), errors
        ),
        queue_relation=_choice(environ, env.OTEL_SHIM_QUEUE_RELATION, ("link", "parent"), errors),
        log_format=_choice(environ, env.OTEL_SHIM_LOG_FORMAT, ("json", "text"), errors),
        on_sigterm=_choice(environ, env.OTEL_SHIM_ON_SIGTERM, ("flush", "default"), errors),
        **_metrics(environ, errors),
        errors=tuple(errors),
    )


def _metrics(environ: Mapping[str, str], errors: list[str]) -> dict[str, Any]:
    """Where ``/metrics`` is served; on loopback where there is no token for anything else."""
    port = _port(environ, env.OTEL_SHIM_METRICS_PORT, errors)
    host = environ.get(env.OTEL_SHIM_METRICS_HOST) or _LOOPBACK
    token = environ.get(env.OTEL_SHIM_METRICS_TOKEN) or None
    token_file = environ.get(env.OTEL_SHIM_METRICS_TOKEN_FILE) or None
    if token is None and token_file is None and not _is_loopback(host):
        errors.append(
            f"{env.OTEL_SHIM_METRICS_HOST}: {host} needs {env.OTEL_SHIM_METRICS_TOKEN}. Using {_LOOPBACK}."
        )
        host = _LOOPBACK
    return {
        "metrics_port": port,
        "metrics_host": host,
        "metrics_token": token,
        "metrics_token_file": token_file,
        "metrics_directory": environ.get(env.OTEL_SHIM_METRICS_DIRECTORY) or None,
    }


def _port(environ: Mapping[str, str], variable: str, errors: list[str]) -> int | None:
    text = (environ.get(variable) or "").strip()
    if not text:
        return None
    if text.isascii() and text.isdigit() and len(text) < 6 and 0 < int(text) < 65536:
        return int(text)
    errors.append(
        f"{variable}: {text[:40]!r} is no port; write one as 9464. /metrics is not served."
    )
    return None


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _sources(environ: Mapping[str, str], errors: list[str]) -> tuple[sources.Source, ...]:
    found: list[sources.Source] = []
    for name, variable in _SOURCE_VARIABLES.items():
        text = environ.get(variable) or sources.DEFAULTS[name]
        parsed, faults = sources.parse(name, text, variable)
        found += parsed
        errors += map(str, faults)
    return tuple(found)


def _choice(
    environ: Mapping[str, str], variable: str, choices: tuple[str, ...], errors: list[str]
) -> str:
    """The value if it is one of the choices; else the first, which is the default."""
    value = (environ.get(variable) or choices[0]).strip().lower()
    if value in choices:
        return value
    errors.append(
        f"{variable}: {value[:40]!r} is not known; write {' or '.join(choices)}. Using {choices[0]}."
    )
    return choices[0]


def _networks(environ: Mapping[str, str], variable: str, errors: list[str]) -> tuple[Network, ...]:
    parts = filter(None, (part.strip() for part in environ.get(variable, "").split(",")))
    networks = [_network(part, variable, errors) for part in parts]
    return tuple(network for network in networks if network is not None)


def _network(part: str, variable: str, errors: list[str]) -> Network | None:
    try:
        return ipaddress.ip_network(part)
    except ValueError as error:
        errors.append(f"{variable}: {error}; write networks as 10.0.0.0/8. This one is left out.")
        return None
