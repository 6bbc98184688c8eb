"""What may be asked, and what traces are."""

from __future__ import annotations

import pytest

from otel_shim.cli import main, tempo, traces
from otel_shim.cli.masking import masked_url
from otel_shim.cli.traces import Question, Span, Trace, Unusable


def _trace(*parents: tuple[int, int]) -> Trace:
    spans = [
        Span("t", str(i), str(p) if p else None, "s", f"n{i}", i, 10, False, {}) for i, p in parents
    ]
    return Trace("t", "link", tuple(spans))


def _outline(trace: Trace) -> list[str]:
    return [
        "".join(" |"[not last] for last in lasts) + span.name for lasts, span in trace.outline()
    ]


def test_outline_is_the_tree() -> None:
    """Depth first, siblings by time."""
    trace = _trace((1, 0), (2, 1), (3, 2), (4, 1), (5, 1))
    assert _outline(trace) == ["n1", "|n2", "| n3", "|n4", " n5"]


@pytest.mark.parametrize(
    "parents", [((1, 2), (2, 1)), ((1, 1),), ((1, 9), (2, 1)), ((1, 0), (2, 3), (3, 2), (4, 2))]
)
def test_outline_has_every_span_once(parents: tuple[tuple[int, int], ...]) -> None:
    """Also with missing parents and circles, which a broken backend may send."""
    names = [name.strip(" |") for name in _outline(_trace(*parents))]
    assert sorted(names) == [f"n{i}" for i, _ in parents]


def test_a_very_deep_trace_has_an_outline() -> None:
    """Deeper than Python's stack."""
    deep = _trace(*((i, i - 1) for i in range(1, 3000)))
    assert len(list(deep.outline())) == 2999


def test_root_is_the_span_without_parent() -> None:
    """Else the first whose parent is not there."""
    assert _trace((1, 9), (2, 0), (3, 2)).root().name == "n2"
    assert _trace((1, 9), (3, 1)).root().name == "n1"
    assert _trace((1, 2), (2, 1)).root().name == "n1"
    assert _trace((1, 0), (5, 1)).duration_us() == 14


@pytest.mark.parametrize(
    ("value", "literal"),
    [
        ("org-1", '"org-1"'),
        ('a"b', '"a\\"b"'),
        ("a\\", '"a\\\\"'),
        ('\\" || true', '"\\\\\\" || true"'),
    ],
)
def test_traceql_quotes_values(value: str, literal: str) -> None:
    """A value is one string, whatever is in it."""
    query = tempo.traceql(Question("saas.org.id", value, 60, 1, service=value))
    assert query == f"{{ .saas.org.id = {literal} && resource.service.name = {literal} }}"


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (traces.by_request, "a-1.b_2", ["", "a b", "x" * 56, "ä", 'a"']),
        (traces.by_organisation, 'an "org"', ["", "a\nb", "x" * 257, "\x1b"]),
        (traces.by_user, "k1_-Zz." + "a" * 43, ["anna", "anna@example.org", "k1_-Zz." + "a" * 42]),
        (
            traces.trace_id,
            "0af7651916cd43dd8448eb211c80319c",
            ["", "0" * 32, "xyz", "a" * 31, "../a"],
        ),
        (traces.seconds, "15m", ["", "0s", "1", "-1h", "1w", "1h30m", "9999999s"]),
        (
            traces.base_url,
            "http://h:1/x",
            ["h:1", "file:///etc/passwd", "http://", "http://h?q", "http://u:p@h"],
        ),
        (traces.header, "X-Scope-OrgID: a", ["x", "a: b\r\nc: d", ": a", "a b: c"]),
        (traces.service, "shop", ["", "a\nb"]),
    ],
)
def test_input_is_checked(check: object, good: str, bad: list[str]) -> None:
    """What cannot be is refused before anybody is asked."""
    assert callable(check)
    assert check(good)
    for value in bad:
        with pytest.raises(Unusable):
            check(value)


def test_checked_values() -> None:
    """What comes out."""
    assert traces.trace_id("ABCDEF0123456789") == "0" * 16 + "abcdef0123456789"
    assert [traces.seconds(t) for t in ("90s", "15m", "1h", "7d")] == [90, 900, 3600, 604800]
    assert traces.base_url("http://h:1/tempo/") == "http://h:1/tempo"
    assert traces.header("Authorization: Basic a=") == ("Authorization", "Basic a=")


def test_addresses_are_masked() -> None:
    """User, password and query may be secrets."""
    assert masked_url("https://u:p@h:1/v1?key=s#f") == "https://***@h:1/v1?***"
    assert masked_url("http://h/v1") == "http://h/v1"
    assert masked_url("http://[broken") == "***"


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("find",),
        ("find", "--org", "a", "--user", "b"),
        ("find", "--org", "a", "--limit", "0"),
        ("nonsense",),
    ],
)
def test_usage_errors(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 with a usage line."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage: otel-shim" in capsys.readouterr().err


def test_nobody_there_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    """An address where nobody is gives a sentence, not a traceback."""
    assert main(("find", "--org", "a", "--url", "http://127.0.0.1:1")) == 2
    assert "cannot be reached" in capsys.readouterr().err
