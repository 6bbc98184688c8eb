"""otel_shim.pseudonym: the same bytes in every language, and one secret for all processes of a host."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import multiprocessing
import os
import stat
import struct
from pathlib import Path
from typing import Any

import pytest

from otel_shim import pseudonym
from otel_shim.config import from_environ

GOLDEN: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "golden" / "pseudonyms.json").read_text("utf-8")
)
MAKER = pseudonym.pseudonymiser(b"a fixed secret of the tests, 32 bytes and more")


@pytest.mark.parametrize(
    "vector", GOLDEN["vectors"], ids=lambda v: f"{v['purpose']}-{v['actor'][:8]}"
)
def test_known_answers(vector: dict[str, str]) -> None:
    """The vectors that Go reads too."""
    maker = pseudonym.pseudonymiser(vector["secret"].encode())
    made = maker.pseudonym(vector["purpose"], vector["organisation"], vector["actor"])
    assert made == vector["pseudonym"]


def test_definition() -> None:
    """``<key id>.<base64url HMAC-SHA256(derived key, length-prefixed(purpose, organisation, actor))>``."""

    def encode(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).decode().rstrip("=")

    secret = b"s" * 32
    key = hmac.new(secret, b"otel-shim/pseudonym/v1", hashlib.sha256).digest()
    parts = [part.encode() for part in ("user", "Ünï", "ada")]
    message = b"".join(struct.pack(">I", len(part)) + part for part in parts)
    digest = hmac.new(key, message, hashlib.sha256).digest()
    key_id = encode(hashlib.sha256(b"otel-shim/key-id/v1" + key).digest())[:6]
    made = pseudonym.pseudonymiser(secret).pseudonym("user", "Ünï", "ada")
    assert made == f"{key_id}.{encode(digest)}"


def test_purposes_organisations_and_actors_are_apart() -> None:
    """A person has another pseudonym in each organisation, and other than a key of the same name."""
    triples = [
        ("user", "a", "x"),
        ("api_key", "a", "x"),
        ("job", "a", "x"),
        ("user", "b", "x"),
        ("user", "a", "y"),
    ]
    assert len({MAKER.pseudonym(*t) for t in triples}) == len(triples)


def test_lengths_prevent_ambiguity() -> None:
    """("ab", "c") is not ("a", "bc"), whatever stands between."""
    triples = [("user", "ab", "c"), ("user", "a", "bc"), ("usera", "b", "c"), ("user", "abc", ""), ("user", "", "abc"),
               ("user", "a\x00b", "c"), ("user", "a", "b\x00c")]  # fmt: skip
    assert len({MAKER.pseudonym(*t) for t in triples}) == len(triples)


def test_other_secret_other_key() -> None:
    """Key id and pseudonym depend on the secret; neither contains the actor."""
    other = pseudonym.pseudonymiser(b"x" * 32)
    assert other.key_id != MAKER.key_id
    mine, theirs = (maker.pseudonym("user", "acme", "ada") for maker in (MAKER, other))
    assert mine.split(".")[1] != theirs.split(".")[1]
    assert "ada" not in mine and "acme" not in mine


def test_repr_hides_the_key() -> None:
    """A maker can be printed."""
    assert repr(MAKER) == f"Pseudonymiser(key_id={MAKER.key_id!r})"


@pytest.mark.parametrize("text", ["", "short", "x" * 31, "  " + "x" * 31 + "\n"])
def test_short_secret_is_refused(text: str) -> None:
    """The error names the setting, the length and the fix, and not the secret."""
    with pytest.raises(pseudonym.SecretError) as caught:
        pseudonym.read_secret(text, "OTEL_SHIM_SECRET")
    assert str(caught.value).startswith(
        f"OTEL_SHIM_SECRET has {len(text.strip())} bytes; give at least 32"
    )
    assert "openssl rand" in str(caught.value)
    assert not text.strip() or text.strip() not in str(caught.value)


def test_secret_is_read_without_the_final_newline() -> None:
    """A file written by hand and an environment variable give the same key; length counts in bytes."""
    assert pseudonym.read_secret("x" * 32 + "\n", "S") == b"x" * 32
    assert len(pseudonym.read_secret("é" * 16, "S")) == 32


# --- the host's own secret ---------------------------------------------------------------------------


def _make(arguments: tuple[str, Any]) -> tuple[bytes, bool]:
    directory, barrier = Path(arguments[0]), arguments[1]
    barrier.wait()
    return pseudonym.host_secret(directory)


def test_processes_of_a_host_share_one_secret(tmp_path: Path) -> None:
    """Eight processes that start at once make one secret, which only its owner can read."""
    directory = tmp_path / "deep" / "state"
    spawn = multiprocessing.get_context("fork")
    with spawn.Manager() as manager, spawn.Pool(8) as pool:
        barrier = manager.Barrier(8)
        made = pool.map(_make, [(str(directory), barrier)] * 8, chunksize=1)
    assert len({secret for secret, _ in made}) == 1
    assert [first for _, first in made].count(True) == 1
    assert [path.name for path in directory.iterdir()] == ["secret"]
    assert stat.S_IMODE((directory / "secret").stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_secret_survives_a_restart(tmp_path: Path) -> None:
    """What was made once is read ever after."""
    first, made = pseudonym.host_secret(tmp_path)
    again, made_again = pseudonym.host_secret(tmp_path)
    assert (made, made_again) == (True, False)
    assert first == again and len(first) >= 32


def test_directory_that_cannot_be_written(tmp_path: Path) -> None:
    """Where no secret can be kept there is none: an OSError that names the place."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        pseudonym.host_secret(tmp_path / "file" / "state")


def test_damaged_secret_is_not_replaced(tmp_path: Path) -> None:
    """A truncated file is an error naming it: a new secret would change every pseudonym silently."""
    (tmp_path / "secret").write_text("short")
    with pytest.raises(pseudonym.SecretError, match=str(tmp_path / "secret")):
        pseudonym.host_secret(tmp_path)
    assert (tmp_path / "secret").read_text() == "short"


def test_failed_write_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is an error, and no half-written file stays."""

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        pseudonym.host_secret(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("uid", "environ", "expected"),
    [
        (0, {}, "/var/lib/otel-shim"),
        (0, {"OTEL_SHIM_STATE_DIRECTORY": "/s"}, "/s"),
        (1000, {"OTEL_SHIM_STATE_DIRECTORY": "/s"}, "/s"),
        (1000, {"XDG_STATE_HOME": "/x"}, "/x/otel-shim"),
        (1000, {}, "/home/ada/.local/state/otel-shim"),
    ],
)
def test_state_directory(
    uid: int, environ: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The chosen directory, else the system's for root, else the user's own."""
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setenv("HOME", "/home/ada")
    assert pseudonym.state_directory(environ) == Path(expected)


def test_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's user without an entry has no home: a SecretError that says what to set."""

    def no_home(_: type[Path]) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    monkeypatch.setattr(Path, "home", classmethod(no_home))
    with pytest.raises(pseudonym.SecretError, match="OTEL_SHIM_STATE_DIRECTORY"):
        pseudonym.state_directory({})


def test_secret_may_be_any_bytes(tmp_path: Path) -> None:
    """Random bytes are a secret too, from a file or from the environment, and the same one."""
    secret = bytes(range(128, 192))
    (tmp_path / "secret").write_bytes(secret)
    assert pseudonym.host_secret(tmp_path) == (secret, False)
    assert pseudonym.read_secret(os.fsdecode(secret), "OTEL_SHIM_SECRET") == secret


def test_operators_secret_comes_first(tmp_path: Path) -> None:
    """A secret given outright wins over a file, and a file over the host's own."""
    (tmp_path / "given").write_text("f" * 32 + "\n")
    environ = {"OTEL_SHIM_STATE_DIRECTORY": str(tmp_path / "state")}
    given = {"OTEL_SHIM_SECRET": "e" * 32, "OTEL_SHIM_SECRET_FILE": str(tmp_path / "given")}
    assert pseudonym.secret_of(from_environ(given), environ) == (b"e" * 32, None)
    del given["OTEL_SHIM_SECRET"]
    assert pseudonym.secret_of(from_environ(given), environ) == (b"f" * 32, None)
    assert not (tmp_path / "state").exists()
    secret, made_in = pseudonym.secret_of(from_environ({}), environ)
    assert made_in == tmp_path / "state"
    assert pseudonym.secret_of(from_environ({}), environ) == (secret, None)
