"""otel_shim.capture.rq and rq_horse: what a job carries, and what a horse tells its worker."""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from rq import Retry

from otel_shim import _semconv as semconv
from otel_shim import counters, jobs, queues
from otel_shim.capture import deliveries, rq, rq_hearing, rq_horse, rq_telling
from otel_shim.capture.deliveries import Delivery
from otel_shim.capture.rq_hearing import Hearing
from otel_shim.heartbeats import Declaration, Heartbeats, heartbeats
from otel_shim.jobs import Ended, Run, Work
from tests.unit.telemetry import Telemetry
from tests.unit.test_queues import Told


class Recorded:
    """A recorder that keeps what it is told."""

    def __init__(self) -> None:
        self.runs: list[Ended] = []

    def started(self, work: Work) -> None:
        """Nothing to keep."""

    def ended(self, ended: Ended) -> None:
        self.runs.append(ended)

    def unstarted(self, name: str, outcome: str, count: int) -> None:
        """Nothing to keep."""


@pytest.fixture(autouse=True)
def told(monkeypatch: pytest.MonkeyPatch, telemetry: Telemetry) -> Iterator[Told]:
    for module in (jobs, deliveries):
        monkeypatch.setattr(module, "_tracer", telemetry.tracers.get_tracer("otel_shim"))
    monkeypatch.setattr(deliveries, "_relation", "link")
    monkeypatch.setattr(queues, "_names", set())
    monkeypatch.setattr(rq_horse, "_items", rq_telling.Items())
    monkeypatch.setattr(rq_horse, "_to_worker", None)
    meter = Told()
    before = queues.use_meter(meter)
    yield meter
    queues.use_meter(before)


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    recorder = Recorded()
    before = jobs.use_recorder(recorder)
    yield recorder
    jobs.use_recorder(before)


class Known:
    """The heartbeats of a process, emptied."""

    def clear(self) -> None:
        heartbeats._declared.clear()
        heartbeats._together.clear()
        heartbeats.forget()


@pytest.fixture
def beats() -> Iterator[Known]:
    known = Known()
    known.clear()
    yield known
    known.clear()


def job(**more: Any) -> Any:
    return SimpleNamespace(
        **{
            "id": "0199f0a2-6a3c-7bd2-9f0e-3f1f5a3c9a12",
            "func_name": "app.send",
            "origin": "reports",
            "enqueued_at": time.time() - 3,
            "meta": {},
            "_unreadable_meta": None,
            **more,
        }
    )


class TestMeta:
    def test_the_dictionary_of_the_application_stays_as_it_is(self) -> None:
        """What is ours goes into a dictionary of the job's own."""
        given = {"customer": 7}
        found = job(meta=given)
        rq._mark(found, "reports")
        assert given == {"customer": 7}
        assert found.meta.keys() == {"customer", rq.META}

    def test_what_cannot_be_read_is_left_alone(self) -> None:
        """RQ writes back unchanged what it could not read; a key of ours would be in its way."""
        found = job(meta={"unserialized": b"?"}, _unreadable_meta=b"?")
        rq._mark(found, "reports")
        rq._delivery(found, None)
        assert found.meta == {"unserialized": b"?"}

    def test_attempts_are_counted_in_the_job(self) -> None:
        """RQ saves the job when it retries it, also one whose producer knows nothing of us."""
        found = job()
        deliveries_made = [rq._delivery(found, None) for _ in range(3)]
        assert [each.attempt for each in deliveries_made if each] == [1, 2, 3]
        assert [each.trigger for each in deliveries_made if each] == ["manual", "retry", "retry"]
        assert not rq._is_new(found)

    def test_a_repetition_is_no_retry(self) -> None:
        """What succeeded is over; the next run is there because it is to be repeated."""
        found = job(repeats_left=3, meta={rq.META: {"saas-due": 1000.0}, "customer": 7})
        seen = []
        for fails in (True, False, True, False, False):
            delivery = rq._delivery(found, None)
            assert delivery is not None
            seen.append((delivery.attempt, delivery.trigger, delivery.due))
            perform(found, fails)
        assert seen == [
            (1, "manual", 1000.0),
            (2, "retry", 1000.0),
            (1, "schedule", None),
            (2, "retry", None),
            (1, "schedule", None),
        ]
        assert found.meta["customer"] == 7

    def test_a_retry_that_is_returned_counts_on(self) -> None:
        """Only success is the end of an attempt."""
        found = job(repeats_left=1)
        rq._delivery(found, None)
        rq._run(lambda: Retry(max=3), found, ((), {}), None, None)
        delivery = rq._delivery(found, None)
        assert delivery is not None
        assert (delivery.attempt, delivery.trigger) == (2, "retry")

    def test_success_without_repetition_is_no_schedule(self) -> None:
        """Who puts a job in again by hand asks for it by hand."""
        found = job(repeats_left=0)
        rq._delivery(found, None)
        perform(found, fails=False)
        delivery = rq._delivery(found, None)
        assert delivery is not None
        assert (delivery.attempt, delivery.trigger) == (1, "manual")

    @pytest.mark.parametrize("meta", [{rq.META: "x"}, {rq.META: {"traceparent": 7}}])
    def test_meta_of_anybody(self, meta: dict[str, Any]) -> None:
        """What a job carries is an outside input."""
        found = rq._delivery(job(meta=meta), None)
        assert found is not None
        assert found.producer is None
        assert found.attempt == 1


def perform(found: Any, fails: bool) -> None:
    """Run a job as ``Job.perform`` does."""

    def work() -> None:
        if fails:
            raise ValueError

    with contextlib.suppress(ValueError):
        rq._run(work, found, ((), {}), None, None)


def from_horse(work: Any) -> bytes:
    """What a horse writes while it does some work."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    rq_horse._to_worker = rq_telling.ToWorker(writing)
    before = jobs.use_recorder(rq_horse._to_worker)
    worker_meter = queues.use_meter(rq_horse._items)
    rq_horse._items.own = "reports"
    work()
    rq_horse._to_worker.over(rq_horse._items)
    queues.use_meter(worker_meter)
    jobs.use_recorder(before)
    os.close(writing)
    text = rq_hearing._read(reading)
    os.close(reading)
    return text


def heard(*texts: bytes) -> None:
    """What a worker takes in, piece by piece, from a horse that then ends."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    hearing = Hearing(reading)
    for text in texts:
        os.write(writing, text)
        hearing.listen()
    os.close(writing)
    rq_horse._over(hearing, job())


def take() -> deliveries.Taken:
    taken = deliveries.take(Delivery("rq", "app.send", "reports", "m-1", enqueued_at=time.time()))
    assert taken is not None
    rq_horse.began(taken)
    return taken


class TestHorse:
    def test_its_worker_records_the_run(
        self, telemetry: Telemetry, recorded: Recorded, told: Told
    ) -> None:
        """Outcome, items and the span, for the exemplar; what it did with other queues too."""

        def work() -> None:
            taken = take()
            jobs.add_items({semconv.SAAS_JOB_ITEM_STATE_READ: 4})
            queues.enqueued("mail", 2)
            taken.end(ValueError("anna@example.com"))

        text = from_horse(work)
        assert b"anna" not in text
        heard(text)
        (ended,) = recorded.runs
        assert (ended.work.run.name, ended.outcome, ended.error_type) == (
            "app.send",
            "failure",
            "ValueError",
        )
        assert ended.work.items == {"read": 4}
        (span,) = [each for each in telemetry.spans() if each.name == "app.send"]
        assert ended.work.span.get_span_context().span_id == span.get_span_context().span_id  # type: ignore[union-attr]
        assert sorted(told.heard) == [("enqueued", "mail", 2), ("finished", "reports", 1)]

    def test_a_horse_that_dies_has_its_run_told(
        self, telemetry: Telemetry, recorded: Recorded
    ) -> None:
        """What began and never ended is a failure, under the name that it began with."""
        with pytest.MonkeyPatch.context() as earlier:
            earlier.setattr(time, "time", lambda now=time.time: now() - 5)
            text = from_horse(take)
        text = text.split(b"\n")[0] + b'\n{"cut": '
        heard(text)
        (ended,) = recorded.runs
        assert (ended.work.run.name, ended.error_type) == ("app.send", "WorkHorseTerminated")
        assert 5 <= ended.seconds < 60

    @pytest.mark.parametrize("name", ["nested", "\U0001f40e" * 250], ids=["short", "long"])
    def test_very_many_other_runs(self, recorded: Recorded, told: Told, name: str) -> None:
        """There is always room for the job's own end and for its queues; what is left out is counted."""

        def work() -> None:
            taken = take()
            jobs.add_items({semconv.SAAS_JOB_ITEM_STATE_READ: 4})
            for _ in range(400):
                with jobs.running(Run(name, "function")):
                    queues.enqueued("mail")
                    queues.taken("mail", 1.25)
            taken.end()

        text = from_horse(work)
        assert max(map(len, text.splitlines(True))) <= select.PIPE_BUF
        heard(text)
        own = [each for each in recorded.runs if each.work.run.name == "app.send"]
        assert [(each.outcome, each.work.items) for each in own] == [("success", {"read": 4})]
        assert told.heard.count(("enqueued", "mail", 400)) == 1
        runs = len(recorded.runs) - 1
        waits = sum(each[0] == "taken" for each in told.heard)
        assert 10 <= runs < 400
        assert counters.snapshot() == {"job_report_left_out": 800 - runs - waits}

    def test_a_line_that_is_too_long(self, recorded: Recorded) -> None:
        """It is not written in parts, which another line could come between."""

        def work() -> None:
            run = Run("nested", "function", attributes={"messaging.system": "x" * select.PIPE_BUF})
            with jobs.running(run):
                pass

        heard(from_horse(work))
        assert recorded.runs == []
        assert counters.snapshot() == {"job_report_left_out": 1}

    def test_the_name_of_an_error_may_be_anything(self, recorded: Recorded) -> None:
        """The job's own end is told, however long."""
        error = type("E", (Exception,), {"__qualname__": "\U0001f40e" * 5000})()
        text = from_horse(lambda: take().end(error))
        heard(text)
        assert [each.error_type for each in recorded.runs] == ["\U0001f40e" * 256]

    @pytest.mark.parametrize("broken", [b"{", b"[]", b'{"outcome": "success"}', b'{"taken": 7}'])
    def test_a_broken_line(self, recorded: Recorded, told: Told, broken: bytes) -> None:
        """It loses only itself, and is counted."""

        def work() -> None:
            taken = take()
            queues.enqueued("mail", 2)
            taken.end()

        text = broken + b"\n" + from_horse(work)
        heard(text)
        assert [each.outcome for each in recorded.runs] == ["success"]
        assert sorted(told.heard) == [("enqueued", "mail", 2), ("finished", "reports", 1)]
        assert counters.snapshot() == {"internal_errors": 1}

    def test_what_only_a_horse_imports(self, recorded: Recorded, beats: Known) -> None:
        """The schedule and the start reach the worker while the run goes on; at its end each is there once."""
        declared = Declaration(
            "app.send", "every 1h", 3600.0, 60.0, True, {"saas.gdpr.legal_basis": "contract"}
        )

        def work() -> None:
            jobs.declare(declared)
            held.append(take())

        held: list[deliveries.Taken] = []
        text = from_horse(work)
        beats.clear()
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        hearing = Hearing(reading)
        heartbeats.hear_first(hearing.listen)
        os.write(writing, text)
        declarations, found = heartbeats.observed_declarations(), heartbeats.observed_beats()
        assert declarations == [declared]
        assert (found["app.send"].active, found["app.send"].last_success) == (1, None)
        assert found["app.send"].last_start == pytest.approx(time.time(), abs=5)
        os.write(writing, from_horse(held[0].end))
        declarations, found = heartbeats.observed_declarations(), heartbeats.observed_beats()
        assert (found["app.send"].active, declarations) == (0, [declared])
        assert [each.outcome for each in recorded.runs] == ["success"]
        os.close(writing)
        rq_horse._over(hearing, job())
        assert len(recorded.runs) == 1

    def test_a_horse_says_what_its_worker_does_not_know(self, beats: Known) -> None:
        """A declaration is told once, and again where it has changed."""
        jobs.declare(Declaration("known", max_runtime=1.0))
        text = from_horse(lambda: jobs.declare(Declaration("known", max_runtime=1.0)))
        assert b"declared" not in text
        text = from_horse(lambda: jobs.declare(Declaration("known", max_runtime=2.0)))
        assert text.count(b"declared") == 1

    def test_declared_runs_inside(self, recorded: Recorded, beats: Known) -> None:
        """A declared job that the message's own run calls is told at its start too, and lost with the horse."""
        jobs.declare(Declaration("inside", max_runtime=1.0))

        def work() -> None:
            taken = take()
            jobs.start_run(Run("inside"))
            taken.leave()

        text = from_horse(work)
        beats.clear()
        heard(text)
        assert {(each.work.run.name, each.error_type) for each in recorded.runs} == {
            ("app.send", "WorkHorseTerminated"),
            ("inside", "WorkHorseTerminated"),
        }
        assert heartbeats.beats()["inside"].active == 0

    def test_a_horse_is_silent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What its worker tells, a horse that lives long does not tell too."""
        mine = Heartbeats()
        mine.started("app.send", 1.0)
        mine.silence()
        assert (mine.observed_declarations(), mine.observed_beats()) == ([], {})
        assert mine.beats().keys() == {"app.send"}

    def test_a_horse_that_never_began(self, recorded: Recorded, told: Told) -> None:
        """Without a word there is no run, but the item is done with."""
        heard(b"")
        assert recorded.runs == []
        assert told.heard == [("finished", "reports", 1)]


def test_a_retry_that_is_returned_is_no_success(recorded: Recorded) -> None:
    """RQ's ``Retry`` as a result asks for another attempt."""
    retry = type("Retry", (), {"__module__": "rq.job"})()
    taken = deliveries.take(Delivery("rq", "app.send", "reports", "m-1"))
    rq._end(taken, None, retry)
    assert [each.outcome for each in recorded.runs] == ["failure"]


def test_the_run_of_a_message(recorded: Recorded) -> None:
    """What a horse tells is enough to make the run again."""
    run = Run("app.send", "rq", "retry", attempt=2, run_id="0199f0a2-6a3c-7bd2-9f0e-3f1f5a3c9a12")
    work = Work(run, time.time())
    again = rq_hearing.run_of(rq_telling.about(work))
    assert (again.name, again.system, again.trigger, again.attempt, again.run_id) == (
        run.name,
        run.system,
        run.trigger,
        run.attempt,
        run.run_id,
    )
