"""Answers of a backend's HTTP API, with an error that says what is wrong where there is none."""

from __future__ import annotations

import http.client
import json
import socket
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from otel_shim.cli.masking import masked_url
from otel_shim.cli.opener import opener
from otel_shim.cli.traces import Backend

_TIMEOUT = 30.0
"""Seconds for an answer."""
_LARGEST = 256 * 1024 * 1024
_MESSAGE = 200
_TO_ELSEWHERE = dict.fromkeys(
    (301, 302, 303, 307, 308), ", which leads elsewhere: give that address"
)
_HINTS = {**_TO_ELSEWHERE, **dict.fromkeys((401, 403), ": give credentials by --header")}


class BackendError(Exception):
    """A backend gave no usable answer; the text says which, why, and what to look at."""


def ask(backend: Backend, path: str, parameters: Mapping[str, str] | None = None) -> Any:
    """The JSON of an answer; None where the backend says that there is nothing (404).

    Raises BackendError where it is away, refuses, or does not answer with JSON.
    """
    query = f"?{urlencode(parameters)}" if parameters else ""
    headers = {"Accept": "application/json", **backend.headers}
    request = urllib.request.Request(f"{backend.url}{path}{query}", headers=headers)  # noqa: S310 - checked
    try:
        with opener().open(request, timeout=_TIMEOUT) as answer:
            body = answer.read(_LARGEST + 1)
    except urllib.error.HTTPError as error:
        return _refused(backend, error)
    except (OSError, http.client.HTTPException) as error:
        raise BackendError(
            f"{masked_url(backend.url)} cannot be reached: {_reason(error)}"
        ) from error
    return _parsed(backend, body)


def _refused(backend: Backend, error: urllib.error.HTTPError) -> None:
    with error:
        if error.code == http.client.NOT_FOUND:
            return
        said = error.read(4096).decode("utf-8", "replace").strip()
    hint = _HINTS.get(error.code, "")
    text = f"{masked_url(backend.url)} answered HTTP {error.code}{hint}: {_short(said)}"
    raise BackendError(text.rstrip(": ")) from error


def _parsed(backend: Backend, body: bytes) -> Any:
    if len(body) > _LARGEST:
        raise BackendError(
            f"{masked_url(backend.url)} answered with more than 256 MiB; give a lower --limit"
        )
    try:
        return json.loads(body)
    except ValueError as error:
        said = _short(body[:_MESSAGE].decode("utf-8", "replace"))
        text = f"{masked_url(backend.url)} did not answer with JSON; is it the address of the API? It said: {said}"
        raise BackendError(text) from error


def unexpected(backend: Backend, kind: str, error: Exception) -> BackendError:
    """The error for JSON of another shape than the API documents."""
    return BackendError(
        f"{masked_url(backend.url)} does not answer as {kind} does ({type(error).__name__}: {_short(str(error))}); "
        "check --backend and --url"
    )


def _reason(error: Exception) -> str:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, (TimeoutError, socket.timeout)):
        return f"no answer within {_TIMEOUT:.0f} s"
    return _short(getattr(cause, "strerror", None) or str(cause) or type(cause).__name__)


def _short(text: str) -> str:
    """Text from outside, safe to print: one line, no control characters."""
    return printable(" ".join(text.split()))[:_MESSAGE]


def printable(text: object) -> str:
    """Text from outside without what could steer a terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(text))
