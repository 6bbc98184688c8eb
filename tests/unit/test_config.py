"""otel_shim.config: the environment read once; what cannot be used is named, and never stops the app."""

from __future__ import annotations

import pytest

from otel_shim import config, sources


def test_defaults() -> None:
    """An empty environment gives the shipped sources and the cautious choices."""
    read = config.from_environ({})
    assert (read.user_identity, read.public_peers, read.private_peers, read.log_format) == (
        "hash",
        "restart",
        "continue",
        "json",
    )
    assert read.errors == () and read.trusted_peers == () and read.secret is None
    assert {s.field for s in read.sources} == {"org_id", "user_id", "actor_role", "plan"}


def test_default_sources_never_read_the_path() -> None:
    """A path says what a caller asks for, not who the caller is."""
    assert {s.kind for s in config.from_environ({}).sources} == {"dependency", "state", "user"}


def test_given_sources_replace_the_defaults() -> None:
    """A field that is configured has these sources only, in the order given."""
    read = config.from_environ({"OTEL_SHIM_ORG_ID": "state:org.id, path:org_id"})
    assert [str(s) for s in read.sources if s.field == "org_id"] == ["state:org.id", "path:org_id"]
    assert any(s.field == "user_id" for s in read.sources)


def test_unparsable_expression_gives_one_clear_error() -> None:
    """The error names the variable, the text and the fix; the other sources are used."""
    read = config.from_environ({"OTEL_SHIM_ORG_ID": "dependency:user.org_id,header:x-org,user:org"})
    assert [str(s) for s in read.sources if s.field == "org_id"] == [
        "dependency:user.org_id",
        "user:org",
    ]
    (error,) = read.errors
    assert "OTEL_SHIM_ORG_ID" in error and "'header:x-org'" in error
    assert (
        all(kind in error for kind in sources.KINDS) and "dependency:current_user.org_id" in error
    )


@pytest.mark.parametrize(
    ("variable", "value", "fix"),
    [
        ("OTEL_SHIM_USER_IDENTITY", "plain", "hash or clear"),
        ("OTEL_SHIM_PUBLIC_PEERS", "drop", "restart or continue"),
        ("OTEL_SHIM_PRIVATE_PEERS", "drop", "continue or restart"),
        ("OTEL_SHIM_LOG_FORMAT", "xml", "json or text"),
        ("OTEL_SHIM_METRICS_PORT", "none", "9464"),
        ("OTEL_SHIM_METRICS_PORT", "65536", "9464"),
        ("OTEL_SHIM_METRICS_PORT", "9" * 5000, "9464"),
        ("OTEL_SHIM_METRICS_HOST", "0.0.0.0", "OTEL_SHIM_METRICS_TOKEN"),
        ("OTEL_SHIM_METRICS_HOST", "a.host", "OTEL_SHIM_METRICS_TOKEN"),
        ("OTEL_SHIM_TRUSTED_PEERS", "10.0.0.0/33", "10.0.0.0/8"),
        ("OTEL_SHIM_TRUSTED_PEERS", "10.0.0.1/8", "10.0.0.0/8"),
    ],
)
def test_bad_choice_has_its_default_and_one_error(variable: str, value: str, fix: str) -> None:
    """A value that is not known counts as not given, and the error says what to write."""
    read = config.from_environ({variable: value})
    (error,) = read.errors
    assert error.startswith(variable) and fix in error
    assert read == config.Config(config.from_environ({}).sources, errors=read.errors)


def test_choices_are_read_without_regard_to_case_and_space() -> None:
    """`` JSON `` is json."""
    assert config.from_environ({"OTEL_SHIM_LOG_FORMAT": " TEXT "}).log_format == "text"


def test_repr_hides_the_secret() -> None:
    """A configuration can be printed."""
    assert "topsecret" not in repr(config.from_environ({"OTEL_SHIM_SECRET": "topsecret" * 9}))


def test_one_bad_network_leaves_the_others() -> None:
    """Each network of a list stands for itself."""
    read = config.from_environ({"OTEL_SHIM_TRUSTED_PEERS": "10.0.0.0/8,nonsense,fd00::/8"})
    assert [str(n) for n in read.trusted_peers] == ["10.0.0.0/8", "fd00::/8"]
    assert len(read.errors) == 1


def test_metrics_beyond_loopback_need_a_token() -> None:
    """With a token, or on loopback, the host is as chosen."""
    for environ in (
        {"OTEL_SHIM_METRICS_HOST": "0.0.0.0", "OTEL_SHIM_METRICS_TOKEN": "t"},
        {"OTEL_SHIM_METRICS_HOST": "0.0.0.0", "OTEL_SHIM_METRICS_TOKEN_FILE": "/t"},
        {"OTEL_SHIM_METRICS_HOST": "::1"},
        {"OTEL_SHIM_METRICS_HOST": "localhost", "OTEL_SHIM_METRICS_PORT": " 9464 "},
    ):
        read = config.from_environ(environ)
        assert read.metrics_host == environ["OTEL_SHIM_METRICS_HOST"]
        assert read.metrics_port == (9464 if "OTEL_SHIM_METRICS_PORT" in environ else None)
        assert read.errors == ()
