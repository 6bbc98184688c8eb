// Code generated from semconv/attributes.yaml and semconv/work.yaml by `make generate`; do not edit. DO NOT EDIT.

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
	// AuditRecordID: The id of the audit record that this work produced.
	AuditRecordID = "audit.record.id"
	// SaasSamplingKeep: True where sampling must not remove the span; set from the first audited span of a trace on.
	SaasSamplingKeep = "saas.sampling.keep"
	// SaasJobRunID: The run; attempts of one run share it.
	SaasJobRunID = "saas.job.run.id"
	// SaasJobAttempt: Which attempt of the run this is, from 1.
	SaasJobAttempt = "saas.job.attempt"
	// SaasJobSystem: What ran the job.
	SaasJobSystem = "saas.job.system"
	// SaasJobSystemFunction: A decorated function.
	SaasJobSystemFunction = "function"
	// SaasJobSystemApscheduler: APScheduler.
	SaasJobSystemApscheduler = "apscheduler"
	// SaasJobSystemCelery: Celery.
	SaasJobSystemCelery = "celery"
	// SaasJobSystemRq: RQ.
	SaasJobSystemRq = "rq"
	// SaasJobTrigger: Why the job ran.
	SaasJobTrigger = "saas.job.trigger"
	// SaasJobTriggerSchedule: Its schedule was due.
	SaasJobTriggerSchedule = "schedule"
	// SaasJobTriggerManual: Somebody
	SaasJobTriggerManual = "manual"
	// SaasJobTriggerRetry: An earlier attempt failed.
	SaasJobTriggerRetry = "retry"
	// SaasJobTriggerCatchUp: Its time had passed while nothing ran it.
	SaasJobTriggerCatchUp = "catch_up"
	// SaasJobScheduledTime: When the run was due, RFC 3339.
	SaasJobScheduledTime = "saas.job.scheduled_time"
	// SaasJobStartDelay: Seconds from when the run was due to its start.
	SaasJobStartDelay = "saas.job.start.delay"
	// SaasJobRecoveryPoint: The time of the data that the run proved to be restorable, RFC 3339, as the application said.
	SaasJobRecoveryPoint = "saas.job.recovery_point"
	// SaasJobOutcome: How a run ended.
	SaasJobOutcome = "saas.job.outcome"
	// SaasJobOutcomeSuccess: The job ended as it should.
	SaasJobOutcomeSuccess = "success"
	// SaasJobOutcomeFailure: The job ended with an exception.
	SaasJobOutcomeFailure = "failure"
	// SaasJobOutcomePartial: The job ended
	SaasJobOutcomePartial = "partial"
	// SaasJobOutcomeSkipped: A run was due and not started
	SaasJobOutcomeSkipped = "skipped"
	// SaasJobOutcomeMissed: A run was due and not started in time.
	SaasJobOutcomeMissed = "missed"
	// SaasJobOutcomeTimeout: The job took longer than it may and was ended.
	SaasJobOutcomeTimeout = "timeout"
	// SaasJobOverrun: True where the run took longer than was declared.
	SaasJobOverrun = "saas.job.overrun"
	// SaasJobCritical: Whether somebody is to be woken when the job fails, is late or does not run.
	SaasJobCritical = "saas.job.critical"
	// SaasJobSchedule: When the job is to run, as declared, five-field cron or `every 15m`.
	SaasJobSchedule = "saas.job.schedule"
	// SaasJobItemsRead: Items that the run took in; those written, rejected and filtered make up the same number.
	SaasJobItemsRead = "saas.job.items.read"
	// SaasJobItemsWritten: Items that the run dealt with.
	SaasJobItemsWritten = "saas.job.items.written"
	// SaasJobItemsRejected: Items that failed.
	SaasJobItemsRejected = "saas.job.items.rejected"
	// SaasJobItemsFiltered: Items that needed nothing.
	SaasJobItemsFiltered = "saas.job.items.filtered"
	// SaasJobItemState: What became of items of a job.
	SaasJobItemState = "saas.job.item.state"
	// SaasJobItemStateRead: Taken in.
	SaasJobItemStateRead = "read"
	// SaasJobItemStateWritten: Dealt with.
	SaasJobItemStateWritten = "written"
	// SaasJobItemStateRejected: Failed.
	SaasJobItemStateRejected = "rejected"
	// SaasJobItemStateFiltered: Needed nothing.
	SaasJobItemStateFiltered = "filtered"
	// SaasJobBacklogBefore: Items that waited for the job when the run started.
	SaasJobBacklogBefore = "saas.job.backlog.before"
	// SaasJobBacklogAfter: Items that waited for the job when the run ended.
	SaasJobBacklogAfter = "saas.job.backlog.after"
	// SaasCalendarProvider: What kind of calendar it is.
	SaasCalendarProvider = "saas.calendar.provider"
	// SaasCalendarProviderCaldav: A CalDAV server.
	SaasCalendarProviderCaldav = "caldav"
	// SaasCalendarProviderIcs: A feed of iCalendar text.
	SaasCalendarProviderIcs = "ics"
	// SaasCalendarProviderGoogle: Google Calendar.
	SaasCalendarProviderGoogle = "google"
	// SaasCalendarBucket: One of 256 groups of calendars, so that several processes with the same calendars can be told from several calendars.
	SaasCalendarBucket = "saas.calendar.bucket"
	// SaasCalendarHash: Keyed pseudonym of the calendar, made like `user.hash`; its address holds logins and secrets.
	SaasCalendarHash = "saas.calendar.hash"
	// SaasCalendarSyncMode: How much was asked of the calendar.
	SaasCalendarSyncMode = "saas.calendar.sync.mode"
	// SaasCalendarSyncModeInitial: Everything
	SaasCalendarSyncModeInitial = "initial"
	// SaasCalendarSyncModeIncremental: What changed since the last token.
	SaasCalendarSyncModeIncremental = "incremental"
	// SaasCalendarSyncModeFullResync: Everything again
	SaasCalendarSyncModeFullResync = "full_resync"
	// SaasCalendarSyncModeEmulated: Everything
	SaasCalendarSyncModeEmulated = "emulated"
	// SaasCalendarSyncModeTruncated: A part; the server has more.
	SaasCalendarSyncModeTruncated = "truncated"
	// SaasCalendarSyncModeUnchanged: Nothing; the server said so.
	SaasCalendarSyncModeUnchanged = "unchanged"
	// SaasCalendarSyncOutcome: How a synchronisation ended.
	SaasCalendarSyncOutcome = "saas.calendar.sync.outcome"
	// SaasCalendarSyncOutcomeSuccess: Complete.
	SaasCalendarSyncOutcomeSuccess = "success"
	// SaasCalendarSyncOutcomePartial: Complete
	SaasCalendarSyncOutcomePartial = "partial"
	// SaasCalendarSyncOutcomeFailure: Not complete.
	SaasCalendarSyncOutcomeFailure = "failure"
	// SaasCalendarItemsCreated: Items that were new.
	SaasCalendarItemsCreated = "saas.calendar.items.created"
	// SaasCalendarItemsChanged: Items that had changed; with those new, where the source does not tell them apart.
	SaasCalendarItemsChanged = "saas.calendar.items.changed"
	// SaasCalendarItemsDeleted: Items that were gone.
	SaasCalendarItemsDeleted = "saas.calendar.items.deleted"
	// SaasCalendarItemsFailed: Items that could not be read or applied.
	SaasCalendarItemsFailed = "saas.calendar.items.failed"
	// SaasCalendarItemState: What became of items of a calendar.
	SaasCalendarItemState = "saas.calendar.item.state"
	// SaasCalendarItemStateCreated: New.
	SaasCalendarItemStateCreated = "created"
	// SaasCalendarItemStateChanged: Changed.
	SaasCalendarItemStateChanged = "changed"
	// SaasCalendarItemStateDeleted: Gone.
	SaasCalendarItemStateDeleted = "deleted"
	// SaasCalendarItemStateFailed: Could not be read or applied.
	SaasCalendarItemStateFailed = "failed"
	// SaasCalendarBytes: Bytes of the bodies that the calendar sent.
	SaasCalendarBytes = "saas.calendar.bytes"
	// SaasCalendarRequests: Requests that the synchronisation took.
	SaasCalendarRequests = "saas.calendar.requests"
	// SaasCalendarDelay: Seconds since the last complete synchronisation of this calendar in this process.
	SaasCalendarDelay = "saas.calendar.delay"
	// SaasCalendarWait: Seconds that the synchronisation slept because the server limits its rate.
	SaasCalendarWait = "saas.calendar.wait"
	// SaasCalendarConflicts: Writes that the server refused because somebody else had written (412).
	SaasCalendarConflicts = "saas.calendar.conflicts"
	// SaasCalendarTokenLost: True where the server no longer knew the token of the last synchronisation.
	SaasCalendarTokenLost = "saas.calendar.token.lost"
	// SaasCalendarFeedStale: True where the last complete synchronisation of a feed was longer ago than half again the interval that the feed suggests (RFC 7986, REFRESH-INTERVAL, or X-PUBLISHED-TTL).
	SaasCalendarFeedStale = "saas.calendar.feed.stale"
	// SaasCalendarFeedAge: Seconds since the content of a feed last changed, by its `Last-Modified`, else as this process has seen it.
	SaasCalendarFeedAge = "saas.calendar.feed.age"
	// SaasQueueName: The queue, named after what waits in it.
	SaasQueueName = "saas.queue.name"
	// SaasQueueState: What an item of a queue waits for.
	SaasQueueState = "saas.queue.state"
	// SaasQueueStateReady: Waits for a worker.
	SaasQueueStateReady = "ready"
	// SaasQueueStateInFlight: A worker has it.
	SaasQueueStateInFlight = "in_flight"
	// SaasQueueStateDelayed: Waits for its time.
	SaasQueueStateDelayed = "delayed"
	// SaasQueueStateDead: Failed too often.
	SaasQueueStateDead = "dead"
	// SaasWorkerState: Whether a worker works.
	SaasWorkerState = "saas.worker.state"
	// SaasWorkerStateBusy: At work.
	SaasWorkerStateBusy = "busy"
	// SaasWorkerStateIdle: Waiting for work.
	SaasWorkerStateIdle = "idle"
	// SaasConnectorAttempts: Requests that one logical call took, the last included.
	SaasConnectorAttempts = "saas.connector.attempts"
	// SaasConnectorOutcome: How a logical call that took several attempts ended.
	SaasConnectorOutcome = "saas.connector.outcome"
	// SaasConnectorOutcomeRecovered: A later attempt succeeded.
	SaasConnectorOutcomeRecovered = "recovered"
	// SaasConnectorOutcomeExhausted: No attempt succeeded.
	SaasConnectorOutcomeExhausted = "exhausted"
	// SaasConnectorWait: Seconds that a logical call slept between its attempts.
	SaasConnectorWait = "saas.connector.wait"
	// SaasQuotaFeature: The metered feature.
	SaasQuotaFeature = "saas.quota.feature"
	// SaasQuotaOutcome: Whether a use of a metered feature was granted.
	SaasQuotaOutcome = "saas.quota.outcome"
	// SaasQuotaOutcomeGranted: The use was within the quota.
	SaasQuotaOutcomeGranted = "granted"
	// SaasQuotaOutcomeRefused: The quota was used up.
	SaasQuotaOutcomeRefused = "refused"
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
