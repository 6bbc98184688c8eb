"""monitoring.load: the load is as said, and what is wrong is seen."""

from __future__ import annotations

import asyncio

import pytest

from monitoring import load
from monitoring.load import Alertmanager, Sent

FAILED = {'backend="exemplars",reason="late"': 16}


def sent(count: int = 500, took: float = 1.0, **more: int) -> Sent:
    """So many alerts, all at the second 100."""
    return Sent({str(number): 100.0 for number in range(count)}, took, **more)


def came(count: int = 500, at: float = 100.5) -> Alertmanager:
    """An Alertmanager that got so many of them."""
    return Alertmanager([], {str(number): at for number in range(count)})


def test_all_in_time_is_well() -> None:
    assert load.judge(sent(), [came(), came()], FAILED) == 0


@pytest.mark.parametrize(
    ("what", "managers", "failed"),
    [
        (sent(), [came(), came(499)], FAILED),
        (sent(), [came(), came(at=102.1)], FAILED),
        (sent(took=1.1), [came(), came()], FAILED),
        (sent(refused=1), [came(), came()], FAILED),
        (sent(unsent=1), [came(), came()], FAILED),
        (sent(), [came(), came()], {}),
    ],
    ids=["lost", "late", "too few a second", "refused", "not sent", "nobody asked"],
)
def test_anything_else_is_not(
    what: Sent, managers: list[Alertmanager], failed: dict[str, int]
) -> None:
    assert load.judge(what, managers, failed) == 1


async def test_nobody_waits_for_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A relay that never answers gets every batch; they are refused in the end."""
    monkeypatch.setattr(load, "PATIENCE_SECONDS", 0.5)
    asked = 0

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await load.silent(reader, writer)

    async with load.listening(silent) as url:
        found = await load.send(url, 0.4)
    assert asked == found.refused == 4
    assert len(found.alerts) == 200


def test_failures_are_read_from_the_metrics() -> None:
    text = (
        "# TYPE otel_shim_relay_lookup_failures_total counter\n"
        'otel_shim_relay_lookup_failures_total{backend="jaeger",reason="late"} 3\n'
        'otel_shim_relay_lookup_failures_total{backend="jaeger",reason="refused"} 0\n'
    )
    assert load.failures(text) == {'backend="jaeger",reason="late"': 3}
