"""What is wrong, worked out from what was observed. Pure: the same observation gives the same findings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from urllib.parse import urlsplit

from otel_shim.cli import endpoint
from otel_shim.cli.observation import (
    ERROR,
    FAILED,
    INFO,
    LOADED,
    SKIPPED,
    WARNING,
    Candidate,
    Choice,
    Exporter,
    Finding,
    Instrumentor,
    Observation,
)

NAME = "otel_shim"
_SOURCES = ("OTEL_SHIM_ORG_ID", "OTEL_SHIM_USER_ID", "OTEL_SHIM_ACTOR_ROLE", "OTEL_SHIM_PLAN")


def findings(seen: Observation) -> Iterator[Finding]:
    """Everything worth knowing about a loaded process."""
    if seen.disabled:
        file = seen.config_file
        if file is not None and file.disabled:
            cause, fix = f"{file.path} says disabled: true", "take that out of the file"
        else:
            cause, fix = "OTEL_SDK_DISABLED is true", "unset OTEL_SDK_DISABLED"
        yield Finding(WARNING, "disabled", f"{cause}, so there is no telemetry", fix)
        return
    for examine in _EXAMINATIONS:
        yield from examine(seen)


def _distro(seen: Observation) -> Iterator[Finding]:
    choice = seen.distro
    if choice.asked is not None and choice.asked not in _names(choice):
        yield Finding(
            ERROR,
            "distro-unknown",
            f"OTEL_PYTHON_DISTRO={choice.asked} names no installed distro ({_listed(choice)}), "
            "so the loader took its empty default without a word",
            f"set OTEL_PYTHON_DISTRO={NAME}",
        )
    elif not _ours(choice.won()):
        yield Finding(WARNING, "distro-other", _why_other(choice), f"set OTEL_PYTHON_DISTRO={NAME}")
    else:
        yield from _order(choice)


def _why_other(choice: Choice) -> str:
    won = choice.won() or choice.winner or "the loader's default"
    if choice.asked is not None:
        return f"OTEL_PYTHON_DISTRO={choice.asked} chose {won} instead of {NAME}"
    return f"the distro is {won}, not {NAME}"


def _configurator(seen: Observation) -> Iterator[Finding]:
    choice = seen.configurator
    fix = f"set OTEL_PYTHON_CONFIGURATOR={NAME}"
    if choice.winner is None:
        cause = f"no configurator ran, so there are no exporters: {_why_none(choice)}"
        yield Finding(ERROR, "configurator-none", cause, fix)
    elif not _ours(choice.won()):
        cause = f"the configurator that ran is {choice.won() or choice.winner}, not {NAME}"
        yield Finding(WARNING, "configurator-other", cause, fix)


def _why_none(choice: Choice) -> str:
    if choice.asked is not None:
        return f"OTEL_PYTHON_CONFIGURATOR={choice.asked} names none of {_listed(choice)}"
    return "the loader stopped before it"


def _order(choice: Choice) -> Iterator[Finding]:
    if choice.asked is None and len(choice.candidates) > 1:
        cause = (
            f"{len(choice.candidates)} distros are installed ({_listed(choice)}) and OTEL_PYTHON_DISTRO is "
            f"not set: opentelemetry-instrument takes {NAME}"
        )
        fix = (
            "nothing; where the loader is started otherwise, as by an injected sitecustomize, set "
            f"OTEL_PYTHON_DISTRO={NAME} and OTEL_PYTHON_CONFIGURATOR={NAME}"
        )
        yield Finding(INFO, "distro-order", cause, fix)


def _ours(candidate: Candidate | None) -> bool:
    return candidate is not None and candidate.name == NAME


def _names(choice: Choice) -> set[str]:
    return {candidate.name for candidate in choice.candidates}


def _listed(choice: Choice) -> str:
    return ", ".join(map(str, choice.candidates)) or "none is installed"


def _loader(seen: Observation) -> Iterator[Finding]:
    for line in seen.log:
        if line.message.startswith("Failed to auto initialize"):
            cause = f"the loader stopped half-way: {line.error or line.message}"
            fix = "mend what the error names; until then the application runs with little or no telemetry"
            yield Finding(ERROR, "loader-failed", cause, fix)


def _config_file(seen: Observation) -> Iterator[Finding]:
    if seen.config_file is not None and seen.config_file.problem:
        cause = f"OTEL_CONFIG_FILE={seen.config_file.path} is not used: {seen.config_file.problem}"
        fix = "mend the file, or unset OTEL_CONFIG_FILE to configure by environment variables"
        yield Finding(ERROR, "config-file", cause, fix)


def _instrumentors(seen: Observation) -> Iterator[Finding]:
    for one in seen.instrumentors:
        if one.state == FAILED:
            cause = f"the instrumentor {one.name} ({one.distribution} {one.version}) failed: {one.detail}"
            fix = f"upgrade {one.distribution}, or add {one.name} to OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"
            yield Finding(ERROR, "instrumentor-failed", cause, fix)
        elif one.state == SKIPPED and one.reason == "disabled":
            cause = f"the instrumentor {one.name} is switched off"
            fix = "nothing, if that is meant; else OTEL_PYTHON_DISABLED_INSTRUMENTATIONS or the file says so"
            yield Finding(INFO, "instrumentor-disabled", cause, fix)
    limited = [one for one in seen.instrumentors if one.reason == "limits"]
    for _, same in groupby(limited, key=lambda one: (one.distribution, one.version, one.detail)):
        yield _limited(tuple(same))


def _absent(seen: Observation) -> Iterator[Finding]:
    for target in seen.absent:
        cause = f"{target} is not there in the installed version, so what it does is not captured"
        fix = f"install a version of {target.partition('.')[0]} that docs/ names as supported, or report this"
        yield Finding(WARNING, "capture-absent", cause, fix)


def _limited(same: Sequence[Instrumentor]) -> Finding:
    """One package may hold several instrumentors; its limits are one reason."""
    names, one = " and ".join(i.name for i in same), same[0]
    cause = f"{names} ({one.distribution} {one.version}) is skipped: {one.detail}"
    fix = f"install a version of the library in that range, or another {one.distribution}"
    return Finding(WARNING, "instrumentor-skipped", cause, fix)


def _doubles(seen: Observation) -> Iterator[Finding]:
    yield from _double_spans("request", seen.trial.request_spans)
    yield from _double_spans("query", seen.trial.query_spans)
    ours = [s for s in seen.trial.query_spans or () if s.endswith(f"by {NAME}.sqlalchemy")]
    twice = [i.name for i in seen.instrumentors if i.name == "sqlalchemy" and i.state == LOADED]
    if twice and len(ours) == 1 == len(seen.trial.query_spans or ()):
        yield _double("one of the application's engines is instrumented by sqlalchemy's too")


def _double_spans(work: str, spans: Sequence[str] | None) -> Iterator[Finding]:
    if spans is not None and len(spans) > 1:
        yield _double(f"one {work} gave {len(spans)} spans: {', '.join(spans)}")


def _double(what: str) -> Finding:
    return Finding(
        ERROR,
        "double-tracing",
        f"something is traced twice: {what}",
        "take the instrument() calls out of the application, or list the instrumentor in "
        "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS",
    )


def _silent(seen: Observation) -> Iterator[Finding]:
    off = {one.name for one in seen.instrumentors if one.reason == "disabled"}
    for name, spans in (
        ("fastapi", seen.trial.request_spans),
        ("sqlalchemy", seen.trial.query_spans),
    ):
        if spans == () and name not in off:
            cause = f"{name} is installed, but work done with it gave no span"
            fix = "look at the other findings first; then report it with this report's --json"
            yield Finding(ERROR, "not-traced", cause, fix)
    if seen.trial.request_spans and not seen.trial.request_stamped:
        cause = "a request gave a span, but it has no identity: the shim is not at work"
        yield Finding(ERROR, "not-stamped", cause, "look at the other findings first")


def _handlers(seen: Observation) -> Iterator[Finding]:
    records = seen.trial.log_records
    if records is not None and records > 1:
        where = "; ".join(f"{h.kind} on the logger {h.logger}" for h in seen.handlers) or "unknown"
        cause = f"one log record was sent {records} times, because of handlers beside the shim's: {where}"
        fix = (
            "take LoggingHandler out of the application's logging configuration and unset "
            "OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED; the shim sends every record itself"
        )
        yield Finding(ERROR, "second-handler", cause, fix)


def _exporters(seen: Observation) -> Iterator[Finding]:
    for problem, host in sorted({(e.problem, _host(e)) for e in seen.exporters if e.problem}):
        same = [e for e in seen.exporters if e.problem == problem and _host(e) == host]
        yield _dead(problem, host, same)
    yield from _several(seen)
    present = {e.signal for e in seen.exporters}
    for signal in ("traces", "metrics", "logs"):
        if signal not in present and seen.configurator.winner is not None:
            cause = f"no exporter is configured for {signal}"
            fix = f"nothing, if that is meant; else unset OTEL_{signal.upper()}_EXPORTER"
            yield Finding(INFO, "no-exporter", cause, fix)


def _several(seen: Observation) -> Iterator[Finding]:
    addressed = sorted((e.signal, e.endpoint) for e in seen.exporters if e.endpoint)
    for (signal, address), same in groupby(addressed):
        if (count := len(list(same))) > 1:
            cause = (
                f"{count} exporters send {signal} to {address}, so everything arrives {count} times"
            )
            fix = f"take the application's own exporter out, or set OTEL_{signal.upper()}_EXPORTER=none"
            yield Finding(ERROR, "second-exporter", cause, fix)


def _host(exporter: Exporter) -> str:
    return urlsplit(exporter.endpoint).netloc or exporter.endpoint


def _dead(problem: str, host: str, same: Sequence[Exporter]) -> Finding:
    signals = ", ".join(dict.fromkeys(e.signal for e in same))
    detail = same[0].detail
    if problem == endpoint.UNREACHABLE:
        cause = f"{signals} cannot be exported: nothing usable answers at {host} ({detail})"
        fix = "start the Collector there, or set OTEL_EXPORTER_OTLP_ENDPOINT to where it listens"
        return Finding(ERROR, "exporter-unreachable", cause, fix)
    if problem == endpoint.REFUSED:
        cause = f"{signals} cannot be exported: {host} refuses the credentials ({detail})"
        return Finding(ERROR, "exporter-refused", cause, "mend OTEL_EXPORTER_OTLP_HEADERS")
    cause = f"{signals} cannot be exported: {same[0].endpoint} is no OTLP endpoint ({detail})"
    fix = f"mend the path or port, or set OTEL_{same[0].signal.upper()}_EXPORTER=none"
    return Finding(ERROR, "exporter-answer", cause, fix)


def _protobuf(seen: Observation) -> Iterator[Finding]:
    if seen.protobuf == "python":
        cause = "protobuf runs in pure Python, so that encoding takes many times the CPU"
        fix = "unset PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION and reinstall protobuf from a binary wheel"
        yield Finding(WARNING, "protobuf-python", cause, fix)


def _key(seen: Observation) -> Iterator[Finding]:
    key = seen.key
    if key.state == "unusable":
        cause = (
            f"there is no key for pseudonyms, so user.hash is left out ({key.where}: {key.problem})"
        )
        fix = "set OTEL_SHIM_SECRET, or OTEL_SHIM_STATE_DIRECTORY to a directory that the service can write"
        yield Finding(ERROR, "key-unusable", cause, fix)
    elif key.state == "host":
        cause = f"the key for pseudonyms is this host's own, in {key.where}"
        cause += ", made by this run as the application's first start would have" * key.made
        fix = "set OTEL_SHIM_SECRET to the same on every host, or a user has another user.hash on each"
        yield Finding(INFO, "key-host", cause, fix)
    if key.mode and key.mode[-2:] != "00":
        cause = f"others than its owner may read the key in {key.where} (mode {key.mode})"
        yield Finding(WARNING, "key-mode", cause, "chmod 600 the file")


def _settings(seen: Observation) -> Iterator[Finding]:
    for error in seen.config_errors:
        if error.startswith("OTEL_CONFIG_FILE"):
            continue  # has a finding of its own
        code = "bad-source" if error.startswith(_SOURCES) else "bad-setting"
        cause, _, fix = error.partition("; ")
        yield Finding(ERROR, code, cause, fix or "mend the setting")


def _service(seen: Observation) -> Iterator[Finding]:
    if seen.service_name.startswith("unknown_service"):
        cause = f"the service has no name, so its telemetry is that of {seen.service_name}"
        yield Finding(WARNING, "no-service-name", cause, "set OTEL_SERVICE_NAME")


def _app(seen: Observation) -> Iterator[Finding]:
    app = seen.app
    if app is None:
        return
    if app.problem:
        cause = f"the application {app.target} cannot be imported: {app.problem}"
        fix = f"run python -c 'import {app.target.partition(':')[0]}' and mend what it says"
        yield Finding(ERROR, "app-import", cause, fix)
    elif app.dependencies and not matching(seen):
        cause = "no dependency of the application has a name that a source knows"
        fix = (
            "set OTEL_SHIM_ORG_ID and OTEL_SHIM_USER_ID to where they are, or call otel_shim.bind()"
        )
        yield Finding(INFO, "no-source-matches", cause, fix)


def matching(seen: Observation) -> tuple[str, ...]:
    """The sources over dependencies whose name the application has."""
    names = set(seen.app.dependencies) if seen.app is not None else set()
    return tuple(s for s in seen.sources if _dependency(s) in names)


def _dependency(source: str) -> str | None:
    kind, _, path = source.rpartition(" ")[2].partition(":")
    return path.partition(".")[0] if kind == "dependency" else None


_EXAMINATIONS: tuple[Callable[[Observation], Iterator[Finding]], ...] = (
    _loader,
    _config_file,
    _distro,
    _configurator,
    _exporters,
    _instrumentors,
    _absent,
    _doubles,
    _silent,
    _handlers,
    _settings,
    _key,
    _protobuf,
    _service,
    _app,
)
