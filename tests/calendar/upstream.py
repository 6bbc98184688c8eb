"""The own tests of caldav and icalendar, without and with our instrumentors: each must end alike.

    python -m tests.calendar.upstream [--sample]

The source distributions come from the package index and stay in the build folder, with an environment
of their own. caldav's tests start Radicale and Xandikos themselves. Not all tests of servers are steady:
where one ends differently, all run once more, both ways. One that ended alike without us both times, and differently
with us both times, is a failure. ``--sample`` runs a fixed part, for every change.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree as ET

from tests.wheel import ROOT, build_wheel, run_uv

BUILD = ROOT / ".build" / "upstream"
PYTHON = BUILD / "env" / "bin" / "python"
PLUGIN = Path(__file__).resolve().parent / "plugin"
"""A folder of its own: those tests have modules called like ours."""
NEEDED = (
    *("pip", "hatchling", "hatch-vcs"),
    *("manuel", "proxy.py", "tzlocal", "pyfakefs", "httpxyz", "vobject"),
    *("hypothesis", "pytz", "coverage", "pytest-timeout"),
)
SAMPLE_ICALENDAR = tuple(
    f"src/icalendar/tests/test_{name}.py"
    for name in (
        *("issue_1050_lazy_calendar", "issue_1050_lazy_parsing", "parsing", "encoding", "multiple"),
        *(
            "error_tolerant_parsing",
            "components_break_on_bad_ics",
            "ical_parsing_error",
            "unit_cal",
        ),
        *("issue_348_exception_parsing_value", "issue_1436_implicit_file_read", "bom_calendar"),
    )
)
SAMPLE_CALDAV = (
    "tests/test_sync_token_fallback.py",
    "tests/test_vcal.py",
    "tests/test_async_davclient.py",
    "tests/test_caldav_unit.py",
    "tests/test_caldav.py::TestForServerRadicale::testObjectBySyncToken",
    "tests/test_caldav.py::TestForServerRadicale::testSync",
)
CALDAV_OPTIONS = ("-o", "asyncio_default_fixture_loop_scope=function", "--timeout=300")
Outcomes = Mapping[str, str]


@dataclass(frozen=True)
class Suite:
    """The tests of a distribution, and how pytest is to run them."""

    distribution: str
    version: str
    arguments: tuple[str, ...]
    wrapped: frozenset[str]
    """What of ours must have been at work."""
    sample: tuple[str, ...]
    """The arguments for a part, for every change."""

    @property
    def folder(self) -> Path:
        """Where its sources are."""
        return BUILD / f"{self.distribution}-{self.version}"


SUITES = (
    Suite("icalendar", "7.3.0", (), frozenset({"Calendar.from_ical"}), SAMPLE_ICALENDAR),
    Suite(
        "caldav",
        "3.6.0",
        ("tests", *CALDAV_OPTIONS),
        frozenset(
            {
                *("Calendar.from_ical", "Calendar.get_objects"),
                *("SynchronizableCalendarObjectCollection.sync", "DAVClient._sync_request"),
                *("AsyncDAVClient._async_request", "Session.send", "AsyncSession.send"),
            }
        ),
        (*SAMPLE_CALDAV, *CALDAV_OPTIONS),
    ),
)


def main() -> int:
    """Run all suites both ways; returns 0 where nothing differs."""
    prepare()
    suites = [sampled(suite) for suite in SUITES] if "--sample" in sys.argv else SUITES
    differing = [name for suite in suites for name in compare(suite)]
    for name in differing:
        print(f"differs: {name}")
    return 1 if differing else 0


def sampled(suite: Suite) -> Suite:
    """The part of a suite that runs for every change."""
    return replace(suite, arguments=suite.sample)


def prepare() -> None:
    """An environment with clients, servers, what their tests need, and our package."""
    if not PYTHON.exists():
        run_uv("venv", "--quiet", str(BUILD / "env"))
    locked = run_uv(
        *("export", "--frozen", "--quiet", "--no-emit-project", "--no-default-groups"),
        *("--group", "calendar"),
    )
    install = ("pip", "install", "--quiet", "--python", str(PYTHON))
    run_uv(*install, "--requirements", "-", stdin=locked)
    # The wheel, not the sources: caldav has folders called like ours.
    run_uv(*install, "--reinstall-package", "otel-shim", str(build_wheel()), *NEEDED)
    for suite in SUITES:
        if not suite.folder.exists():
            download(suite)


def download(suite: Suite) -> None:
    """Fetch and unpack a source distribution."""
    what = f"{suite.distribution}=={suite.version}"
    argv = (str(PYTHON), "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:")
    subprocess.run([*argv, "--no-build-isolation", what, "-d", str(BUILD)], check=True)
    with tarfile.open(f"{suite.folder}.tar.gz") as archive:
        archive.extractall(BUILD, filter="data")


def compare(suite: Suite) -> list[str]:
    """The tests that end differently with our instrumentors."""
    without, instrumented = both(suite)
    suspects = changed(without, instrumented)
    if not suspects:
        return []
    print(f"  once more, for {len(suspects)}: {', '.join(sorted(suspects)[:5])} …")
    without_again, instrumented_again = both(suite)
    found = [
        name
        for name in sorted(suspects)
        if without.get(name) == without_again.get(name) != instrumented_again.get(name)
    ]
    return [
        f"{suite.distribution} {name}: {without.get(name)}, {instrumented.get(name)}"
        for name in found
    ]


def both(suite: Suite) -> tuple[Outcomes, Outcomes]:
    """The outcomes without and with, of a run in which ours was at work and nothing of it failed."""
    without, _ = run(suite, instrumented=False)
    instrumented, said = run(suite, instrumented=True)
    report(suite, "without", without)
    report(suite, "with", instrumented)
    print(f"  {said}")
    ran = sum(outcome == "passed" for outcome in without.values())
    assert ran > 20, f"only {ran} tests of {suite.distribution} passed without us"
    assert "internal errors: 0" in said, "something of ours failed"
    wrapped = said.partition("wrapped: ")[2].partition(";")[0].split(", ")
    assert suite.wrapped <= set(wrapped), f"not at work: {suite.wrapped - set(wrapped)}"
    assert re.search(r"\d+ calendar\.synchronize", said), "nothing was synchronised under us"
    return without, instrumented


def changed(one: Outcomes, other: Outcomes) -> set[str]:
    """The tests that ended differently, or only in one of the runs."""
    return {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)}


def run(suite: Suite, *, instrumented: bool) -> tuple[Outcomes, str]:
    """The outcome of each test, and what our plugin said at the end."""
    results = BUILD / f"{suite.distribution}-{'with' if instrumented else 'without'}.xml"
    results.unlink(missing_ok=True)
    plugin = ("-p", "otel_shim_upstream") if instrumented else ()
    argv = (str(PYTHON), "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:otel_shim")
    done = subprocess.run(
        [*argv, *plugin, *suite.arguments, f"--junitxml={results}"],
        cwd=suite.folder,
        env={**os.environ, "PYTHONPATH": str(PLUGIN), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert results.exists(), done.stdout[-2000:] + done.stderr[-2000:]
    said = re.findall(
        r"^(wrapped: .*|instrumented: .*|internal errors: \d+)$", done.stdout, re.MULTILINE
    )
    return outcomes(results), "; ".join(said)


def outcomes(results: Path) -> Outcomes:
    """Test to outcome, from a report in JUnit's format."""
    found: dict[str, str] = {}
    for case in ET.parse(results).iter("testcase"):
        kinds = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
        found[f"{case.get('classname')}::{case.get('name')}"] = kinds[0] if kinds else "passed"
    return found


def report(suite: Suite, how: str, found: Outcomes) -> None:
    """Print the counts of one run."""
    counts: Sequence[tuple[str, int]] = Counter(found.values()).most_common()
    print(
        f"{suite.distribution} {suite.version} {how}: " + ", ".join(f"{n} {k}" for k, n in counts)
    )
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
