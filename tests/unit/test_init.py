"""otel_shim: the public API is safe anywhere, whatever it is given."""

from __future__ import annotations

import asyncio
import enum
import inspect
import subprocess
import sys
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.trace import SpanKind

import otel_shim
from otel_shim import counters
from otel_shim.model import NOBODY
from tests.unit.telemetry import Telemetry


class Evil:
    """Everything about it raises."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("evil")

    def __str__(self) -> str:
        raise RuntimeError("evil")

    __repr__ = __str__

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("evil")

    def __hash__(self) -> int:
        raise RuntimeError("evil")

    def __bool__(self) -> bool:
        raise RuntimeError("evil")

    def __len__(self) -> int:
        raise RuntimeError("evil")


class EvilText(str):
    """Text whose methods raise."""

    def __str__(self) -> str:
        raise RuntimeError("evil")

    def __len__(self) -> int:
        raise RuntimeError("evil")

    def __getitem__(self, _: Any) -> str:
        raise RuntimeError("evil")

    def encode(self, *_: Any, **__: Any) -> bytes:
        raise RuntimeError("evil")


class EvilEnum(enum.Enum):
    """An enumeration of what is no identifier."""

    MEMBER = (Evil,)


def _cycle() -> list[Any]:
    cycle: list[Any] = []
    cycle.append(cycle)
    return cycle


NASTY: dict[str, Any] = {
    "evil": Evil(),
    "evil class": Evil,
    "evil text": EvilText("x"),
    "evil enum": EvilEnum.MEMBER,
    "nothing": None,
    "true": True,
    "nan": float("nan"),
    "infinity": float("inf"),
    "huge": 10**5000,
    "negative": -(2**70),
    "empty": "",
    "giant": "x" * 5_000_000,
    "control": "a\x00b\r\nSet-Cookie: c",
    "surrogate": "\ud800",
    "right to left": "\u202eabc",
    "bytes": b"\xff\x00",
    "cycle": _cycle(),
    "nested": {"a": [{"b": object()}]},
    "generator": iter(()),
    "lambda": lambda: 1 / 0,
    "module": sys,
    "exception": ValueError("x"),
}
NAMES = (
    "org_id",
    "user_id",
    "actor_type",
    "actor_role",
    "plan",
    "audit_record_id",
    "request_id",
    "ü \ud800\n",
)


@pytest.mark.parametrize("nasty", NASTY)
def test_never_raises_whatever_is_passed(
    nasty: str, telemetry: Telemetry, tracer: trace.Tracer
) -> None:
    """Any value under any name, in a request, in a job and outside; what is exported can be encoded."""
    value = NASTY[nasty]
    for name in NAMES:
        for kind in (SpanKind.SERVER, SpanKind.INTERNAL):
            with tracer.start_as_current_span("work", kind=kind):
                otel_shim.bind(**{name: value})
                with otel_shim.identity(**{name: value}), tracer.start_as_current_span("inside"):
                    otel_shim.current_identity()
                otel_shim.bind(org_id="acme")
        otel_shim.bind(**{name: value})
        with otel_shim.identity(**{name: value}):
            otel_shim.current_identity()
    assert telemetry.started() == len(telemetry.spans())
    for span in telemetry.spans():
        assert all(_encodable(k) and _encodable(v) for k, v in (span.attributes or {}).items())
    works = [s for s in telemetry.spans() if s.name == "work"]
    assert all("saas.org.id" in (s.attributes or {}) or nasty != "org_id" for s in works)


def _encodable(value: Any) -> bool:
    if isinstance(value, str):
        return value.encode() is not None and len(value) <= 256
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    return isinstance(value, (bool, float))


@pytest.mark.parametrize("nasty", ["evil", "nothing", "giant", "surrogate", "bytes", "empty"])
def test_operation_never_raises(nasty: str, telemetry: Telemetry) -> None:
    """Whatever the name, the block runs and the function returns."""
    ran = []
    with otel_shim.operation(NASTY[nasty]):
        ran.append(1)
    assert otel_shim.operation(NASTY[nasty])(lambda x: x + 1)(1) == 2
    assert list(otel_shim.operation(NASTY[nasty])(_two)()) == [1, 2]
    assert ran == [1]
    assert {span.name for span in telemetry.spans()} == {"unnamed.operation"}
    assert telemetry.started() == len(telemetry.spans())


def _two() -> Any:
    yield 1
    yield 2


def test_outside_of_a_request() -> None:
    """Nothing is open: binding is counted and does nothing else."""
    otel_shim.bind(org_id="acme")
    assert otel_shim.current_identity() == NOBODY
    assert counters.snapshot() == {"bind_without_root": 1}
    assert otel_shim.counters_snapshot() == {"bind_without_root": 1}


async def test_concurrent_outside_of_a_request() -> None:
    """Blocks outside of any span are their task's own."""

    async def one(org: str) -> str | None:
        with otel_shim.identity(org_id=org):
            await asyncio.sleep(0)
            return otel_shim.current_identity().org_id

    orgs = [f"org-{n}" for n in range(20)]
    assert await asyncio.gather(*map(one, orgs)) == orgs


_WITHOUT_THE_DISTRO = """
import otel_shim
otel_shim.bind(org_id="acme", user_id=1, anything=object())
with otel_shim.identity(org_id="acme"), otel_shim.operation("planning.publish"):
    assert otel_shim.current_identity().org_id == "acme"

@otel_shim.operation("planning.publish")
def publish():
    return 1

@otel_shim.operation("planning.publish")
async def apublish():
    otel_shim.bind(org_id="acme")
    return 2

@otel_shim.operation("planning.publish")
def items():
    yield 3

import asyncio
assert (publish(), asyncio.run(apublish()), list(items())) == (1, 2, [3])
assert otel_shim.current_identity() == otel_shim.Identity()
import sys
assert not {"fastapi", "starlette", "sqlalchemy"} & set(sys.modules)
"""


def test_without_the_distro() -> None:
    """In a process where nothing is configured the API works, is silent, and imports no framework."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _WITHOUT_THE_DISTRO],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_public_names_are_stable() -> None:
    """What is exported is what is promised, with these parameters."""
    assert set(otel_shim.__all__) >= {
        "bind",
        "identity",
        "current_identity",
        "operation",
        "Identity",
    }
    for function in (otel_shim.bind, otel_shim.identity):
        parameters = inspect.signature(function).parameters.values()
        assert [p.name for p in parameters] == [
            "org_id",
            "user_id",
            "actor_type",
            "actor_role",
            "plan",
            "extra",
        ]
        assert {p.kind for p in parameters} == {
            inspect.Parameter.KEYWORD_ONLY,
            inspect.Parameter.VAR_KEYWORD,
        }


def test_the_launcher_loads_next_to_nothing_of_ours() -> None:
    """Its process only starts that of the application, which loads the rest."""
    code = "import otel_shim.launcher, sys; print(*(n for n in sys.modules if n.startswith('otel_shim')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {"otel_shim", "otel_shim.launcher"}


def test_what_is_offered_is_there() -> None:
    """Each name of the public API, and no other."""
    assert all(getattr(otel_shim, name) is not None for name in otel_shim.__all__)
    assert otel_shim.counters_snapshot is counters.snapshot
    with pytest.raises(AttributeError, match="no attribute 'colour'"):
        otel_shim.colour  # noqa: B018
