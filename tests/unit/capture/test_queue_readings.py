"""otel_shim.capture.celery_queue and rq_queue: what is made of what a broker holds."""

from __future__ import annotations

import json
from typing import Any

import pytest

from otel_shim.capture import celery_queue, rq_queue
from otel_shim.capture.deliveries import ENQUEUED_AT, QUEUE

NOW = 1_800_000_000.0


def message(**headers: Any) -> bytes:
    """As kombu puts it into Redis."""
    return json.dumps({"body": "W10=", "headers": headers, "properties": {}}).encode()


def taken(routing_key: str, **headers: Any) -> bytes:
    """As kombu keeps what a worker has taken."""
    return json.dumps([json.loads(message(**headers)), "", routing_key]).encode()


class TestAgeInCelery:
    def test_the_oldest_of_all_priorities(self) -> None:
        """Each priority is a list of its own; the oldest head is the queue's."""
        heads = [message(**{ENQUEUED_AT: NOW - 5}), message(**{ENQUEUED_AT: NOW - 50})]
        assert celery_queue.oldest_age(heads, NOW) == 50

    def test_it_waits_since_it_was_due(self) -> None:
        """A task with an eta that went back to the queue did not wait before that."""
        due = message(**{ENQUEUED_AT: NOW - 500, "eta": "2027-01-15T07:59:30+00:00"})
        assert celery_queue.oldest_age([due], NOW) == 30

    @pytest.mark.parametrize(
        "head",
        [
            message(),
            message(**{ENQUEUED_AT: "soon"}),
            b"no json",
            b"[]",
            b"[" * 100_000,
            b'{"headers": 7}',
            b"\xff\xfe",
        ],
    )
    def test_what_does_not_say_when(self, head: bytes) -> None:
        """A message of somebody else, or none, has no age; that is not 0."""
        assert celery_queue.oldest_age([head], NOW) is None

    def test_a_time_ahead_is_no_age(self) -> None:
        """Clocks differ."""
        assert celery_queue.oldest_age([message(**{ENQUEUED_AT: NOW + 9})], NOW) == 0


class TestTakenInCelery:
    def test_of_this_queue_by_what_they_wait_for(self) -> None:
        """What is not due is delayed, though a worker has it; other queues' messages do not count."""
        messages = [
            taken("reports"),
            taken("other", **{QUEUE: "reports"}),
            taken("reports", eta="2027-01-15T08:05:00+00:00"),
            taken("reports", eta="2027-01-15T07:00:00+00:00"),
            taken("mail"),
            b"junk",
            b"[1, 2]",
            b"[null, null, null]",
        ]
        assert celery_queue.of_queue(messages, "reports", NOW) == (3, 1)


class TestAgeInRq:
    def test_the_oldest_of_the_first(self) -> None:
        """The head may be a job that was put at the front, or one that is gone."""
        since = [None, b"2027-01-15T07:59:50.000000Z", b"2027-01-15T07:59:00.000000Z"]
        assert rq_queue.oldest_age(since, NOW) == 60

    @pytest.mark.parametrize("since", [[], [None], [b""], [b"soon"], [b"\xff"]])
    def test_nobody_knows(self, since: list[bytes | None]) -> None:
        """Jobs that are gone have no age."""
        assert rq_queue.oldest_age(since, NOW) is None
