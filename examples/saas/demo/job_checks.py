"""What the traces of the product's jobs must show."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from otel_shim import _semconv

from ..api.people import CUSTOMERS
from .checks import PERSONAL, Evidence, Finding
from .driver import Call
from .jaeger import Span, Trace

SYNCHRONISATION = "calendar.synchronize"
RETENTION = "audit.retention.job"
# Each job, and what it calls the work it does for one organisation; none where it does not walk over them.
JOBS: Mapping[str, str | None] = {
    SYNCHRONISATION: SYNCHRONISATION,
    RETENTION: "audit.expire",
    "payroll.export": "payroll.load",
    "material.import": "material.stock",
    "privacy.rollup": "privacy.tidy",
    "billing.rollup": "billing.sum",
    "backup.create": None,
    "backup.verify": None,
    "backup.restore_drill": None,
}
# What is told by the age of the last success: how much would be lost, and what is kept too long.
AGEING = ("backup.verify", RETENTION)
QUEUE = 'saas_queue_name="calendar.sync"'
DELIVERY = "calendar.deliver"
PUBLISH, OK = "/publish", 200
ENDED_WELL = (_semconv.SAAS_JOB_OUTCOME_SUCCESS, _semconv.SAAS_JOB_OUTCOME_PARTIAL)
REFERENCES = (
    _semconv.SAAS_GDPR_PROCESSING_ACTIVITY_ID,
    _semconv.SAAS_GDPR_LEGAL_BASIS,
    _semconv.SAAS_GDPR_RETENTION_CLASS,
)
OUT = (
    _semconv.SAAS_JOB_ITEMS_WRITTEN,
    _semconv.SAAS_JOB_ITEMS_REJECTED,
    _semconv.SAAS_JOB_ITEMS_FILTERED,
)


def lacking(traces: Mapping[str, Trace], calls: Sequence[Call] = ()) -> str | None:
    """What the jobs have not shown yet, in words; None when there is enough to judge these calls."""
    for name, part in JOBS.items():
        if not any(_ended_well(run) for run in runs(traces.values(), name)):
            return f"a run of {name}"
        theirs = {_org(span) for span in _named(traces.values(), part)} if part else set()
        if part and len(theirs - {None}) < len(CUSTOMERS):
            return f"{part} of every organisation"
    delivered = {link for span in _named(traces.values(), DELIVERY) for link in span.links}
    waiting = {str(call.trace_id) for call in published(calls)} - delivered
    if waiting:
        return f"{len(waiting)} deliveries"
    late = [org for org, count in arrived(traces.values()).items() if count < _people(org)]
    return f"published plans in the calendar of {late[0]}" if late else None


def published(calls: Iterable[Call]) -> list[Call]:
    """The requests that published a plan."""
    return [call for call in calls if call.step.path.endswith(PUBLISH) and call.status == OK]


def runs(traces: Iterable[Trace], name: str) -> Iterator[Span]:
    """The runs of a job."""
    return (span for span in _named(traces, name) if _semconv.SAAS_JOB_RUN_ID in span.tags)


def arrived(traces: Iterable[Trace]) -> Counter[str]:
    """How many entries synchronisations brought from each organisation's calendar, new or changed."""
    brought = Counter({customer.id: 0 for customer in CUSTOMERS})
    for span in _named(traces, SYNCHRONISATION):
        if span.tags.get(_semconv.SAAS_CALENDAR_PROVIDER) == "caldav":
            new = span.tags.get(_semconv.SAAS_CALENDAR_ITEMS_CREATED, 0)
            changed = span.tags.get(_semconv.SAAS_CALENDAR_ITEMS_CHANGED, 0)
            brought[str(_org(span))] += int(new) + int(changed)
    return brought


def of_jobs(traces: Sequence[Trace]) -> list[Finding]:
    """One finding or more for each promise."""
    return [
        _all_ran(traces),
        _balanced(traces),
        _backlog_shrinks(traces),
        _references(traces),
        _separate(traces),
        _in_calendars(traces),
        _nothing_personal(traces),
    ]


def of_metrics(text: str) -> list[Finding]:
    """What must be among the metrics (Prometheus's text) for somebody to judge jobs from outside."""
    states = ("ready", "in_flight", "delayed", "dead")
    wanted = [
        *(f'saas_job_last_start_timestamp_seconds{{saas_operation="{name}"}}' for name in JOBS),
        *(f'saas_job_period_seconds{{saas_operation="{name}"}}' for name in JOBS),
        *(f'saas_job_last_success_timestamp_seconds{{saas_operation="{name}"}}' for name in AGEING),
        'saas_job_recovery_point_timestamp_seconds{saas_operation="backup.verify"}',
        *(f'saas_queue_depth{{{QUEUE},saas_queue_state="{state}"}}' for state in states),
        *(f"{name}{{{QUEUE}}}" for name in ("saas_queue_oldest_age_seconds", "saas_queue_workers")),
        'saas_calendar_oldest_success_timestamp_seconds{saas_calendar_provider="caldav"}',
    ]
    lines = [line.partition("{")[::2] for line in text.splitlines()]
    absent = tuple(series for series in wanted if not _is_among(series, lines))
    return [
        Finding("metrics: heartbeats of jobs and calendars, and the queue", len(wanted), absent)
    ]


def _is_among(series: str, lines: Sequence[tuple[str, str]]) -> bool:
    """Whether a line has this name and at least these labels."""
    name, _, labels = series.rstrip("}").partition("{")
    return any(
        found == name and all(label in rest for label in labels.split(",")) for found, rest in lines
    )


def _all_ran(traces: Sequence[Trace]) -> Finding:
    """Each job ran, ended well, and as the first span of its trace."""
    found = {name: list(runs(traces, name)) for name in JOBS}
    wrong = [f"{name} never ended well" for name, each in found.items() if not _any_well(each)]
    for name, each in found.items():
        below = sum(span.parent_id is not None for span in each)
        wrong += [f"{below} runs of {name} are inside of another trace"] if below else []
    total = sum(map(len, found.values()))
    return Finding("jobs: each ran and ended well, in traces of their own", total, tuple(wrong))


def _balanced(traces: Sequence[Trace]) -> Finding:
    """What went in came out, was refused or needed nothing."""
    counted = [run for name in JOBS for run in runs(traces, name) if _read(run)]
    wrong = tuple(
        f"{run.name} read {_read(run)} and dealt with {_dealt_with(run)} ({run.trace_id})"
        for run in counted
        if _read(run) != _dealt_with(run)
    )
    return Finding("jobs: read = written + rejected + filtered", len(counted), wrong)


def _backlog_shrinks(traces: Sequence[Trace]) -> Finding:
    """What waited at the start is fewer at the end, for the jobs that found something waiting."""
    name, after = _semconv.SAAS_JOB_BACKLOG_BEFORE, _semconv.SAAS_JOB_BACKLOG_AFTER
    found = [run for job in JOBS for run in runs(traces, job) if int(run.tags.get(name, 0))]
    worked = [run for run in found if _ended_well(run)]
    wrong = (run for run in worked if int(run.tags[after]) >= int(run.tags[name]))
    texts = tuple(f"{run.name}: {run.tags[name]} → {run.tags[after]}" for run in wrong)
    return Finding("jobs: their backlog shrinks", len(worked), texts)


def _references(traces: Sequence[Trace]) -> Finding:
    """Calendars and retention say what of the GDPR applies to them."""
    looked_at = [
        span
        for name in (SYNCHRONISATION, RETENTION, "audit.expire", DELIVERY)
        for span in _named(traces, name)
    ]
    gaps = tuple(
        f"{span.name} lacks {name} ({span.trace_id})"
        for span in looked_at
        for name in REFERENCES
        if not span.tags.get(name)
    )
    return Finding("jobs: calendars and retention name their GDPR references", len(looked_at), gaps)


def _separate(traces: Sequence[Trace]) -> Finding:
    """A run belongs to nobody; what it does for an organisation does, with everything below.

    Of a run that happened to work for one organisation only, the processor may infer that it was theirs.
    """
    strays = [
        f"{run.name} is {_org(run)}'s"
        for name in JOBS
        for run in runs(traces, name)
        if _org(run) is not None and not _inferred(run)
    ]
    pairs = [
        (span, child)
        for trace in traces
        for span in trace.spans
        if _org(span) is not None and not _inferred(span)
        for child in trace.children(span)
    ]
    strays += [
        f"{span.name} of {_org(span)} has {child.name} of {_org(child)}"
        for span, child in pairs
        if _org(child) != _org(span)
    ]
    return Finding("jobs: each organisation's work is its own", len(pairs), tuple(strays))


def _in_calendars(traces: Sequence[Trace]) -> Finding:
    """Published plans went through the queue into the calendars, and came back from there."""
    deliveries = list(_named(traces, DELIVERY))
    brought = arrived(traces)
    wrong = [f"{org}: {brought[org]} entries" for org in brought if brought[org] < _people(org)]
    absent = {customer.id for customer in CUSTOMERS} - {_org(span) for span in deliveries}
    wrong += [f"nothing was delivered for {org}" for org in sorted(absent)]
    return Finding(
        "calendars: published plans arrive and are read back", len(deliveries), tuple(wrong)
    )


def of_deliveries(evidence: Evidence, traces: Sequence[Trace]) -> list[Finding]:
    """Whoever published a plan: its delivery refers to that very request, and is the organisation's."""
    asked = published(evidence.calls)
    owner = {link: _org(span) for span in _named(traces, DELIVERY) for link in span.links}
    wrong = tuple(
        f"{call} of {call.caller.org_id}: {owner.get(str(call.trace_id), 'no delivery')}"
        for call in asked
        if owner.get(str(call.trace_id)) != call.caller.org_id
    )
    what = "calendars: each delivery refers to the request that published"
    return [Finding(what, len(asked), wrong)]


def _nothing_personal(traces: Sequence[Trace]) -> Finding:
    """Calendars hold people's addresses, and paths their logins: no span says any."""
    spans = [span for trace in traces for span in trace.spans]
    leaks = tuple(
        f"{span.name}: {name}={value}"
        for span in spans
        for name, value in span.tags.items()
        if any(text in str(value) for text in PERSONAL)
    )
    return Finding("jobs: no name, email or clear user id in any attribute", len(spans), leaks)


def _named(traces: Iterable[Trace], name: str | None) -> Iterator[Span]:
    return (span for trace in traces for span in trace.spans if span.name == name)


def _org(span: Span) -> str | None:
    return span.tags.get(_semconv.SAAS_ORG_ID)


def _inferred(span: Span) -> bool:
    return span.tags.get(_semconv.SAAS_IDENTITY_ORIGIN) == "descendants"


def _any_well(found: Iterable[Span]) -> bool:
    return any(map(_ended_well, found))


def _ended_well(run: Span) -> bool:
    return run.tags.get(_semconv.SAAS_JOB_OUTCOME) in ENDED_WELL


def _read(run: Span) -> int:
    return int(run.tags.get(_semconv.SAAS_JOB_ITEMS_READ, 0))


def _dealt_with(run: Span) -> int:
    return sum(int(run.tags.get(name, 0)) for name in OUT)


def _people(org_id: str) -> int:
    return next(len(customer.people) for customer in CUSTOMERS if customer.id == org_id)
