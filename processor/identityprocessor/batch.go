package identityprocessor

import (
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/otel-shim/otel-shim/processor/identityprocessor/internal/semconv"
)

// outcome is what judging one batch led to. It counts only once the batch has been passed on.
type outcome struct {
	spans int
	left  departures
	held  []*hold

	ready   bool    // held spans are due
	repeats bool    // one of the spans has an id that came before
	riders  []*hold // go with the batch, see ride.go
}

// candidate is a span of the batch and its place in its trace.
type candidate struct {
	span     ptrace.Span
	position int // among all spans of the batch
	trace    *trace
	node     int32
	own      claims
}

// judge remembers all spans of a batch, completes those for which it is settled, and takes out
// those that must wait. The rest of the batch stays as it was.
func (m *memory) judge(batch ptrace.Traces, now time.Duration) (o outcome) {
	candidates, repeats := m.scratch[:0], m.repeats
	o.spans = m.survey(batch, now, func(c *candidate, lacking bool) {
		if lacking {
			candidates = append(candidates, *c)
		}
	})
	waiting := candidates[:0]
	for _, c := range candidates {
		if m.decide(&c, &o) {
			waiting = append(waiting, c)
		}
	}
	if len(waiting) > 0 {
		o.held = m.extract(batch, waiting, now)
	}
	o.ready, o.repeats = len(m.holding.due) > 0, m.repeats != repeats
	m.reuse(candidates)
	return o
}

// mostScratch is how many candidates have room that is kept: more than most batches have.
const mostScratch = 1024

// reuse keeps the room of candidates for the next batch, and nothing that they refer to.
func (m *memory) reuse(candidates []candidate) {
	clear(candidates)
	if cap(candidates) <= mostScratch {
		m.scratch = candidates
	}
}

// recall takes all spans of a batch that an earlier process held.
func (m *memory) recall(batch ptrace.Traces, now time.Duration) []*hold {
	var all []candidate
	m.survey(batch, now, func(c *candidate, _ bool) { all = append(all, *c) })
	return m.extract(batch, all, now)
}

// survey remembers all spans before any is judged, because parents often stand after their
// children. It shows each that has a place in a tree, and says whether it lacks a group.
func (m *memory) survey(batch ptrace.Traces, now time.Duration, show func(c *candidate, lacking bool)) (spans int) {
	var c candidate
	inResource, inSpan := &m.rules.inResource, &m.rules.inSpan
	for _, rs := range batch.ResourceSpans().All() {
		m.rules.read(rs.Resource().Attributes(), inResource)
		s := surveyor{memory: m, now: now, resource: inResource, span: inSpan}
		s.service = m.rules.remote.serviceOf(rs.Resource().Attributes())
		s.own = m.rules.own(inResource, &reading{}, &claims{}, nil)
		for _, ss := range rs.ScopeSpans().All() {
			for _, c.span = range ss.Spans().All() {
				c.position = spans
				if placed, lacking := s.see(&c); placed {
					show(&c, lacking)
				}
				spans++
			}
		}
	}
	return spans
}

// surveyor reads the spans of one resource.
type surveyor struct {
	*memory
	now            time.Duration
	service        *service
	resource, span *reading
	own            claims // of the resource
}

// see remembers the span of a candidate and fills in the rest of it. A span without trace or span
// id has no place in a tree and passes as it is.
func (s *surveyor) see(c *candidate) (placed, lacking bool) {
	s.rules.read(c.span.Attributes(), s.span)
	keep := s.rules.keepIn(s.span)
	if keep {
		c.span.Attributes().PutBool(semconv.SaasSamplingKeep, true)
	}
	if c.span.TraceID().IsEmpty() || c.span.SpanID().IsEmpty() {
		return false, false
	}
	a := arrival{
		trace: c.span.TraceID(), id: c.span.SpanID(), parent: c.span.ParentSpanID(),
		service: s.service, marks: s.rules.marksOf(c.span, s.span), keep: keep,
	}
	a.own = s.rules.own(s.span, s.resource, &s.own, s.trace(a.trace, s.now))
	c.trace, c.node = s.observe(&a, s.now)
	c.own = a.own
	if c.trace.more.kept && !keep {
		c.span.Attributes().PutBool(semconv.SaasSamplingKeep, true)
	}
	return true, !s.rules.complete(&a.own)
}

// complete says whether no group is lacking.
func (r *rules) complete(own *claims) bool {
	for g := range r.groups {
		if !own[g].isExplicit() {
			return false
		}
	}
	return true
}

// satisfied says whether no group that holds is lacking, with what was taken.
func (r *rules) satisfied(own, taken *claims) bool {
	for g := range r.groups {
		if r.groups[g].hold && taken[g] == nil && !own[g].isExplicit() {
			return false
		}
	}
	return true
}

// decide completes a span as far as it is settled, and says whether the span must wait.
func (m *memory) decide(c *candidate, o *outcome) (wait bool) {
	v := c.trace.judge(c.node, &c.own)
	if v.wait {
		return true
	}
	s := stamps{taken: v.stamps, reason: v.reason}
	s.stamp(c.span.Attributes(), m.rules.vocabulary)
	o.left.add(&s)
	return false
}

// extractor takes spans out of a batch, by their position among all its spans.
type extractor struct {
	waiting  []candidate // in order of position
	position int
	now      time.Duration
	sizes    ptrace.ProtoMarshaler
	origins  *newestOrigins
	held     []*hold
}

// extract moves the waiting spans out of the batch. What that empties goes, everything else keeps
// its place.
func (m *memory) extract(batch ptrace.Traces, waiting []candidate, now time.Duration) []*hold {
	x := extractor{waiting: waiting, now: now, origins: &m.origins, held: make([]*hold, 0, len(waiting))}
	batch.ResourceSpans().RemoveIf(func(rs ptrace.ResourceSpans) bool {
		before := len(x.held)
		rs.ScopeSpans().RemoveIf(func(ss ptrace.ScopeSpans) bool { return x.fromScope(rs, ss) })
		return len(x.held) > before && rs.ScopeSpans().Len() == 0
	})
	return x.held
}

func (x *extractor) fromScope(rs ptrace.ResourceSpans, ss ptrace.ScopeSpans) (emptied bool) {
	end := x.position + ss.Spans().Len()
	if !x.nextBefore(end) {
		x.position = end
		return false
	}
	origin := x.originOf(rs, ss)
	ss.Spans().RemoveIf(func(span ptrace.Span) bool {
		x.position++
		if !x.nextBefore(x.position) {
			return false
		}
		x.held = append(x.held, x.holdOf(span, origin))
		x.waiting = x.waiting[1:]
		return true
	})
	return ss.Spans().Len() == 0
}

func (x *extractor) nextBefore(position int) bool {
	return len(x.waiting) > 0 && x.waiting[0].position < position
}

func (x *extractor) holdOf(span ptrace.Span, from *origin) *hold {
	c := &x.waiting[0]
	h := &hold{origin: from, trace: c.trace, node: c.node, own: c.own, since: x.now}
	h.size = heapOfHold + int64(x.sizes.SpanSize(span)) + heapIn(span)
	h.span = ptrace.NewSpan()
	span.MoveTo(h.span)
	return h
}

func (x *extractor) originOf(rs ptrace.ResourceSpans, ss ptrace.ScopeSpans) *origin {
	if known := x.origins.find(rs, ss); known != nil {
		return known.again()
	}
	o := x.newOrigin(rs, ss)
	x.origins.add(o)
	return o
}

func (x *extractor) newOrigin(rs ptrace.ResourceSpans, ss ptrace.ScopeSpans) *origin {
	o := &origin{
		resource: pcommon.NewResource(), resourceSchema: rs.SchemaUrl(),
		scope: pcommon.NewInstrumentationScope(), scopeSchema: ss.SchemaUrl(),
	}
	rs.Resource().CopyTo(o.resource)
	ss.Scope().CopyTo(o.scope)
	alone := ptrace.NewTraces()
	o.placeIn(alone)
	o.size = heapOfOrigin + int64(x.sizes.TracesSize(alone)) + heapOf(o.resource.Attributes()) + heapOf(o.scope.Attributes())
	return o
}
