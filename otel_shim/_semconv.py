"""Names of the semantic contract. Generated from semconv/attributes.yaml and semconv/work.yaml by `make generate`; do not edit."""

from typing import Final

SAAS_ORG_ID: Final = "saas.org.id"
"""The organisation (tenant, customer account) on whose behalf the work is done."""
SAAS_REQUEST_ID: Final = "saas.request.id"
"""The id of the inbound request, as returned to the caller in `X-Request-Id`."""
SAAS_ACTOR_TYPE: Final = "saas.actor.type"
"""What kind of actor caused the work."""
SAAS_ACTOR_TYPE_USER: Final = "user"
SAAS_ACTOR_TYPE_API_KEY: Final = "api_key"
SAAS_ACTOR_TYPE_JOB: Final = "job"
SAAS_ACTOR_TYPE_ANONYMOUS: Final = "anonymous"
SAAS_ACTOR_HASH: Final = "saas.actor.hash"
"""Keyed pseudonym of an actor that is not a person (API key, job), made like `user.hash`."""
SAAS_ACTOR_ROLE: Final = "saas.actor.role"
"""The role in which the actor acts."""
SAAS_PLAN: Final = "saas.plan"
"""The commercial plan of the organisation."""
SAAS_IDENTITY_ORIGIN: Final = "saas.identity.origin"
"""Where a completed identity came from; absent where the span carried its own."""
SAAS_IDENTITY_ORIGIN_ANCESTOR: Final = "ancestor"
SAAS_IDENTITY_ORIGIN_DESCENDANTS: Final = "descendants"
SAAS_IDENTITY_EDGE: Final = "saas.identity.edge"
"""True on a server span whose parent came from a peer that is not trusted; identity is never inherited across it, in either direction."""
SAAS_IDENTITY_SCOPE: Final = "saas.identity.scope"
"""A barrier for inheritance, set where work for several organisations meets."""
SAAS_IDENTITY_SCOPE_NONE: Final = "none"
SAAS_IDENTITY_SCOPE_MULTI: Final = "multi"
SAAS_OPERATION: Final = "saas.operation"
"""The business operation, `<domain>.<verb>`; `http.request` for a request without a name of its own."""
SAAS_ERROR_CODE: Final = "saas.error.code"
"""The error as the caller saw it; the application's own code, else the HTTP status or exception class."""
SAAS_EXTRA: Final = "saas.extra"
"""What the application bound under a name of its own, as `saas.extra.<name>`."""
SAAS_GDPR_PROCESSING_ACTIVITY_ID: Final = "saas.gdpr.processing_activity.id"
"""The entry in the record of processing activities (GDPR Art. 30)."""
SAAS_GDPR_LEGAL_BASIS: Final = "saas.gdpr.legal_basis"
"""The legal basis of the processing (GDPR Art. 6), as a short code."""
SAAS_GDPR_RETENTION_CLASS: Final = "saas.gdpr.retention_class"
"""The retention class of the data touched."""
AUDIT_RECORD_ID: Final = "audit.record.id"
"""The id of the audit record that this work produced."""
SAAS_SAMPLING_KEEP: Final = "saas.sampling.keep"
"""True where sampling must not remove the span; set from the first audited span of a trace on."""
SAAS_JOB_RUN_ID: Final = "saas.job.run.id"
"""The run; attempts of one run share it."""
SAAS_JOB_ATTEMPT: Final = "saas.job.attempt"
"""Which attempt of the run this is, from 1."""
SAAS_JOB_SYSTEM: Final = "saas.job.system"
"""What ran the job."""
SAAS_JOB_SYSTEM_FUNCTION: Final = "function"
SAAS_JOB_SYSTEM_APSCHEDULER: Final = "apscheduler"
SAAS_JOB_SYSTEM_CELERY: Final = "celery"
SAAS_JOB_SYSTEM_RQ: Final = "rq"
SAAS_JOB_TRIGGER: Final = "saas.job.trigger"
"""Why the job ran."""
SAAS_JOB_TRIGGER_SCHEDULE: Final = "schedule"
SAAS_JOB_TRIGGER_MANUAL: Final = "manual"
SAAS_JOB_TRIGGER_RETRY: Final = "retry"
SAAS_JOB_TRIGGER_CATCH_UP: Final = "catch_up"
SAAS_JOB_SCHEDULED_TIME: Final = "saas.job.scheduled_time"
"""When the run was due, RFC 3339."""
SAAS_JOB_START_DELAY: Final = "saas.job.start.delay"
"""Seconds from when the run was due to its start."""
SAAS_JOB_RECOVERY_POINT: Final = "saas.job.recovery_point"
"""The time of the data that the run proved to be restorable, RFC 3339, as the application said."""
SAAS_JOB_OUTCOME: Final = "saas.job.outcome"
"""How a run ended."""
SAAS_JOB_OUTCOME_SUCCESS: Final = "success"
SAAS_JOB_OUTCOME_FAILURE: Final = "failure"
SAAS_JOB_OUTCOME_PARTIAL: Final = "partial"
SAAS_JOB_OUTCOME_SKIPPED: Final = "skipped"
SAAS_JOB_OUTCOME_MISSED: Final = "missed"
SAAS_JOB_OUTCOME_TIMEOUT: Final = "timeout"
SAAS_JOB_OVERRUN: Final = "saas.job.overrun"
"""True where the run took longer than was declared."""
SAAS_JOB_CRITICAL: Final = "saas.job.critical"
"""Whether somebody is to be woken when the job fails, is late or does not run."""
SAAS_JOB_SCHEDULE: Final = "saas.job.schedule"
"""When the job is to run, as declared, five-field cron or `every 15m`."""
SAAS_JOB_ITEMS_READ: Final = "saas.job.items.read"
"""Items that the run took in; those written, rejected and filtered make up the same number."""
SAAS_JOB_ITEMS_WRITTEN: Final = "saas.job.items.written"
"""Items that the run dealt with."""
SAAS_JOB_ITEMS_REJECTED: Final = "saas.job.items.rejected"
"""Items that failed."""
SAAS_JOB_ITEMS_FILTERED: Final = "saas.job.items.filtered"
"""Items that needed nothing."""
SAAS_JOB_ITEM_STATE: Final = "saas.job.item.state"
"""What became of items of a job."""
SAAS_JOB_ITEM_STATE_READ: Final = "read"
SAAS_JOB_ITEM_STATE_WRITTEN: Final = "written"
SAAS_JOB_ITEM_STATE_REJECTED: Final = "rejected"
SAAS_JOB_ITEM_STATE_FILTERED: Final = "filtered"
SAAS_JOB_BACKLOG_BEFORE: Final = "saas.job.backlog.before"
"""Items that waited for the job when the run started."""
SAAS_JOB_BACKLOG_AFTER: Final = "saas.job.backlog.after"
"""Items that waited for the job when the run ended."""
SAAS_CALENDAR_PROVIDER: Final = "saas.calendar.provider"
"""What kind of calendar it is."""
SAAS_CALENDAR_PROVIDER_CALDAV: Final = "caldav"
SAAS_CALENDAR_PROVIDER_ICS: Final = "ics"
SAAS_CALENDAR_PROVIDER_GOOGLE: Final = "google"
SAAS_CALENDAR_BUCKET: Final = "saas.calendar.bucket"
"""One of 256 groups of calendars, so that several processes with the same calendars can be told from several calendars."""
SAAS_CALENDAR_HASH: Final = "saas.calendar.hash"
"""Keyed pseudonym of the calendar, made like `user.hash`; its address holds logins and secrets."""
SAAS_CALENDAR_SYNC_MODE: Final = "saas.calendar.sync.mode"
"""How much was asked of the calendar."""
SAAS_CALENDAR_SYNC_MODE_INITIAL: Final = "initial"
SAAS_CALENDAR_SYNC_MODE_INCREMENTAL: Final = "incremental"
SAAS_CALENDAR_SYNC_MODE_FULL_RESYNC: Final = "full_resync"
SAAS_CALENDAR_SYNC_MODE_EMULATED: Final = "emulated"
SAAS_CALENDAR_SYNC_MODE_TRUNCATED: Final = "truncated"
SAAS_CALENDAR_SYNC_MODE_UNCHANGED: Final = "unchanged"
SAAS_CALENDAR_SYNC_OUTCOME: Final = "saas.calendar.sync.outcome"
"""How a synchronisation ended."""
SAAS_CALENDAR_SYNC_OUTCOME_SUCCESS: Final = "success"
SAAS_CALENDAR_SYNC_OUTCOME_PARTIAL: Final = "partial"
SAAS_CALENDAR_SYNC_OUTCOME_FAILURE: Final = "failure"
SAAS_CALENDAR_ITEMS_CREATED: Final = "saas.calendar.items.created"
"""Items that were new."""
SAAS_CALENDAR_ITEMS_CHANGED: Final = "saas.calendar.items.changed"
"""Items that had changed; with those new, where the source does not tell them apart."""
SAAS_CALENDAR_ITEMS_DELETED: Final = "saas.calendar.items.deleted"
"""Items that were gone."""
SAAS_CALENDAR_ITEMS_FAILED: Final = "saas.calendar.items.failed"
"""Items that could not be read or applied."""
SAAS_CALENDAR_ITEM_STATE: Final = "saas.calendar.item.state"
"""What became of items of a calendar."""
SAAS_CALENDAR_ITEM_STATE_CREATED: Final = "created"
SAAS_CALENDAR_ITEM_STATE_CHANGED: Final = "changed"
SAAS_CALENDAR_ITEM_STATE_DELETED: Final = "deleted"
SAAS_CALENDAR_ITEM_STATE_FAILED: Final = "failed"
SAAS_CALENDAR_BYTES: Final = "saas.calendar.bytes"
"""Bytes of the bodies that the calendar sent."""
SAAS_CALENDAR_REQUESTS: Final = "saas.calendar.requests"
"""Requests that the synchronisation took."""
SAAS_CALENDAR_DELAY: Final = "saas.calendar.delay"
"""Seconds since the last complete synchronisation of this calendar in this process."""
SAAS_CALENDAR_WAIT: Final = "saas.calendar.wait"
"""Seconds that the synchronisation slept because the server limits its rate."""
SAAS_CALENDAR_CONFLICTS: Final = "saas.calendar.conflicts"
"""Writes that the server refused because somebody else had written (412)."""
SAAS_CALENDAR_TOKEN_LOST: Final = "saas.calendar.token.lost"
"""True where the server no longer knew the token of the last synchronisation."""
SAAS_CALENDAR_FEED_STALE: Final = "saas.calendar.feed.stale"
"""True where the last complete synchronisation of a feed was longer ago than half again the interval that the feed suggests (RFC 7986, REFRESH-INTERVAL, or X-PUBLISHED-TTL)."""
SAAS_CALENDAR_FEED_AGE: Final = "saas.calendar.feed.age"
"""Seconds since the content of a feed last changed, by its `Last-Modified`, else as this process has seen it."""
SAAS_QUEUE_NAME: Final = "saas.queue.name"
"""The queue, named after what waits in it."""
SAAS_QUEUE_STATE: Final = "saas.queue.state"
"""What an item of a queue waits for."""
SAAS_QUEUE_STATE_READY: Final = "ready"
SAAS_QUEUE_STATE_IN_FLIGHT: Final = "in_flight"
SAAS_QUEUE_STATE_DELAYED: Final = "delayed"
SAAS_QUEUE_STATE_DEAD: Final = "dead"
SAAS_WORKER_STATE: Final = "saas.worker.state"
"""Whether a worker works."""
SAAS_WORKER_STATE_BUSY: Final = "busy"
SAAS_WORKER_STATE_IDLE: Final = "idle"
SAAS_CONNECTOR_ATTEMPTS: Final = "saas.connector.attempts"
"""Requests that one logical call took, the last included."""
SAAS_CONNECTOR_OUTCOME: Final = "saas.connector.outcome"
"""How a logical call that took several attempts ended."""
SAAS_CONNECTOR_OUTCOME_RECOVERED: Final = "recovered"
SAAS_CONNECTOR_OUTCOME_EXHAUSTED: Final = "exhausted"
SAAS_CONNECTOR_WAIT: Final = "saas.connector.wait"
"""Seconds that a logical call slept between its attempts."""
SAAS_QUOTA_FEATURE: Final = "saas.quota.feature"
"""The metered feature."""
SAAS_QUOTA_OUTCOME: Final = "saas.quota.outcome"
"""Whether a use of a metered feature was granted."""
SAAS_QUOTA_OUTCOME_GRANTED: Final = "granted"
SAAS_QUOTA_OUTCOME_REFUSED: Final = "refused"
OPERATION_HTTP_REQUEST: Final = "http.request"
OPERATION_CALENDAR_SYNCHRONIZE: Final = "calendar.synchronize"
OPERATION_AUDIT_RETENTION_JOB: Final = "audit.retention.job"
METRIC_SAAS_STREAM_TIME_TO_FIRST_BYTE: Final = "saas.stream.time_to_first_byte"
METRIC_SAAS_JOB_DURATION: Final = "saas.job.duration"
METRIC_SAAS_JOB_START_DELAY: Final = "saas.job.start.delay"
METRIC_SAAS_JOB_ACTIVE: Final = "saas.job.active"
METRIC_SAAS_JOB_OVERRUNS: Final = "saas.job.overruns"
METRIC_SAAS_JOB_OVERLAPS: Final = "saas.job.overlaps"
METRIC_SAAS_JOB_UNSTARTED: Final = "saas.job.unstarted"
METRIC_SAAS_JOB_ITEMS: Final = "saas.job.items"
METRIC_SAAS_JOB_BACKLOG: Final = "saas.job.backlog"
METRIC_SAAS_JOB_LAST_START_TIMESTAMP: Final = "saas.job.last_start.timestamp"
METRIC_SAAS_JOB_LAST_SUCCESS_TIMESTAMP: Final = "saas.job.last_success.timestamp"
METRIC_SAAS_JOB_ACTIVE_SINCE_TIMESTAMP: Final = "saas.job.active_since.timestamp"
METRIC_SAAS_JOB_RECOVERY_POINT_TIMESTAMP: Final = "saas.job.recovery_point.timestamp"
METRIC_SAAS_JOB_LAST_DURATION: Final = "saas.job.last_duration"
METRIC_SAAS_JOB_DECLARED_TIMESTAMP: Final = "saas.job.declared.timestamp"
METRIC_SAAS_JOB_PERIOD: Final = "saas.job.period"
METRIC_SAAS_JOB_MAX_RUNTIME: Final = "saas.job.max_runtime"
METRIC_SAAS_QUEUE_DEPTH: Final = "saas.queue.depth"
METRIC_SAAS_QUEUE_OLDEST_AGE: Final = "saas.queue.oldest.age"
METRIC_SAAS_QUEUE_WAIT_DURATION: Final = "saas.queue.wait.duration"
METRIC_SAAS_QUEUE_WORKERS: Final = "saas.queue.workers"
METRIC_SAAS_QUEUE_ARRIVALS: Final = "saas.queue.arrivals"
METRIC_SAAS_QUEUE_COMPLETIONS: Final = "saas.queue.completions"
METRIC_SAAS_QUEUE_WORKER_ERRORS: Final = "saas.queue.worker.errors"
METRIC_SAAS_QUEUE_UNREADABLE: Final = "saas.queue.unreadable"
METRIC_SAAS_CALENDAR_DELAY: Final = "saas.calendar.delay"
METRIC_SAAS_CALENDAR_SYNC_DURATION: Final = "saas.calendar.sync.duration"
METRIC_SAAS_CALENDAR_ITEMS: Final = "saas.calendar.items"
METRIC_SAAS_CALENDAR_TOKEN_LOSSES: Final = "saas.calendar.token.losses"
METRIC_SAAS_CALENDAR_CONFLICTS: Final = "saas.calendar.conflicts"
METRIC_SAAS_CALENDAR_OLDEST_SUCCESS_TIMESTAMP: Final = "saas.calendar.oldest_success.timestamp"
METRIC_SAAS_CONNECTOR_WAIT_DURATION: Final = "saas.connector.wait.duration"
METRIC_SAAS_CONNECTOR_CALLS: Final = "saas.connector.calls"
METRIC_SAAS_QUOTA_CONSUMPTIONS: Final = "saas.quota.consumptions"
METRIC_SAAS_QUOTA_USED: Final = "saas.quota.used"
METRIC_SAAS_QUOTA_LIMIT: Final = "saas.quota.limit"
METRIC_SAAS_QUOTA_EXHAUSTED: Final = "saas.quota.exhausted"

BINDABLE: Final[dict[str, str]] = {
    "audit_record_id": "audit.record.id",
    "legal_basis": "saas.gdpr.legal_basis",
    "processing_activity_id": "saas.gdpr.processing_activity.id",
    "retention_class": "saas.gdpr.retention_class",
}
"""Keyword of `bind()` to the attribute it sets."""

METRIC_DIMENSIONS: Final = frozenset(
    {
        "saas.actor.role",
        "saas.actor.type",
        "saas.calendar.bucket",
        "saas.calendar.item.state",
        "saas.calendar.provider",
        "saas.calendar.sync.mode",
        "saas.calendar.sync.outcome",
        "saas.connector.outcome",
        "saas.error.code",
        "saas.job.critical",
        "saas.job.item.state",
        "saas.job.outcome",
        "saas.job.system",
        "saas.operation",
        "saas.plan",
        "saas.queue.name",
        "saas.queue.state",
        "saas.quota.feature",
        "saas.quota.outcome",
        "saas.worker.state",
    }
)
"""Attributes with few enough values to be a metric label."""

SAFE: Final = frozenset(
    {
        "audit.record.id",
        "saas.actor.hash",
        "saas.actor.role",
        "saas.actor.type",
        "saas.calendar.bucket",
        "saas.calendar.bytes",
        "saas.calendar.conflicts",
        "saas.calendar.delay",
        "saas.calendar.feed.age",
        "saas.calendar.feed.stale",
        "saas.calendar.hash",
        "saas.calendar.item.state",
        "saas.calendar.items.changed",
        "saas.calendar.items.created",
        "saas.calendar.items.deleted",
        "saas.calendar.items.failed",
        "saas.calendar.provider",
        "saas.calendar.requests",
        "saas.calendar.sync.mode",
        "saas.calendar.sync.outcome",
        "saas.calendar.token.lost",
        "saas.calendar.wait",
        "saas.connector.attempts",
        "saas.connector.outcome",
        "saas.connector.wait",
        "saas.error.code",
        "saas.gdpr.legal_basis",
        "saas.gdpr.processing_activity.id",
        "saas.gdpr.retention_class",
        "saas.identity.edge",
        "saas.identity.origin",
        "saas.identity.scope",
        "saas.job.attempt",
        "saas.job.backlog.after",
        "saas.job.backlog.before",
        "saas.job.critical",
        "saas.job.item.state",
        "saas.job.items.filtered",
        "saas.job.items.read",
        "saas.job.items.rejected",
        "saas.job.items.written",
        "saas.job.outcome",
        "saas.job.overrun",
        "saas.job.recovery_point",
        "saas.job.run.id",
        "saas.job.schedule",
        "saas.job.scheduled_time",
        "saas.job.start.delay",
        "saas.job.system",
        "saas.job.trigger",
        "saas.operation",
        "saas.org.id",
        "saas.plan",
        "saas.queue.name",
        "saas.queue.state",
        "saas.quota.feature",
        "saas.quota.outcome",
        "saas.request.id",
        "saas.sampling.keep",
        "saas.worker.state",
    }
)
"""Attributes that never need scrubbing."""

UPSTREAM_IDENTITY: Final = ("user.hash", "user.id", "user.roles")
"""OpenTelemetry's own names in the identity groups."""

METRICS: Final[dict[str, tuple[str, str]]] = {
    "http.server.request.duration": (
        "s",
        "Duration of a request until its response was complete; its count is the requests.",
    ),
    "saas.stream.time_to_first_byte": (
        "s",
        "Time from the start of a request to the first byte of its body, for responses that are streamed.",
    ),
    "saas.job.duration": (
        "s",
        "Duration of a job, that is of an operation outside of any request; its count is the executions.",
    ),
    "saas.job.start.delay": ("s", "Time from when a run of a job was due to its start."),
    "saas.job.active": ("{run}", "Runs of a job that are at work."),
    "saas.job.overruns": ("{run}", "Runs of a job that took longer than was declared."),
    "saas.job.overlaps": ("{run}", "Runs of a job that started while an earlier one was at work."),
    "saas.job.unstarted": (
        "{run}",
        "Runs of a job that were due and not started, because they were missed or skipped.",
    ),
    "saas.job.items": ("{item}", "Items that jobs took in, and what became of them."),
    "saas.job.backlog": ("{item}", "Items that waited for a job when its last run ended."),
    "saas.job.last_start.timestamp": ("s", "When a job last started, in seconds since 1970."),
    "saas.job.last_success.timestamp": (
        "s",
        "When a job last ended well, in seconds since 1970; it keeps ageing when the process is dead.",
    ),
    "saas.job.active_since.timestamp": (
        "s",
        "Start of the run that is longest at work in this process, in seconds since 1970; 0 where none is.",
    ),
    "saas.job.recovery_point.timestamp": (
        "s",
        "The time of the data that the last successful run of a job proved to be restorable, in seconds since 1970, as the application said.",
    ),
    "saas.job.last_duration": ("s", "How long the last successful run of a job took."),
    "saas.job.declared.timestamp": (
        "s",
        "When a process declared that a job has a schedule, or that it has none any more, in seconds since 1970.",
    ),
    "saas.job.period": (
        "s",
        "The longest time between two runs of a job by its declared schedule; 0 where its scheduler took that away, because the job is paused, removed or over.",
    ),
    "saas.job.max_runtime": ("s", "How long a run of a job may take, as declared."),
    "saas.queue.depth": ("{item}", "Items in a queue, as the broker counts them."),
    "saas.queue.oldest.age": (
        "s",
        "How long the oldest ready item of a queue has waited, read at the broker; 0 where none waits.",
    ),
    "saas.queue.wait.duration": (
        "s",
        "Time from when an item was put into a queue to when a worker took it.",
    ),
    "saas.queue.workers": (
        "{worker}",
        "Workers that a process has for a queue; those of several processes add up.",
    ),
    "saas.queue.arrivals": ("{item}", "Items put into a queue."),
    "saas.queue.completions": (
        "{item}",
        "Items of a queue that workers have finished, failed ones too.",
    ),
    "saas.queue.worker.errors": (
        "{error}",
        "Times that a worker could not take an item or put it down, because of an error that is not the item's.",
    ),
    "saas.queue.unreadable": ("{reading}", "Times that a broker could not be asked about a queue."),
    "saas.calendar.delay": (
        "s",
        "Time from a change in the product to its confirmation by the calendar.",
    ),
    "saas.calendar.sync.duration": (
        "s",
        "Duration of a synchronisation with a calendar; its count is the synchronisations.",
    ),
    "saas.calendar.items": ("{item}", "Items that synchronisations with calendars dealt with."),
    "saas.calendar.token.losses": (
        "{token}",
        "Synchronisations whose token the server no longer knew.",
    ),
    "saas.calendar.conflicts": (
        "{write}",
        "Writes to a calendar that were refused because somebody else had written.",
    ),
    "saas.calendar.oldest_success.timestamp": (
        "s",
        "Of a group of calendars, the latest complete synchronisation by this process, or the last one of a calendar that failed since, in seconds since 1970; 0 where the group has no calendar any more.",
    ),
    "saas.connector.wait.duration": (
        "s",
        "Time that a logical call to a partner waited between two of its attempts, because of an error or a limit of rate.",
    ),
    "saas.connector.calls": (
        "{call}",
        "Logical calls to a partner that took more than one attempt.",
    ),
    "saas.quota.consumptions": ("{use}", "Uses of a metered feature, granted or refused."),
    "saas.quota.used": (
        "{use}",
        "Uses of a metered feature so far, of all organisations on a plan together.",
    ),
    "saas.quota.limit": (
        "{use}",
        "Uses of a metered feature that are allowed, of all organisations on a plan together.",
    ),
    "saas.quota.exhausted": (
        "{organisation}",
        "Organisations on a plan that have used a metered feature up.",
    ),
}
"""Name of a metric to its unit and its meaning."""

METRIC_ATTRIBUTES: Final[dict[str, frozenset[str]]] = {
    "http.server.request.duration": frozenset(
        (
            "http.request.method",
            "url.scheme",
            "http.route",
            "http.response.status_code",
            "error.type",
            "saas.operation",
            "saas.actor.role",
            "saas.plan",
        )
    ),
    "saas.stream.time_to_first_byte": frozenset(
        (
            "http.request.method",
            "url.scheme",
            "http.route",
            "http.response.status_code",
            "error.type",
            "saas.operation",
            "saas.actor.role",
            "saas.plan",
        )
    ),
    "saas.job.duration": frozenset(
        (
            "saas.operation",
            "saas.job.outcome",
            "error.type",
        )
    ),
    "saas.job.start.delay": frozenset(("saas.operation",)),
    "saas.job.active": frozenset(("saas.operation",)),
    "saas.job.overruns": frozenset(("saas.operation",)),
    "saas.job.overlaps": frozenset(("saas.operation",)),
    "saas.job.unstarted": frozenset(
        (
            "saas.operation",
            "saas.job.outcome",
        )
    ),
    "saas.job.items": frozenset(
        (
            "saas.operation",
            "saas.job.item.state",
        )
    ),
    "saas.job.backlog": frozenset(("saas.operation",)),
    "saas.job.last_start.timestamp": frozenset(("saas.operation",)),
    "saas.job.last_success.timestamp": frozenset(("saas.operation",)),
    "saas.job.active_since.timestamp": frozenset(("saas.operation",)),
    "saas.job.recovery_point.timestamp": frozenset(("saas.operation",)),
    "saas.job.last_duration": frozenset(("saas.operation",)),
    "saas.job.declared.timestamp": frozenset(
        (
            "saas.operation",
            "saas.job.critical",
        )
    ),
    "saas.job.period": frozenset(
        (
            "saas.operation",
            "saas.job.critical",
        )
    ),
    "saas.job.max_runtime": frozenset(
        (
            "saas.operation",
            "saas.job.critical",
        )
    ),
    "saas.queue.depth": frozenset(
        (
            "saas.queue.name",
            "saas.queue.state",
        )
    ),
    "saas.queue.oldest.age": frozenset(("saas.queue.name",)),
    "saas.queue.wait.duration": frozenset(("saas.queue.name",)),
    "saas.queue.workers": frozenset(
        (
            "saas.queue.name",
            "saas.worker.state",
        )
    ),
    "saas.queue.arrivals": frozenset(("saas.queue.name",)),
    "saas.queue.completions": frozenset(("saas.queue.name",)),
    "saas.queue.worker.errors": frozenset(
        (
            "saas.queue.name",
            "error.type",
        )
    ),
    "saas.queue.unreadable": frozenset(
        (
            "saas.queue.name",
            "error.type",
        )
    ),
    "saas.calendar.delay": frozenset(("error.type",)),
    "saas.calendar.sync.duration": frozenset(
        (
            "saas.calendar.provider",
            "saas.calendar.sync.mode",
            "saas.calendar.sync.outcome",
            "error.type",
        )
    ),
    "saas.calendar.items": frozenset(
        (
            "saas.calendar.provider",
            "saas.calendar.item.state",
        )
    ),
    "saas.calendar.token.losses": frozenset(("saas.calendar.provider",)),
    "saas.calendar.conflicts": frozenset(("saas.calendar.provider",)),
    "saas.calendar.oldest_success.timestamp": frozenset(
        (
            "saas.calendar.provider",
            "saas.calendar.bucket",
        )
    ),
    "saas.connector.wait.duration": frozenset(
        (
            "server.address",
            "error.type",
        )
    ),
    "saas.connector.calls": frozenset(
        (
            "server.address",
            "saas.connector.outcome",
        )
    ),
    "saas.quota.consumptions": frozenset(
        (
            "saas.quota.feature",
            "saas.quota.outcome",
            "saas.plan",
        )
    ),
    "saas.quota.used": frozenset(
        (
            "saas.quota.feature",
            "saas.plan",
        )
    ),
    "saas.quota.limit": frozenset(
        (
            "saas.quota.feature",
            "saas.plan",
        )
    ),
    "saas.quota.exhausted": frozenset(
        (
            "saas.quota.feature",
            "saas.plan",
        )
    ),
}
"""Name of a metric to its attributes, without those of its exemplars."""

METRIC_BOUNDARIES: Final[dict[str, tuple[float, ...]]] = {
    "http.server.request.duration": (
        0.005,
        0.01,
        0.025,
        0.05,
        0.075,
        0.1,
        0.2,
        0.25,
        0.5,
        0.75,
        1,
        2.5,
        5,
        7.5,
        10,
    ),
    "saas.stream.time_to_first_byte": (
        0.005,
        0.01,
        0.025,
        0.05,
        0.075,
        0.1,
        0.2,
        0.25,
        0.5,
        0.75,
        1,
        2.5,
        5,
        7.5,
        10,
    ),
    "saas.job.duration": (0.01, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 600, 1800, 3600),
    "saas.job.start.delay": (0.01, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 600, 1800, 3600),
    "saas.queue.wait.duration": (0.01, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 600, 1800, 3600),
    "saas.calendar.delay": (0.05, 0.1, 0.2, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
    "saas.calendar.sync.duration": (0.05, 0.1, 0.2, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
    "saas.connector.wait.duration": (0.01, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 600, 1800, 3600),
}
"""Name of a histogram to its boundaries, in its unit."""
