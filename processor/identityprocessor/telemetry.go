package identityprocessor

import (
	"context"
	"time"

	"go.opentelemetry.io/collector/processor"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/otel-shim/otel-shim/processor/identityprocessor/internal/metadata"
	"github.com/otel-shim/otel-shim/processor/identityprocessor/internal/semconv"
)

// reason is why a span leaves without identity, or why a trace is forgotten.
type reason uint8

const (
	reasonSettled       reason = iota // with identity: no reason is counted
	reasonRoot                        // its chain of parents ends at a root without identity
	reasonBarred                      // a barrier stands above it
	reasonConflict                    // an id above it came with contradicting identities
	reasonAmbiguous                   // its descendants do not agree
	reasonMismatch                    // what it carries of the group contradicts its ancestor
	reasonQuiet                       // nothing new came for its trace
	reasonWait                        // it was held as long as allowed
	reasonTTL                         // its trace was too old
	reasonBytes                       // too much was held
	reasonTraces                      // too many traces were remembered
	reasonSpans                       // too many spans were remembered
	reasonSpansPerTrace               // too much of its trace was remembered
	reasonShutdown                    // the processor was shut down
	reasons
)

var reasonNames = [reasons]string{
	"", "root", "barred", "conflict", "ambiguous", "mismatch", "quiet", "wait", "ttl", "bytes", "traces", "spans", "spans_per_trace", "shutdown",
}

// origins of a completed identity, as in saas.identity.origin.
const (
	fromAncestor = iota
	fromDescendants
	origins
)

var originNames = [origins]string{semconv.SaasIdentityOriginAncestor, semconv.SaasIdentityOriginDescendants}

// departures count spans that have left, by what they took with them.
type departures struct {
	completed  [maxGroups][origins]int64
	incomplete [reasons]int64
}

func (d *departures) add(s *stamps) {
	for g, identity := range s.taken {
		switch {
		case identity == nil:
		case s.inferred[g]:
			d.completed[g][fromDescendants]++
		default:
			d.completed[g][fromAncestor]++
		}
	}
	d.incomplete[s.reason]++
}

func (d *departures) merge(other *departures) {
	for g := range d.completed {
		for origin := range d.completed[g] {
			d.completed[g][origin] += other.completed[g][origin]
		}
	}
	for why := range d.incomplete {
		d.incomplete[why] += other.incomplete[why]
	}
}

// tally collects what happened since the last report, so that the instruments are touched once per
// batch, outside the lock.
type tally struct {
	departures
	seen, passed, conflicts, rejected int64
	restored, storage                 int64

	change   levels
	evicted  [reasons]int64
	holds    []time.Duration // from received to taken by the next consumer
	releases []time.Duration // from due to taken
}

// reporter feeds the generated instruments.
type reporter struct {
	*metadata.TelemetryBuilder
	groups  [][origins]metric.AddOption
	reasons [reasons]metric.AddOption
}

func newReporter(set processor.Settings, groups []group) (*reporter, error) {
	builder, err := metadata.NewTelemetryBuilder(set.TelemetrySettings)
	if err != nil {
		return nil, err
	}
	r := &reporter{TelemetryBuilder: builder}
	r.groups = make([][origins]metric.AddOption, len(groups))
	for i := range groups {
		for origin, name := range originNames {
			r.groups[i][origin] = metric.WithAttributeSet(attribute.NewSet(
				attribute.String("group", groups[i].name), attribute.String("origin", name),
			))
		}
	}
	for why, name := range reasonNames {
		r.reasons[why] = metric.WithAttributeSet(attribute.NewSet(attribute.String("reason", name)))
	}
	return r, nil
}

func (r *reporter) report(ctx context.Context, t *tally) {
	add(ctx, r.ProcessorIdentitySpansSeen, t.seen)
	add(ctx, r.ProcessorIdentitySpansPassed, t.passed)
	add(ctx, r.ProcessorIdentitySpansHeld, t.change.held)
	add(ctx, r.ProcessorIdentityHeldBytes, t.change.bytes)
	add(ctx, r.ProcessorIdentitySpanConflicts, t.conflicts)
	add(ctx, r.ProcessorIdentitySpansRejected, t.rejected)
	add(ctx, r.ProcessorIdentitySpansRestored, t.restored)
	add(ctx, r.ProcessorIdentityStorageFailures, t.storage)
	add(ctx, r.ProcessorIdentityTracesRemembered, t.change.traces)
	for g := range r.groups {
		for origin := range originNames {
			add(ctx, r.ProcessorIdentitySpansCompleted, t.completed[g][origin], r.groups[g][origin])
		}
	}
	for why := reasonSettled + 1; why < reasons; why++ {
		add(ctx, r.ProcessorIdentitySpansIncomplete, t.incomplete[why], r.reasons[why])
		add(ctx, r.ProcessorIdentityTracesEvicted, t.evicted[why], r.reasons[why])
	}
	for _, held := range t.holds {
		r.ProcessorIdentityHoldDuration.Record(ctx, held.Seconds())
	}
	for _, took := range t.releases {
		r.ProcessorIdentityReleaseDuration.Record(ctx, took.Seconds())
	}
}

// adder is what counters of both kinds have in common.
type adder interface {
	Add(context.Context, int64, ...metric.AddOption)
}

// add skips what did not change.
func add(ctx context.Context, to adder, n int64, options ...metric.AddOption) {
	if n != 0 {
		to.Add(ctx, n, options...)
	}
}
