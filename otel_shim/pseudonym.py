"""Keyed pseudonyms of people and other actors, and where their key comes from.

``<key id>.<base64url HMAC-SHA256(derived key, length-prefixed(purpose, organisation, actor))>``:
the same bytes in every language, unlinkable across organisations, and erasable by destroying the key.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import os
import secrets
import struct
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from otel_shim.config import Config
from otel_shim.environment_variables import (
    OTEL_SHIM_SECRET,
    OTEL_SHIM_SECRET_FILE,
    OTEL_SHIM_STATE_DIRECTORY,
)

SECRET_BYTES = 32
"""Length of a secret that we make; a given one needs at least as many bytes."""
_CACHED_PSEUDONYMS = 10_000


class SecretError(ValueError):
    """The secret cannot be used; the text names the setting and the fix."""


@dataclass(frozen=True)
class Pseudonymiser:
    """Makes pseudonyms with one key; the key itself is kept out of ``repr``."""

    key_id: str
    key: bytes = field(repr=False)

    def pseudonym(self, purpose: str, organisation: str, actor: str) -> str:
        """The pseudonym of an actor of an organisation, for one purpose (``user``, ``api_key``, ``job``)."""
        return _pseudonym(self, purpose, organisation, actor)


@functools.lru_cache(maxsize=_CACHED_PSEUDONYMS)
def _pseudonym(maker: Pseudonymiser, purpose: str, organisation: str, actor: str) -> str:
    message = b"".join(_prefixed(part) for part in (purpose, organisation, actor))
    digest = hmac.digest(maker.key, message, "sha256")
    return f"{maker.key_id}.{_base64url(digest)}"


def _prefixed(part: str) -> bytes:
    encoded = part.encode("utf-8", "surrogatepass")
    return struct.pack(">I", len(encoded)) + encoded


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def pseudonymiser(secret: bytes) -> Pseudonymiser:
    """Derive the pseudonym key from the one secret; keys for other uses are derived under other labels."""
    key = hmac.digest(secret, b"otel-shim/pseudonym/v1", "sha256")
    key_id = _base64url(hashlib.sha256(b"otel-shim/key-id/v1" + key).digest())[:6]
    return Pseudonymiser(key_id, key)


def read_secret(text: str, name: str) -> bytes:
    """The secret an operator gave; raises SecretError naming the setting where it is too short."""
    secret = text.strip().encode("utf-8", "surrogateescape")
    if len(secret) < SECRET_BYTES:
        raise SecretError(
            f"{name} has {len(secret)} bytes; give at least {SECRET_BYTES} random ones, "
            "for example the output of `openssl rand -base64 48`"
        )
    return secret


def secret_of(settings: Config, environ: Mapping[str, str]) -> tuple[bytes, Path | None]:
    """The secret that the operator gave, else the host's, with its directory where this call made it.

    Raises SecretError for one that is too short, OSError where a file cannot be read or made.
    """
    if settings.secret is not None:
        return read_secret(settings.secret, OTEL_SHIM_SECRET), None
    if settings.secret_file is not None:
        text = _text_of(Path(settings.secret_file))
        return read_secret(text, OTEL_SHIM_SECRET_FILE), None
    directory = state_directory(environ)
    secret, made = host_secret(directory)
    return secret, directory if made else None


def state_directory(environ: Mapping[str, str]) -> Path:
    """The host's state directory: the chosen one, else the system's for root, else the user's own (XDG base directories).

    Raises SecretError where there is none of them.
    """
    if chosen := environ.get(OTEL_SHIM_STATE_DIRECTORY):
        return Path(chosen)
    if os.geteuid() == 0:
        return Path("/var/lib/otel-shim")
    if home := environ.get("XDG_STATE_HOME"):
        return Path(home) / "otel-shim"
    try:
        return Path.home() / ".local" / "state" / "otel-shim"
    except RuntimeError:  # a container's user without an entry in passwd
        raise SecretError(
            f"this user has no home directory; set {OTEL_SHIM_SECRET} or {OTEL_SHIM_STATE_DIRECTORY}"
        ) from None


def host_secret(directory: Path) -> tuple[bytes, bool]:
    """The secret shared by all processes of this host, and whether this call made it.

    It is made once: written to a file of its own (mode 0600) and linked to its name, which the
    first process wins and all read. Raises OSError where the directory cannot be written.
    """
    path = directory / "secret"
    made = not path.exists() and _create(path)
    return read_secret(_text_of(path), str(path)), made


def _text_of(path: Path) -> str:
    return path.read_text("utf-8", "surrogateescape")  # any bytes may be a secret


def _create(path: Path) -> bool:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, draft = tempfile.mkstemp(dir=path.parent)  # created with mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(SECRET_BYTES))
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
        return True
    except FileExistsError:
        return False
    finally:
        Path(draft).unlink()
