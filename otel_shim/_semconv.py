"""Names of the semantic contract. Generated from semconv/attributes.yaml by `make generate`; do not edit."""

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
SAAS_JOB_OUTCOME: Final = "saas.job.outcome"
"""How a job ended."""
SAAS_JOB_OUTCOME_SUCCESS: Final = "success"
SAAS_JOB_OUTCOME_FAILURE: Final = "failure"
SAAS_QUEUE_NAME: Final = "saas.queue.name"
"""The queue, named after what waits in it."""
SAAS_QUOTA_FEATURE: Final = "saas.quota.feature"
"""The metered feature."""
SAAS_QUOTA_OUTCOME: Final = "saas.quota.outcome"
"""Whether a use of a metered feature was granted."""
SAAS_QUOTA_OUTCOME_GRANTED: Final = "granted"
SAAS_QUOTA_OUTCOME_REFUSED: Final = "refused"
AUDIT_RECORD_ID: Final = "audit.record.id"
"""The id of the audit record that this work produced."""
SAAS_SAMPLING_KEEP: Final = "saas.sampling.keep"
"""True where sampling must not remove the span; set from the first audited span of a trace on."""
OPERATION_HTTP_REQUEST: Final = "http.request"
METRIC_SAAS_STREAM_TIME_TO_FIRST_BYTE: Final = "saas.stream.time_to_first_byte"
METRIC_SAAS_JOB_DURATION: Final = "saas.job.duration"
METRIC_SAAS_QUEUE_DEPTH: Final = "saas.queue.depth"
METRIC_SAAS_CALENDAR_DELAY: Final = "saas.calendar.delay"
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
        "saas.error.code",
        "saas.job.outcome",
        "saas.operation",
        "saas.plan",
        "saas.queue.name",
        "saas.quota.feature",
        "saas.quota.outcome",
    }
)
"""Attributes with few enough values to be a metric label."""

SAFE: Final = frozenset(
    {
        "audit.record.id",
        "saas.actor.hash",
        "saas.actor.role",
        "saas.actor.type",
        "saas.error.code",
        "saas.gdpr.legal_basis",
        "saas.gdpr.processing_activity.id",
        "saas.gdpr.retention_class",
        "saas.identity.edge",
        "saas.identity.origin",
        "saas.identity.scope",
        "saas.job.outcome",
        "saas.operation",
        "saas.org.id",
        "saas.plan",
        "saas.queue.name",
        "saas.quota.feature",
        "saas.quota.outcome",
        "saas.request.id",
        "saas.sampling.keep",
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
    "saas.queue.depth": ("{item}", "Items that wait for a job."),
    "saas.calendar.delay": (
        "s",
        "Time from a change in the product to its confirmation by the calendar.",
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
    "saas.queue.depth": frozenset(("saas.queue.name",)),
    "saas.calendar.delay": frozenset(("error.type",)),
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
    "saas.calendar.delay": (0.05, 0.1, 0.2, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
}
"""Name of a histogram to its boundaries, in its unit."""
