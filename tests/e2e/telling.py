"""What a run of the tests says at its end: the table of the matrix, and figures that nothing is asserted of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest

from . import matrix

OUTCOME, FIGURE = "outcome", "figure"
"""Under which a test records what came of a cell, and a line that is to be read."""


@dataclass
class Telling:
    """A plugin of the process that tells; with pytest-xdist the tests run in others."""

    chosen: tuple[matrix.Cell, ...] = ()
    results: dict[str, str] = field(default_factory=dict)
    figures: list[str] = field(default_factory=list)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note which cells this run has, where it runs the tests itself."""
        self._choose(item.nodeid for item in session.items)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        """Note the same where others run them: each of them finds all tests."""
        self._choose(ids)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note what came of a test."""
        if report.when != "call" and report.passed:
            return
        said = [(name, str(value)) for name, value in report.user_properties]
        self.figures += [value for name, value in said if name == FIGURE]
        outcome = dict(said).get(OUTCOME, matrix.RED)
        self.results[report.nodeid] = outcome if report.passed else matrix.RED

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """A cell that did not run is a failure, whatever kept it from running."""
        unfinished = not session.config.option.collectonly and self._lacking()
        if unfinished and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the matrix, where this run has any of its cells, and the figures."""
        if self.chosen and not terminalreporter.config.option.collectonly:
            terminalreporter.section("loader x server x framework")
            for line in matrix.table(self._rows()):
                terminalreporter.line(line)
        for figure in self.figures:
            terminalreporter.line(figure)

    def _choose(self, ids: Iterable[str]) -> None:
        wanted = set(ids)
        self.chosen = tuple(cell for cell in matrix.cells() if cell.nodeid in wanted)

    def _rows(self) -> list[tuple[matrix.Cell, str]]:
        return [(cell, self.results.get(cell.nodeid, matrix.NOT_RUN)) for cell in self.chosen]

    def _lacking(self) -> bool:
        return any(result in (matrix.RED, matrix.NOT_RUN) for _, result in self._rows())
