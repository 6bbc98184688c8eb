package identityprocessor

import (
	"container/list"
	"errors"
	"slices"
	"time"

	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// hold is one span that waits for its identity.
type hold struct {
	span   ptrace.Span
	origin *origin
	trace  *trace
	node   int32
	own    claims
	stamps claims        // what it takes, once it leaves
	since  time.Duration // when it was received
	size   int64
	reason reason        // why it leaves without identity
	place  *list.Element // in holding.byArrival, while it waits
}

// origin is the resource and scope that held spans of one batch share.
type origin struct {
	resource       pcommon.Resource
	scope          pcommon.InstrumentationScope
	resourceSchema string
	scopeSchema    string
	size           int64
	spans          int // still held
}

// holding is all held spans: those that wait, and those that are due and have not been taken by
// the next consumer yet.
type holding struct {
	limit     int64
	byArrival list.List // of *hold, the oldest in front
	byQuiet   list.List // of *trace with waiting spans, the longest quiet in front
	due       []*hold
	count     int
	bytes     int64 // of all
	leaving   int64 // of those due
	refused   bool  // the next consumer did not take the last release
}

// full says that there is no room, and that none can be made.
func (w *holding) full() bool { return w.refused && w.bytes >= w.limit }

func (w *holding) admit(h *hold) {
	h.place = w.byArrival.PushBack(h)
	w.count++
	w.bytes += h.size
	if h.origin.spans == 0 {
		w.bytes += h.origin.size
	}
	h.origin.spans++
	t := h.trace
	if t.held == nil {
		t.held = map[int32][]*hold{}
		t.quiet = w.byQuiet.PushBack(t)
	}
	t.held[h.node] = append(t.held[h.node], h)
}

// dismiss makes a waiting span due.
func (w *holding) dismiss(h *hold, why reason) {
	w.byArrival.Remove(h.place)
	h.place, h.reason = nil, why
	w.leaving += h.size
	w.due = append(w.due, h)
	t := h.trace
	rest := slices.DeleteFunc(t.held[h.node], func(other *hold) bool { return other == h })
	if len(rest) > 0 {
		t.held[h.node] = rest
		return
	}
	if delete(t.held, h.node); len(t.held) == 0 {
		w.byQuiet.Remove(t.quiet)
		t.held, t.quiet = nil, nil
	}
}

// dismissAll makes all waiting spans of a trace due, the oldest first.
func (w *holding) dismissAll(t *trace, why reason) {
	var waiting []*hold
	for _, at := range t.held {
		waiting = append(waiting, at...)
	}
	slices.SortFunc(waiting, func(a, b *hold) int { return int(a.since - b.since) })
	for _, h := range waiting {
		w.dismiss(h, why)
	}
}

// wake makes due what has become settled in a trace.
func (w *holding) wake(t *trace) {
	for _, n := range t.woken {
		for _, h := range slices.Clone(t.held[n]) {
			if !t.judge(n, &h.own).wait {
				w.dismiss(h, reasonSettled)
			}
		}
	}
	t.woken = t.woken[:0]
}

// fit makes the oldest due until the waiting ones are within the limit.
func (w *holding) fit() {
	for w.bytes-w.leaving > w.limit && w.byArrival.Len() > 0 {
		w.dismiss(w.oldest(), reasonBytes)
	}
}

func (w *holding) oldest() *hold { return w.byArrival.Front().Value.(*hold) }

// take removes up to max due spans and decides what each of them takes with it.
func (w *holding) take(most int) []*hold {
	n := min(most, len(w.due))
	taken := slices.Clone(w.due[:n])
	w.due = slices.Delete(w.due, 0, n)
	for _, h := range taken {
		v := h.trace.judge(h.node, &h.own)
		h.stamps = v.stamps
		if !v.wait {
			h.reason = v.reason
		}
	}
	return taken
}

// putBack makes spans due again that the next consumer did not take.
func (w *holding) putBack(holds []*hold) {
	w.refused = true
	w.due = slices.Insert(w.due, 0, holds...)
}

// drop ends the accounting of a span that has left.
func (w *holding) drop(h *hold) {
	w.refused = false
	w.count--
	w.bytes -= h.size
	w.leaving -= h.size
	if h.origin.spans--; h.origin.spans == 0 {
		w.bytes -= h.origin.size
	}
}

// assemble copies held spans into a batch, each under its own resource and scope. It copies
// because the batch belongs to the next consumer even when that refuses it.
func assemble(holds []*hold, words *vocabulary) ptrace.Traces {
	batch := ptrace.NewTraces()
	places := map[*origin]ptrace.SpanSlice{}
	for _, h := range holds {
		spans, known := places[h.origin]
		if !known {
			spans = h.origin.placeIn(batch)
			places[h.origin] = spans
		}
		span := spans.AppendEmpty()
		h.span.CopyTo(span)
		h.stamps.stamp(span.Attributes(), words)
	}
	return batch
}

func (o *origin) placeIn(batch ptrace.Traces) ptrace.SpanSlice {
	rs := batch.ResourceSpans().AppendEmpty()
	o.resource.CopyTo(rs.Resource())
	rs.SetSchemaUrl(o.resourceSchema)
	ss := rs.ScopeSpans().AppendEmpty()
	o.scope.CopyTo(ss.Scope())
	ss.SetSchemaUrl(o.scopeSchema)
	return ss.Spans()
}

// divide tells the spans that a refusing consumer took from those it did not. It took none, unless
// its error names the part it did not take.
func divide(holds []*hold, err error) (taken, refused []*hold) {
	var partial consumererror.Traces
	if !errors.As(err, &partial) {
		return nil, holds
	}
	type id struct {
		trace pcommon.TraceID
		span  pcommon.SpanID
	}
	left := map[id]int{}
	for _, rs := range partial.Data().ResourceSpans().All() {
		for _, ss := range rs.ScopeSpans().All() {
			for _, span := range ss.Spans().All() {
				left[id{span.TraceID(), span.SpanID()}]++
			}
		}
	}
	for _, h := range holds {
		if of := (id{h.span.TraceID(), h.span.SpanID()}); left[of] > 0 {
			left[of]--
			refused = append(refused, h)
		} else {
			taken = append(taken, h)
		}
	}
	return taken, refused
}
