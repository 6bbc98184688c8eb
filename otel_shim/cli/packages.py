"""What is installed: packages that overwrite each other's files, and versions that do not go together."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import Distribution, distributions

from packaging.version import InvalidVersion, Version

from otel_shim.cli.observation import ERROR, WARNING, Finding

OLDEST: Mapping[str, str] = {"fastapi": "0.110", "sqlalchemy": "2.0"}
"""The oldest versions that are supported."""
_STABLE = re.compile(r"opentelemetry-(api|sdk|proto|exporter-otlp(-proto-(common|http|grpc))?)")
_BETA = re.compile(r"opentelemetry-(instrumentation.*|semantic-conventions|distro|util-http)")
_BETA_VERSION = re.compile(r"0\.\d+b\d+")
_SHOWN = 3


def installed() -> tuple[Distribution, ...]:
    """The distributions of this interpreter; of those with one name the first, which is imported."""
    found: dict[str, Distribution] = {}
    for distribution in distributions():
        found.setdefault(_key(distribution), distribution)
    return tuple(found.values())


def findings(all_installed: Iterable[Distribution]) -> Iterator[Finding]:
    """What is wrong with a set of packages."""
    versions = {_key(d): d.version for d in all_installed}
    yield from _too_old(versions)
    yield from _mixed(versions)
    yield from _clobbered(all_installed)


def _key(distribution: Distribution) -> str:
    return re.sub(r"[-_.]+", "-", distribution.metadata["Name"] or "").lower()


def _too_old(versions: Mapping[str, str]) -> Iterator[Finding]:
    for name, oldest in OLDEST.items():
        if name in versions and _older(versions[name], oldest):
            cause = f"{name} {versions[name]} is installed, and {oldest} is the oldest that is supported"
            yield Finding(
                ERROR, "package-too-old", cause, f"pip install --upgrade '{name}>={oldest}'"
            )


def _older(version: str, oldest: str) -> bool:
    try:
        return Version(version) < Version(oldest)
    except InvalidVersion:
        return False


def _mixed(versions: Mapping[str, str]) -> Iterator[Finding]:
    """The packages of one OpenTelemetry release need each other: private hooks change between them."""
    stable = {n: v for n, v in versions.items() if _STABLE.fullmatch(n)}
    beta = {n: v for n, v in versions.items() if _BETA.fullmatch(n) and _BETA_VERSION.fullmatch(v)}
    for group in (stable, beta):
        if len(set(group.values())) > 1:
            yield Finding(
                WARNING,
                "packages-mixed",
                f"packages of different OpenTelemetry releases are installed together: {_listed(group)}",
                "install all of them in one version, for example by a lock file",
            )


def _listed(group: Mapping[str, str]) -> str:
    """Each version with the packages that have it."""
    by_version: dict[str, list[str]] = defaultdict(list)
    for name, version in sorted(group.items()):
        by_version[version].append(name)
    parts = [f"{version} ({_some(names)})" for version, names in sorted(by_version.items())]
    return ", ".join(parts)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _clobbered(all_installed: Iterable[Distribution]) -> Iterator[Finding]:
    """Packages that installed a file at the same place: the later one won, the earlier is broken."""
    by_owners: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for path, owners in _owners(all_installed).items():
        if len(owners) > 1:
            by_owners[tuple(sorted(owners))].append(path)
    for shared, paths in sorted(by_owners.items()):
        yield Finding(
            ERROR,
            "packages-clobbered",
            f"{' and '.join(shared)} both installed {_some(sorted(paths))}, so one overwrote the other",
            f"uninstall all of {', '.join(shared)}, then install the one that is wanted",
        )


def _owners(all_installed: Iterable[Distribution]) -> Mapping[str, set[str]]:
    owners: dict[str, set[str]] = defaultdict(set)
    for distribution in all_installed:
        for file in distribution.files or ():
            path = file.as_posix()
            if path.startswith("opentelemetry/") and "__pycache__" not in path:
                owners[path].add(_key(distribution))
    return owners
