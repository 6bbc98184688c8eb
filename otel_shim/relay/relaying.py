"""From a batch of alerts as it came to the batch that is passed on."""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import replace

from otel_shim.relay import alerts
from otel_shim.relay.alerts import Alert
from otel_shim.relay.lookup import Lookup
from otel_shim.relay.measures import Measures
from otel_shim.relay.memory import Memory, same_episode
from otel_shim.relay.model import Finding, Question, Remembered

_logger = logging.getLogger(__name__)
_UNKNOWN = "the relay has no record of this alert while it was firing"


class Relaying:
    """Adds to alerts what is remembered or found; on any failure they go on as they are."""

    def __init__(
        self, lookup: Lookup, memory: Memory, measures: Measures, link: str | None
    ) -> None:
        self._lookup, self._memory, self._measures, self._link = lookup, memory, measures, link

    async def prepare(self, body: bytes) -> tuple[bytes, int]:
        """The batch to pass on and its number of alerts; never raises."""
        count = 1
        try:
            batch = _batch(body)
            count = len(batch)
            return json.dumps(await self._enriched(batch)).encode(), count
        except Exception:  # a page matters more than its ids
            self._measures.add("errors")
            _logger.exception("alerts are passed on as they came")
            return body, count

    async def _enriched(self, batch: Sequence[Alert]) -> list[Alert]:
        now = time.time()
        known = [self._recalled(alert, now) for alert in batch]
        asked = [i for i, found in enumerate(known) if found is None]
        answers = await self._lookup.find([self._question(batch[i]) for i in asked])
        given = dict(zip(asked, answers, strict=True))
        findings = [found or given[i] for i, found in enumerate(known)]
        self._keep(batch, findings, now)
        for finding in findings:
            self._measures.add("findings", source=finding.source or "none")
        return [
            alerts.annotated(alert, finding, self._link)
            for alert, finding in zip(batch, findings, strict=True)
        ]

    def _recalled(self, alert: Alert, now: float) -> Finding | None:
        """What holds for this alert without asking; None when it is to be asked for."""
        known = self._memory.recall(alerts.fingerprint(alert))
        ended = alerts.is_resolved(alert, now)
        if known is None or not same_episode(known, alerts.instant(alert.get("startsAt"))):
            return Finding(reason=_UNKNOWN) if ended else None
        return known.finding if known.finding.sightings or ended else None

    def _question(self, alert: Alert) -> Question:
        try:
            return alerts.question(alert)
        except ValueError as error:
            self._measures.add("errors")
            return Question(no_trace=f"the rule's {alerts.INSTRUCTIONS}* annotations: {error}")

    def _keep(self, batch: Sequence[Alert], findings: Sequence[Finding], now: float) -> None:
        """Remember before anything is sent; a full disk costs the memory, not the alert."""
        said = [
            (alerts.fingerprint(alert), _remembered(alert, finding, now))
            for alert, finding in zip(batch, findings, strict=True)
            if finding.reason != _UNKNOWN
        ]
        try:
            self._memory.keep(said)
        except sqlite3.Error as error:
            self._measures.add("errors")
            _logger.warning("ids are not remembered: %s", error)


def _batch(body: bytes) -> list[Alert]:
    batch = json.loads(body)
    if not isinstance(batch, list):
        raise TypeError("not a list of alerts")
    return batch


def _remembered(alert: Alert, finding: Finding, now: float) -> Remembered:
    remembered = Remembered(finding, now, None)
    if alerts.is_resolved(alert, now):
        return replace(remembered, resolved_at=alerts.instant(alert["endsAt"]))
    return remembered
