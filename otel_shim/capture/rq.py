"""RQ: putting in, waiting and running a job as one story, and its queues; zero code.

Queue.create_job, ._enqueue_job, .schedule_job ─▶ span `send <job>`, and the trace context in job.meta
Job.perform                                    ─▶ the run of the job
Worker.fork_work_horse, .monitor_work_horse    ─▶ a process for each job, see ``rq_horse``
Queue, Worker                                  ─▶ queues that are read at the broker, see ``rq_queue``
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from opentelemetry.context import attach, create_key, get_value, set_value
from opentelemetry.instrumentation.instrumentor import (  # type: ignore[attr-defined]
    BaseInstrumentor,
)
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.metrics import get_meter_provider

from otel_shim import _semconv as semconv
from otel_shim import context, jobs, queues
from otel_shim._guard import guarded, is_time_limit
from otel_shim.capture import deliveries, rq_horse, rq_queue
from otel_shim.capture.deliveries import Delivery
from otel_shim.capture.patches import Patches

META = "otel_shim"
"""The key in ``job.meta`` under which a job carries what the worker needs."""
_SYSTEM = semconv.SAAS_JOB_SYSTEM_RQ
_ATTEMPTS = "saas-attempts"
_DUE = "saas-due"
_TRIGGER = "saas-trigger"
_FRESH = "_otel_shim_fresh"
_BY_CRON = create_key("otel-shim-by-cron")
Args = tuple[Any, ...]
Kwargs = dict[str, Any]


class RqInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """Instruments RQ, when the application imports it.

    ``instrument`` takes ``relation`` (``link`` or ``parent``; the default is the environment's) and
    ``meter_provider`` (the default is the global one).
    """

    def instrumentation_dependencies(self) -> Collection[str]:
        """The versions whose functions are known."""
        return ("rq >= 3, < 4",)

    def _instrument(self, **kwargs: Any) -> None:
        if (relation := kwargs.get("relation")) is not None:
            deliveries.use_relation(relation)
        deliveries.record(kwargs.get("meter_provider") or get_meter_provider())
        self._patches = Patches()
        for module, name, wrapper in _WRAPPERS:
            self._patches.when_imported(module, name, wrapper)

    def _uninstrument(self, **kwargs: Any) -> None:
        self._patches.remove()


# --- putting in ----------------------------------------------------------------------------------------


def _create_job(wrapped: Any, queue: Any, args: Args, kwargs: Kwargs) -> Any:
    """A job that is made belongs to the request that makes it, whoever puts it into a queue, and when."""
    job = wrapped(*args, **kwargs)
    _mark_new(job, queue)
    return job


@guarded(default=None)
def _mark_new(job: Any, queue: Any) -> None:
    setattr(job, _FRESH, True)
    _mark(job, queues.label(queue.name))


def _enqueue(wrapped: Any, queue: Any, args: Args, kwargs: Kwargs) -> Any:
    """``_enqueue_job(job, …)``: a job goes to where workers take it from."""
    return _sent(wrapped, queue, args, kwargs, arrives=True)


def _schedule(wrapped: Any, queue: Any, args: Args, kwargs: Kwargs) -> Any:
    """``schedule_job(job, datetime, …)``: a job waits for its time."""
    return _sent(wrapped, queue, args, kwargs, arrives=False)


def _sent(wrapped: Any, queue: Any, args: Args, kwargs: Kwargs, arrives: bool) -> Any:
    job = args[0] if args else kwargs.get("job")
    if job is None or not is_instrumentation_enabled():
        return wrapped(*args, **kwargs)
    if not _is_new(job):  # RQ puts it in again: a retry, or one whose time or turn has come
        result = wrapped(*args, **kwargs)
        queues.enqueued(queue.name, int(arrives))
        return result
    due = None if arrives else args[1] if len(args) > 1 else kwargs.get("datetime")
    sending = deliveries.sending(_SYSTEM, _name_of(job), arrives)
    try:
        _address(sending, job, queue, due)
        result = wrapped(*args, **kwargs)
    except BaseException as error:
        if sending is not None:
            sending.end(error)
        raise
    if sending is not None:
        sending.end()
        rq_queue.watch(queue)
    return result


@guarded(default=False)
def _is_new(job: Any) -> bool:
    """Whether nobody has put it in before: it was made here, or does not say who asked for it."""
    return bool(vars(job).pop(_FRESH, False) or META not in job.meta)


@guarded(default=None)
def _address(sending: deliveries.Sending | None, job: Any, queue: Any, due: Any) -> None:
    """Name the queue on the span, and the span in the job."""
    if sending is None:
        return
    sending.to(queue.name, job.id)
    _mark(job, queues.label(queue.name))
    if due is not None and META in job.meta:
        job.meta[META][_DUE] = deliveries.moment(due)


def _mark(job: Any, queue: str) -> None:
    """Write into the job what its worker needs; not into the dictionary that the application gave."""
    if not _is_readable(job):
        return
    carrier: dict[str, Any] = {}
    deliveries.mark(carrier, queue)
    if get_value(_BY_CRON):
        carrier[_TRIGGER] = semconv.SAAS_JOB_TRIGGER_SCHEDULE
    job.meta = {**(job.meta or {}), META: carrier}


def _cron(wrapped: Any, cron_job: Any, args: Args, kwargs: Kwargs) -> Any:
    """``CronJob.enqueue``: what it makes is there because its schedule was due."""
    token = attach(set_value(_BY_CRON, True))
    try:
        return wrapped(*args, **kwargs)
    finally:
        context.leave(token)


# --- running -------------------------------------------------------------------------------------------


def _perform(wrapped: Any, job: Any, args: Args, kwargs: Kwargs) -> Any:
    """``Job.perform``: an exception passes unchanged, also the one of RQ's time limit."""
    name, late = _declared(job)
    delivery = _delivery(job, name)
    taken = deliveries.take(delivery) if delivery is not None else None
    if taken is None and late is None:
        return wrapped(*args, **kwargs)
    return _run(wrapped, job, (args, kwargs), taken, late)


def _run(
    wrapped: Any,
    job: Any,
    given: tuple[Args, Kwargs],
    taken: deliveries.Taken | None,
    late: Exception | None,
) -> Any:
    try:
        rq_horse.began(taken)
        if late is not None:
            raise late
        result = wrapped(*given[0], **given[1])
    except BaseException as error:
        _end(taken, error, None)
        raise
    if not _asks_again(result):
        _begin_anew(job)
    _end(taken, None, result)
    return result


@guarded(default=None)
def _end(taken: deliveries.Taken | None, error: BaseException | None, result: Any) -> None:
    """The outcome, where neither error nor its absence tells it."""
    outcome = None
    if is_time_limit(error):
        outcome = semconv.SAAS_JOB_OUTCOME_TIMEOUT
    elif _asks_again(result):
        outcome = semconv.SAAS_JOB_OUTCOME_FAILURE
    if taken is not None:
        taken.end(error, outcome)


def _asks_again(result: Any) -> bool:
    """Whether a job returned RQ's ``Retry``."""
    return type(result).__name__ == "Retry" and type(result).__module__.startswith("rq.")


@guarded(default=None)
def _begin_anew(job: Any) -> None:
    """A run that succeeded was the last attempt; RQ saves the job when it is to be repeated.

    A repetition is due by a schedule of its own: RQ's ``Repeat`` gives no time that could be read here.
    """
    if META not in job.meta or not _is_readable(job):
        return
    kept = {key: item for key, item in _carrier(job).items() if key not in (_ATTEMPTS, _DUE)}
    if getattr(job, "repeats_left", None):
        kept[_TRIGGER] = semconv.SAAS_JOB_TRIGGER_SCHEDULE
    job.meta = {**job.meta, META: kept}


def _is_readable(job: Any) -> bool:
    """Whether RQ could read what is in ``job.meta``; it keeps as it is what it could not."""
    return getattr(job, "_unreadable_meta", None) is None


@guarded(default=None)
def _delivery(job: Any, name: str | None) -> Delivery:
    carrier = _carrier(job)
    attempt = int(carrier.get(_ATTEMPTS) or 0) + 1
    if _is_readable(job):  # RQ saves it when it retries the job
        job.meta = {**job.meta, META: {**carrier, _ATTEMPTS: attempt}}
    return Delivery(
        _SYSTEM,
        name or _name_of(job),
        str(job.origin),
        str(job.id),
        deliveries.producer_of(carrier),
        deliveries.moment(job.enqueued_at),
        deliveries.moment(carrier.get(_DUE)),
        attempt,
        _trigger(attempt, carrier),
    )


def _carrier(job: Any) -> Mapping[str, Any]:
    found = job.meta.get(META) if isinstance(job.meta, dict) else None
    return found if isinstance(found, dict) else {}


def _trigger(attempt: int, carrier: Mapping[str, Any]) -> str:
    if attempt > 1:
        return semconv.SAAS_JOB_TRIGGER_RETRY
    scheduled = carrier.get(_TRIGGER) == semconv.SAAS_JOB_TRIGGER_SCHEDULE
    return semconv.SAAS_JOB_TRIGGER_SCHEDULE if scheduled else semconv.SAAS_JOB_TRIGGER_MANUAL


@guarded(default="unnamed.job")
def _name_of(job: Any) -> str:
    return str(job.func_name or "unnamed.job")[:256]


def _declared(job: Any) -> tuple[str | None, Exception | None]:
    """The job's name as it is declared with ``otel_shim.job``, and that its time was over meanwhile.

    To look at its function imports it, which RQ does next in any case, and says what is wrong with it.
    """
    try:
        return jobs.declared_name(job.func), None
    except Exception as error:  # noqa: BLE001 - the application's code, which may do anything
        return None, error if is_time_limit(error) else None


def _birth(wrapped: Any, worker: Any, args: Args, kwargs: Kwargs) -> Any:
    """``register_birth``: a worker begins, and its queues are read here from now on."""
    result = wrapped(*args, **kwargs)
    rq_queue.serve(worker)
    return result


_WRAPPERS = (
    ("rq.queue", "Queue.create_job", _create_job),
    ("rq.queue", "Queue._enqueue_job", _enqueue),
    ("rq.queue", "Queue.schedule_job", _schedule),
    ("rq.cron", "CronJob.enqueue", _cron),
    ("rq.job", "Job.perform", _perform),
    ("rq.worker.base", "BaseWorker.register_birth", _birth),
    ("rq.worker.base", "BaseWorker.main_work_horse", rq_horse.ride),
    ("rq.worker.base", "BaseWorker.perform_job", rq_horse.perform),
    ("rq.worker.worker_classes", "Worker.fork_work_horse", rq_horse.fork),
    ("rq.worker.worker_classes", "Worker.monitor_work_horse", rq_horse.monitor),
)
