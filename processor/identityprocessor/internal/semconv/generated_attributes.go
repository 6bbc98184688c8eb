// Code generated from semconv/attributes.yaml by `make generate`; do not edit. DO NOT EDIT.

// Package semconv holds the names of the semantic contract.
package semconv

import otelsemconv "go.opentelemetry.io/otel/semconv/v1.37.0"

const (
	// SaasOrgID: The organisation (tenant, customer account) on whose behalf the work is done.
	SaasOrgID = "saas.org.id"
	// SaasRequestID: The id of the inbound request, as returned to the caller in `X-Request-Id`.
	SaasRequestID = "saas.request.id"
	// SaasActorType: What kind of actor caused the work.
	SaasActorType = "saas.actor.type"
	// SaasActorTypeUser: A signed-in person.
	SaasActorTypeUser = "user"
	// SaasActorTypeAPIKey: A machine with an API key.
	SaasActorTypeAPIKey = "api_key"
	// SaasActorTypeJob: A scheduled or queued job.
	SaasActorTypeJob = "job"
	// SaasActorTypeAnonymous: A request that ended without authentication.
	SaasActorTypeAnonymous = "anonymous"
	// SaasActorHash: Keyed pseudonym of an actor that is not a person (API key, job), made like `user.hash`.
	SaasActorHash = "saas.actor.hash"
	// SaasActorRole: The role in which the actor acts.
	SaasActorRole = "saas.actor.role"
	// SaasPlan: The commercial plan of the organisation.
	SaasPlan = "saas.plan"
	// SaasIdentityOrigin: Where a completed identity came from; absent where the span carried its own.
	SaasIdentityOrigin = "saas.identity.origin"
	// SaasIdentityOriginAncestor: Completed from the nearest identified ancestor (proven by the tree).
	SaasIdentityOriginAncestor = "ancestor"
	// SaasIdentityOriginDescendants: Completed from descendants that all agree (inferred).
	SaasIdentityOriginDescendants = "descendants"
	// SaasIdentityEdge: True on a server span whose parent came from a peer that is not trusted; identity is never inherited across it, in either direction.
	SaasIdentityEdge = "saas.identity.edge"
	// SaasIdentityScope: A barrier for inheritance, set where work for several organisations meets.
	SaasIdentityScope = "saas.identity.scope"
	// SaasIdentityScopeNone: This span has no identity of its own and none may be inferred for it.
	SaasIdentityScopeNone = "none"
	// SaasIdentityScopeMulti: Work for several organisations below; identity stops here in both directions.
	SaasIdentityScopeMulti = "multi"
	// SaasOperation: The business operation, `<domain>.<verb>`; `http.request` for a request without a name of its own.
	SaasOperation = "saas.operation"
	// SaasErrorCode: The error as the caller saw it; the application's own code, else the HTTP status or exception class.
	SaasErrorCode = "saas.error.code"
	// SaasExtra: What the application bound under a name of its own, as `saas.extra.<name>`.
	SaasExtra = "saas.extra"
	// SaasGDPRProcessingActivityID: The entry in the record of processing activities (GDPR Art. 30).
	SaasGDPRProcessingActivityID = "saas.gdpr.processing_activity.id"
	// SaasGDPRLegalBasis: The legal basis of the processing (GDPR Art. 6), as a short code.
	SaasGDPRLegalBasis = "saas.gdpr.legal_basis"
	// SaasGDPRRetentionClass: The retention class of the data touched.
	SaasGDPRRetentionClass = "saas.gdpr.retention_class"
	// SaasJobOutcome: How a job ended.
	SaasJobOutcome = "saas.job.outcome"
	// SaasJobOutcomeSuccess: The job ended as it should.
	SaasJobOutcomeSuccess = "success"
	// SaasJobOutcomeFailure: The job ended with an exception.
	SaasJobOutcomeFailure = "failure"
	// SaasQueueName: The queue, named after what waits in it.
	SaasQueueName = "saas.queue.name"
	// SaasQuotaFeature: The metered feature.
	SaasQuotaFeature = "saas.quota.feature"
	// SaasQuotaOutcome: Whether a use of a metered feature was granted.
	SaasQuotaOutcome = "saas.quota.outcome"
	// SaasQuotaOutcomeGranted: The use was within the quota.
	SaasQuotaOutcomeGranted = "granted"
	// SaasQuotaOutcomeRefused: The quota was used up.
	SaasQuotaOutcomeRefused = "refused"
	// AuditRecordID: The id of the audit record that this work produced.
	AuditRecordID = "audit.record.id"
	// SaasSamplingKeep: True where sampling must not remove the span; set from the first audited span of a trace on.
	SaasSamplingKeep = "saas.sampling.keep"
)

// GroupOrg are the members that travel with saas.org.id.
var GroupOrg = []string{
	SaasActorType,
	SaasActorHash,
	SaasActorRole,
	SaasPlan,
	SaasGDPRProcessingActivityID,
	SaasGDPRLegalBasis,
	SaasGDPRRetentionClass,
	string(otelsemconv.UserHashKey),
	string(otelsemconv.UserIDKey),
	string(otelsemconv.UserRolesKey),
}

// GroupRequest are the members that travel with saas.request.id.
var GroupRequest = []string{}
