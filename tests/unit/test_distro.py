"""otel_shim.distro: defaults only where the operator left them open, and a process that always starts."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.instrumentation.distro import BaseDistro  # type: ignore[attr-defined]
from opentelemetry.instrumentation.instrumentor import (  # type: ignore[attr-defined]
    BaseInstrumentor,
)

from otel_shim import config, context, distro, steering, wiring
from otel_shim.model import Identity
from otel_shim.signals.logs import IdentityLogRecordProcessor
from otel_shim.signals.spans import IdentitySpanProcessor
from tests.unit.telemetry import Telemetry

IDENTITY = Identity("acme", "ada")


@pytest.fixture(autouse=True)
def _wiring_is_read_anew() -> Any:
    wiring.wiring.cache_clear()
    yield
    wiring.wiring.cache_clear()


def test_defaults_are_never_over_what_is_set() -> None:
    """An operator's choice stands, an empty one too."""
    environ = {"OTEL_TRACES_EXPORTER": "console", "OTEL_LOGS_EXPORTER": ""}
    distro.set_defaults(environ)
    assert environ["OTEL_TRACES_EXPORTER"] == "console" and environ["OTEL_LOGS_EXPORTER"] == ""
    assert environ["OTEL_EXPORTER_OTLP_PROTOCOL"] == "http/protobuf"
    assert environ["OTEL_PYTHON_CONFIGURATOR"] == "otel_shim"


def _settings(**environ: str) -> config.Config:
    return config.from_environ(environ)


def test_operators_secret_gives_pseudonyms(caplog: pytest.LogCaptureFixture) -> None:
    """The stamp of the process makes ``user.hash`` with it, and warns of nothing."""
    distro._use_identity(_settings(OTEL_SHIM_SECRET="s" * 32))
    assert context._stamp(IDENTITY)["user.hash"]
    assert caplog.records == []


@pytest.mark.parametrize("case", ["short", "missing file", "no place", "no home"])
def test_without_a_key_there_is_no_hash_and_one_error(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever is wrong with the key, the application starts, and the error says what to do."""
    environ: dict[str, str] = {}
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("OTEL_SHIM_STATE_DIRECTORY", str(tmp_path / "file" / "state"))
    if case == "short":
        environ["OTEL_SHIM_SECRET"] = "short"
    elif case == "missing file":
        environ["OTEL_SHIM_SECRET_FILE"] = str(tmp_path / "missing")
    elif case == "no home":
        monkeypatch.delenv("OTEL_SHIM_STATE_DIRECTORY")
        monkeypatch.delenv("XDG_STATE_HOME", raising=False)
        monkeypatch.setattr("os.geteuid", lambda: 12345)
        monkeypatch.setattr(Path, "home", classmethod(_no_home))
    distro._use_identity(_settings(**environ))
    assert context._stamp(IDENTITY) == {"saas.org.id": "acme", "saas.actor.type": "user"}
    (error,) = caplog.records
    assert error.levelno == logging.ERROR
    assert "user.hash is left out" in error.getMessage()
    assert "short" not in error.getMessage().replace("too short", "")


def _no_home(_: type[Path]) -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_made_secret_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The process that makes the host's secret warns; those after it read it in silence."""
    monkeypatch.setenv("OTEL_SHIM_STATE_DIRECTORY", str(tmp_path))
    distro._use_identity(_settings())
    first = context._stamp(IDENTITY)
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert str(tmp_path) in caplog.text and "OTEL_SHIM_SECRET" in caplog.text
    distro._use_identity(_settings())
    assert context._stamp(IDENTITY) == first and len(caplog.records) == 1
    assert (tmp_path / "secret").read_text() not in caplog.text


def test_clear_ids_are_the_operators_choice() -> None:
    """``OTEL_SHIM_USER_IDENTITY=clear`` puts ``user.id`` in place of the pseudonym."""
    distro._use_identity(_settings(OTEL_SHIM_SECRET="s" * 32, OTEL_SHIM_USER_IDENTITY="clear"))
    assert context._stamp(IDENTITY)["user.id"] == "ada"
    assert "user.hash" not in context._stamp(IDENTITY)


def test_processors_are_attached_once(telemetry: Telemetry) -> None:
    """Whoever attached them, a second time changes nothing."""
    for _ in range(2):
        distro._attach_processors()
    spans = telemetry.tracers._active_span_processor._span_processors
    logs = telemetry.loggers._multi_log_record_processor._log_record_processors
    assert [isinstance(p, IdentitySpanProcessor) for p in spans].count(True) == 1
    assert [isinstance(p, IdentityLogRecordProcessor) for p in logs].count(True) == 1
    assert isinstance(logs[0], IdentityLogRecordProcessor)


def test_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """With ``OTEL_SDK_DISABLED`` nothing is wired."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", " True ")
    monkeypatch.setattr(distro, "_use_identity", _must_not_run)
    monkeypatch.setattr(logging.Logger, "callHandlers", logging.Logger.callHandlers)
    before = logging.Logger.callHandlers
    distro.pre_instrument()
    distro.post_instrument()
    assert logging.Logger.callHandlers is before


def _must_not_run(*_: Any) -> None:
    raise AssertionError("wired though switched off")


@pytest.mark.parametrize(
    ("name", "loaded"),
    [
        ("sqlalchemy", False),
        ("logging", False),
        ("fastapi", False),
        ("httpx", True),
        ("redis", False),
    ],
)
def test_instrumentors(name: str, loaded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those whose work we do and those switched off are not loaded; any other is."""
    monkeypatch.setenv("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "redis, celery")
    seen: list[str] = []
    monkeypatch.setattr(BaseDistro, "load_instrumentor", lambda self, ep, **_: seen.append(ep.name))
    distro.ShimDistro().load_instrumentor(SimpleNamespace(name=name, module=""))  # type: ignore[arg-type]
    assert seen == ([name] if loaded else [])


class _Defined(BaseInstrumentor):  # type: ignore[misc]
    """An instrumentor that notes what it is told; its entry point may say what it likes of it."""

    def instrumentation_dependencies(self) -> list[str]:
        return []

    def _instrument(self, **_: Any) -> None: ...

    def _uninstrument(self, **_: Any) -> None: ...


class _Sibling(_Defined):
    """Another one in the same module."""


HERE = __name__


@pytest.mark.parametrize(
    ("disabled", "installed", "loaded"),
    [
        ("", [("elsewhere", "else.where", "_Defined")], True),  # defined here, offered from there
        (" ,redis,", [], True),
        ("*", [], False),
        ("first", [("first", HERE, "_Defined"), ("second", HERE, "_Sibling")], False),
        ("second", [("first", HERE, "_Defined"), ("second", HERE, "_Sibling")], True),
        ("first", [("second", HERE, "_Sibling"), ("first", HERE, "_Defined")], False),
        ("one", [("one", HERE, "made_by_a_function")], False),  # nobody else is in the module
        ("one", [("one", HERE, "a_function"), ("two", HERE, "another")], True),
    ],
)
def test_an_instrumentor_goes_by_the_name_of_its_entry_point(
    disabled: str,
    installed: list[tuple[str, str, str]],
    loaded: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Several may be in one module; one that has no name is not switched off by it."""
    monkeypatch.setenv("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", disabled)
    found = [SimpleNamespace(name=n, module=m, attr=a) for n, m, a in installed]
    monkeypatch.setattr(steering, "entry_points", lambda **_: found)
    done: list[Any] = []
    monkeypatch.setattr(steering, "_instrument", lambda self, **_: done.append(self))
    monkeypatch.setattr(BaseInstrumentor, "instrument", BaseInstrumentor.instrument)
    steering.steer(wiring.wiring())
    made = _Defined()
    made.instrument()
    assert done == ([made] if loaded else [])


def test_misspelt_names_are_said() -> None:
    """A distro that nobody has would be replaced without a word."""
    (error,) = steering.misspelt({"OTEL_PYTHON_DISTRO": "otel_shmi"})
    assert (
        error.startswith("OTEL_PYTHON_DISTRO=otel_shmi is not installed") and "otel_shim" in error
    )
    assert list(steering.misspelt({"OTEL_PYTHON_CONFIGURATOR": "otel_shim"})) == []
