"""Workers of the calendar queue: threads of the scheduler, or `python -m api.worker` by themselves."""

import logging
import signal
import threading
import time
from dataclasses import dataclass, field

from . import calendar_queue, calendars, faults, metrics
from .calendar_queue import NAME, Taken
from .calendars import PROCESSING
from .optional_identity import acting_for, operation_block
from .optional_operations import item_finished, item_taken, refer_to, unwatched, watch_queue

POLL_SECONDS = 0.25
logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Workers:
    """Threads that drain the queue until `stop` is set; nothing that goes wrong with an item ends one."""

    number: int
    stop: threading.Event
    busy: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        """Let them work, and let operators see the queue and how many of them are busy."""
        for number in range(self.number):
            thread = threading.Thread(target=self._work, name=f"worker-{number}", daemon=True)
            thread.start()
            self.threads.append(thread)
        watch_queue(NAME, calendar_queue.depths, lambda: (self.busy, self.living()))

    def living(self) -> int:
        """How many work: a thread that has ended is no worker, whatever was asked for."""
        return sum(thread.is_alive() for thread in self.threads)

    def join(self, seconds: float) -> None:
        """Wait until they have put their items down."""
        for thread in self.threads:
            thread.join(seconds)

    def _work(self) -> None:
        while not self.stop.is_set():
            try:
                worked = self._take_one()
            except Exception as error:
                # A locked database, mostly. What was taken and not put down is free again after its lease.
                metrics.worker_failed(NAME, error)
                logger.exception("worker goes on", extra={"error_code": "worker_failed"})
                worked = False
            if not worked:
                self.stop.wait(POLL_SECONDS)

    def _take_one(self) -> bool:
        """Work on the item that is due longest; False where none is."""
        faults.hold("worker stop")
        with unwatched():
            item = calendar_queue.take()
        if item is not None:
            self._handle(item)
        return item is not None

    def _handle(self, item: Taken) -> None:
        with self.lock:
            self.busy += 1
        try:
            handle(item)
        finally:
            item_finished(NAME)
            with self.lock:
                self.busy -= 1


def handle(item: Taken) -> None:
    """Write one plan into its calendar, or give it back."""
    with acting_for(item.org_id, **PROCESSING.references()), operation_block("calendar.deliver"):
        refer_to(item.origin)
        # Within: of what waited too long this trace is told.
        item_taken(NAME, time.time() - item.queued_at)
        try:
            people = _write(item)
        except Exception as error:
            calendar_queue.failed(item)
            facts = {"error_code": "calendar_not_written", "attempt": item.attempts}
            logger.error("plan not in calendars: %s", type(error).__name__, extra=facts)
        else:
            calendar_queue.done(item)
            metrics.calendar_delay.record(time.time() - item.queued_at)
            logger.info("plan in calendars", extra={"plan_id": item.plan_id, "people": people})


def _write(item: Taken) -> int:
    with operation_block("calendar.write"):
        time.sleep(faults.seconds("worker slow"))
        return calendars.write(item.org_id, item.plan_id)


def main() -> None:
    """Work until a signal asks to end."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    workers = Workers(number=1, stop=stop)
    workers.start()
    stop.wait()
    workers.join(seconds=10)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    main()
