"""Whether an OTLP endpoint answers: a connection, then an empty export request.

Specification: OTLP 1.x, "OTLP/HTTP"; an empty body is a valid request that exports nothing.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from otel_shim.cli.opener import opener

UNREACHABLE = "unreachable"
REFUSED = "refused"
ANSWER = "answer"
_TIMEOUT = 3.0
"""Seconds for a connection, and for an answer."""
_PORTS = {"http": 80, "https": 443}


class Verdict(NamedTuple):
    """What is wrong with an endpoint; both empty where nothing is."""

    problem: str = ""
    detail: str = ""


def probe(url: str, signal: str, headers: Mapping[str, str], http_protocol: bool) -> Verdict:
    """Try an endpoint as an exporter of this signal would; never raises."""
    try:
        if not _proxied(url):
            _connect(url)
        return _post(url, signal, headers) if http_protocol else Verdict()
    except urllib.error.URLError as error:
        return Verdict(UNREACHABLE, _reason(error.reason))
    except (OSError, ValueError, http.client.HTTPException) as error:
        return Verdict(UNREACHABLE, _reason(error))


def _proxied(url: str) -> bool:
    parts = urlsplit(url)
    host = parts.hostname or ""
    return parts.scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(host)


def _connect(url: str) -> None:
    parts = urlsplit(url if "//" in url else f"//{url}")
    port = parts.port or _PORTS.get(parts.scheme, 4317)
    with contextlib.closing(socket.create_connection((parts.hostname or "", port), _TIMEOUT)):
        pass


def _post(url: str, signal: str, headers: Mapping[str, str]) -> Verdict:
    request = urllib.request.Request(url, data=b"", headers=dict(headers))  # noqa: S310 - the operator's
    request.add_header("Content-Type", "application/x-protobuf")
    try:
        with opener(_tls(url, signal)).open(request, timeout=_TIMEOUT):
            return Verdict()
    except urllib.error.HTTPError as error:
        with error:
            return _judged(error.code)


def _judged(status: int) -> Verdict:
    if status in (401, 403):
        return Verdict(REFUSED, f"HTTP {status}")
    return Verdict(ANSWER, f"HTTP {status}")


def _tls(url: str, signal: str) -> ssl.SSLContext | None:
    """The certificates that the exporters take from the same variables."""
    if urlsplit(url).scheme != "https":
        return None
    context = ssl.create_default_context(cafile=_setting("CERTIFICATE", signal))
    if certificate := _setting("CLIENT_CERTIFICATE", signal):
        context.load_cert_chain(certificate, _setting("CLIENT_KEY", signal))
    return context


def _setting(name: str, signal: str) -> str | None:
    prefix = "OTEL_EXPORTER_OTLP"
    return os.environ.get(f"{prefix}_{signal.upper()}_{name}") or os.environ.get(f"{prefix}_{name}")


def _reason(error: object) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {_TIMEOUT:.0f} s"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text)[:120]
