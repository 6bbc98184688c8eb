"""The own tests of caldav and icalendar, without and with our instrumentors: each must end alike.

The source distributions come from the package index and stay in the build folder, with an environment
of their own. caldav's tests start Radicale and Xandikos themselves. A test that ends differently is run
again alone, both ways, because tests of servers are not all steady; what differs again is a failure.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
Outcomes = Mapping[str, str]


@dataclass(frozen=True)
class Suite:
    """The tests of a distribution, and how pytest is to run them."""

    distribution: str
    version: str
    arguments: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """Where its sources are."""
        return BUILD / f"{self.distribution}-{self.version}"


SUITES = (
    Suite("icalendar", "7.3.0", ()),
    Suite(
        "caldav",
        "3.6.0",
        ("tests", "-o", "asyncio_default_fixture_loop_scope=function", "--timeout=300"),
    ),
)


def main() -> int:
    """Run all suites both ways; returns 0 where nothing differs."""
    prepare()
    differing = [name for suite in SUITES for name in compare(suite)]
    for name in differing:
        print(f"differs: {name}")
    return 1 if differing else 0


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
    without, _ = run(suite, instrumented=False)
    instrumented, said = run(suite, instrumented=True)
    report(suite, "without", without)
    report(suite, "with", instrumented)
    print(f"  {said}")
    assert without, f"no test of {suite.distribution} was run"
    assert "internal errors: 0" in said, "something of ours failed"
    assert "wrapped: nothing" not in said, "our instrumentors were not at work"
    suspects = [
        name
        for name in without.keys() | instrumented.keys()
        if without.get(name) != instrumented.get(name)
    ]
    return [f"{suite.distribution} {name}" for name in sorted(suspects) if differs(suite, name)]


def differs(suite: Suite, name: str) -> bool:
    """Whether a test ends differently when it is run alone too."""
    alone = Suite(suite.distribution, suite.version, (*suite.arguments[1:], "-k", selector(name)))
    without, _ = run(alone, instrumented=False)
    instrumented, _ = run(alone, instrumented=True)
    print(f"  {name}: without {without.get(name)}, with {instrumented.get(name)}")
    return without.get(name) != instrumented.get(name)


def selector(name: str) -> str:
    """What selects a test by ``-k``."""
    parts = re.split(r"\W+", name.partition("[")[0].rpartition("::")[2])
    return " and ".join(part for part in parts if part)


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
