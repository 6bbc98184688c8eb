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
AUDIT_RECORD_ID: Final = "audit.record.id"
"""The id of the audit record that this work produced."""
OPERATION_HTTP_REQUEST: Final = "http.request"

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
        "saas.operation",
        "saas.plan",
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
        "saas.operation",
        "saas.org.id",
        "saas.plan",
        "saas.request.id",
    }
)
"""Attributes that never need scrubbing."""

UPSTREAM_IDENTITY: Final = ("user.hash", "user.id", "user.roles")
"""OpenTelemetry's own names in the identity groups."""
