"""otel_shim.queues: what is taken for a queue, a reading and an item."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import otel_shim
from otel_shim import QueueReading, counters, queues


class Told:
    """A meter that keeps what it is told."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str, float]] = []

    def enqueued(self, queue: str, items: int) -> None:
        self.heard.append(("enqueued", queue, items))

    def taken(self, queue: str, waited_seconds: float) -> None:
        self.heard.append(("taken", queue, waited_seconds))

    def finished(self, queue: str, items: int) -> None:
        self.heard.append(("finished", queue, items))


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "_reads", {})
    monkeypatch.setattr(queues, "_names", set())
    monkeypatch.setattr(queues, "_silent", False)


@pytest.fixture
def told() -> Iterator[Told]:
    meter = Told()
    before = queues.use_meter(meter)
    yield meter
    queues.use_meter(before)


class TestItems:
    def test_they_are_told(self, told: Told) -> None:
        """What goes through a queue reaches the meter, one item unless more are said."""
        otel_shim.enqueued("calendar.sync", 3)
        otel_shim.taken("calendar.sync", 1.5)
        otel_shim.finished("calendar.sync")
        assert told.heard == [
            ("enqueued", "calendar.sync", 3),
            ("taken", "calendar.sync", 1.5),
            ("finished", "calendar.sync", 1),
        ]

    def test_clocks_that_differ_make_no_negative_wait(self, told: Told) -> None:
        """An item that was taken before it was put in, by the clocks, waited not at all."""
        otel_shim.taken("calendar.sync", -0.3)
        assert told.heard == [("taken", "calendar.sync", 0.0)]

    @pytest.mark.parametrize("items", [-1, 1.5, "2", None, 1 << 70])
    def test_what_is_no_count_is_counted_as_such(self, told: Told, items: object) -> None:
        """A number of items that cannot be is left out, and the application goes on."""
        otel_shim.enqueued("calendar.sync", items)  # type: ignore[arg-type]
        assert told.heard == []
        assert counters.snapshot()["queue_rejected"] == 1

    @pytest.mark.parametrize("seconds", [float("nan"), float("inf")])
    def test_what_is_no_time_is_counted_as_such(self, told: Told, seconds: float) -> None:
        """A wait that no histogram can hold is left out."""
        otel_shim.taken("calendar.sync", seconds)
        assert told.heard == []
        assert counters.snapshot()["queue_rejected"] == 1

    def test_without_a_meter_nothing_happens(self) -> None:
        """The functions are safe where nothing is configured."""
        before = queues.use_meter(None)
        otel_shim.enqueued("calendar.sync")
        otel_shim.taken("calendar.sync", 1.0)
        otel_shim.finished("calendar.sync")
        queues.use_meter(before)


class TestNames:
    def test_more_names_than_can_be_told_apart_are_one(self, told: Told) -> None:
        """An application that makes a queue for each customer does not make a series for each."""
        for number in range(queues.MOST_NAMES + 5):
            otel_shim.enqueued(f"customer-{number}")
        names = [name for _, name, _ in told.heard]
        assert len(set(names)) == queues.MOST_NAMES + 1
        assert names[-5:] == [queues.OTHER] * 5

    def test_a_name_that_is_none_is_the_other(self, told: Told) -> None:
        """A name that no label can be is not passed on."""
        otel_shim.enqueued("a\nb")
        assert told.heard == [("enqueued", queues.OTHER, 1)]

    def test_a_long_name_is_cut(self, told: Told) -> None:
        """A label has at most 64 characters."""
        otel_shim.enqueued("q" * 200)
        assert told.heard == [("enqueued", "q" * 64, 1)]


class TestRegistry:
    def test_the_last_of_a_name_counts(self) -> None:
        """A queue that is declared again, by a module that was loaded again, is read once."""
        otel_shim.queue("calendar.sync", lambda: QueueReading(ready=1))
        otel_shim.queue("calendar.sync", lambda: QueueReading(ready=2))
        assert [read() for read in queues.registered().values()] == [QueueReading(ready=2)]

    def test_what_cannot_be_called_is_refused(self) -> None:
        """A reading in place of a function to read is said and counted."""
        otel_shim.queue("calendar.sync", QueueReading(ready=1))  # type: ignore[arg-type]
        assert queues.registered() == {}
        assert counters.snapshot()["queue_rejected"] == 1

    def test_a_silent_process_reads_nothing(self) -> None:
        """A process that does one job for its parent leaves the reading to that."""
        otel_shim.queue("calendar.sync", QueueReading)
        queues.silence()
        otel_shim.queue("mail", QueueReading)
        assert queues.registered() == {}


class TestChecked:
    def test_an_empty_queue_has_no_age(self) -> None:
        """Where nothing waits, the oldest item has waited for 0 seconds, so that alerts resolve."""
        assert queues.checked(QueueReading(ready=0)).oldest_age == 0.0

    def test_what_is_unknown_stays_unknown(self) -> None:
        """Items whose age nobody knows have none, not 0."""
        assert queues.checked(QueueReading(ready=3)).oldest_age is None

    @pytest.mark.parametrize("value", [-1, float("nan"), "7", object()])
    def test_what_cannot_be_true_is_left_out(self, value: object) -> None:
        """A wrong number is left out and counted; the others of the reading stay."""
        reading = queues.checked(QueueReading(ready=2, dead=value))  # type: ignore[arg-type]
        assert reading == QueueReading(ready=2)
        assert counters.snapshot()["queue_rejected"] == 1

    def test_what_is_no_reading_is_an_error(self) -> None:
        """A function that forgets to return is unreadable, not empty."""
        with pytest.raises(TypeError, match="NoneType"):
            queues.checked(None)
