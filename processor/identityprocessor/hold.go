package identityprocessor

import (
	"cmp"
	"container/list"
	"slices"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/otel-shim/otel-shim/processor/identityprocessor/internal/semconv"
)

// hold is one span that waits for its identity.
type hold struct {
	span   ptrace.Span
	origin *origin
	trace  *trace
	node   int32
	own    claims
	stamps stamps        // what it takes, once it leaves
	since  time.Duration // when it was received
	due    time.Duration // when it could leave
	number uint64        // in order of admission
	size   int64         // on the heap
	reason reason        // why it waits no longer
	entry  *entry        // in the store, if there is one
	place  *list.Element // in holding.byArrival, while it waits
	before *hold         // waiting under the same span id
	after  *hold
}

// stamps are what a span takes with it.
type stamps struct {
	taken    claims
	inferred [maxGroups]bool // from descendants, by group
	keep     bool            // its trace must not be sampled out
	reason   reason          // why a group that holds is not among it
}

// waiting is what a trace has while spans of it are held.
type waiting struct {
	spans map[int32]*hold // by node
	woken []int32         // nodes in spans for which something changed
	bytes int64           // of spans
	seen  time.Duration   // when the trace's newest span was received
	quiet *list.Element   // in holding.byQuiet
}

// origin is the resource and scope that held spans of one batch share.
type origin struct {
	resource       pcommon.Resource
	scope          pcommon.InstrumentationScope
	resourceSchema string
	scopeSchema    string
	size           int64
	waiting        int // spans
	leaving        int // spans that are due
}

// Parts of `max_held_bytes`: what one trace may have waiting, and what may be on its way out on top
// of all that wait, before senders are told to come back.
const traceShare, leavingShare = 4, 8

// holding is all held spans: those that wait, and those that are due and have not been taken by
// the next consumer yet.
type holding struct {
	limit     int64
	now       func() time.Duration
	byArrival list.List // of *hold, the oldest in front
	byQuiet   list.List // of *trace with waiting spans, the longest quiet in front
	due       []*hold
	admitted  uint64 // ever
	count     int
	waiting   int64 // bytes
	leaving   int64 // bytes of those that are due or with the next consumer now
}

// full says that there is no room: the waiting ones are within the limit, so those that are due do
// not leave, because the next consumer refuses them or takes its time.
func (w *holding) full() bool { return w.bytes() >= w.limit+w.limit/leavingShare }

func (w *holding) bytes() int64 { return w.waiting + w.leaving }

func (w *holding) admit(h *hold) {
	h.number = w.admitted
	w.admitted++
	h.place = insert(&w.byArrival, h, func(other *hold) bool { return other.since <= h.since })
	w.count++
	w.waiting += h.size
	if h.origin.waiting++; h.origin.waiting == 1 {
		w.waiting += h.origin.size
	}
	w.awaken(h.trace, h.since)
	h.link()
}

// awaken says that a trace, which has spans waiting from now on, had a span received then.
func (w *holding) awaken(t *trace, seen time.Duration) {
	switch {
	case t.more.waiting == nil:
		t.extended().waiting = &waiting{spans: map[int32]*hold{}}
	case t.more.waiting.seen >= seen:
		return
	default:
		w.byQuiet.Remove(t.more.waiting.quiet)
	}
	t.more.waiting.seen = seen
	t.more.waiting.quiet = insert(&w.byQuiet, t, func(other *trace) bool { return other.more.waiting.seen <= seen })
}

// insert puts an entry behind the last that comes before it. Batches are admitted in the order in
// which the next consumer took them; most arrived in that order.
func insert[E any](into *list.List, entry E, before func(E) bool) *list.Element {
	for at := into.Back(); at != nil; at = at.Prev() {
		if before(at.Value.(E)) {
			return into.InsertAfter(entry, at)
		}
	}
	return into.PushFront(entry)
}

// dismiss makes a waiting span due.
func (w *holding) dismiss(h *hold, why reason) {
	w.byArrival.Remove(h.place)
	h.place, h.reason, h.due = nil, why, w.now()
	w.move(h)
	w.due = append(w.due, h)
	h.unlink()
	if t := h.trace; len(t.more.waiting.spans) == 0 {
		w.byQuiet.Remove(t.more.waiting.quiet)
		t.more.waiting = nil
	}
}

// link puts a span in front of those that wait under its id.
func (h *hold) link() {
	h.after = h.trace.more.waiting.spans[h.node]
	if h.after != nil {
		h.after.before = h
	}
	h.trace.more.waiting.spans[h.node] = h
	h.trace.more.waiting.bytes += h.size
}

func (h *hold) unlink() {
	switch {
	case h.before != nil:
		h.before.after = h.after
	case h.after != nil:
		h.trace.more.waiting.spans[h.node] = h.after
	default:
		delete(h.trace.more.waiting.spans, h.node)
	}
	if h.after != nil {
		h.after.before = h.before
	}
	h.before, h.after = nil, nil
	h.trace.more.waiting.bytes -= h.size
}

// move counts a span as leaving. Its origin counts on both sides while it has spans on both.
func (w *holding) move(h *hold) {
	w.waiting -= h.size
	w.leaving += h.size
	if h.origin.waiting--; h.origin.waiting == 0 {
		w.waiting -= h.origin.size
	}
	if h.origin.leaving++; h.origin.leaving == 1 {
		w.leaving += h.origin.size
	}
}

// dismissAll makes all waiting spans of a trace due, the oldest first.
func (w *holding) dismissAll(t *trace, why reason) {
	if t.more.waiting == nil {
		return
	}
	var waiting []*hold
	for _, h := range t.more.waiting.spans {
		for ; h != nil; h = h.after {
			waiting = append(waiting, h)
		}
	}
	w.dismissInOrder(waiting, why)
}

// dismissInOrder makes spans due in the order of their arrival.
func (w *holding) dismissInOrder(holds []*hold, why reason) {
	slices.SortFunc(holds, func(a, b *hold) int {
		return cmp.Or(cmp.Compare(a.since, b.since), cmp.Compare(a.number, b.number))
	})
	for _, h := range holds {
		w.dismiss(h, why)
	}
}

// dismissReceivedBy makes due what was received by a moment. Those of one trace follow each other,
// so that what stands below them is worked out once.
func (w *holding) dismissReceivedBy(moment time.Duration, why reason) {
	var late []*hold
	turns := map[*trace]int{}
	for e := w.byArrival.Front(); e != nil && e.Value.(*hold).since <= moment; e = e.Next() {
		h := e.Value.(*hold)
		if _, known := turns[h.trace]; !known {
			turns[h.trace] = len(turns)
		}
		late = append(late, h)
	}
	slices.SortStableFunc(late, func(a, b *hold) int { return cmp.Compare(turns[a.trace], turns[b.trace]) })
	for _, h := range late {
		w.dismiss(h, why)
	}
}

// wake makes due what has become settled in a trace.
func (w *holding) wake(t *trace) {
	if t.more.waiting == nil || len(t.more.waiting.woken) == 0 {
		return
	}
	slices.Sort(t.more.waiting.woken)
	var settled []*hold
	for _, n := range slices.Compact(t.more.waiting.woken) {
		for h := t.more.waiting.spans[n]; h != nil; h = h.after {
			if !t.judge(n, &h.own).wait {
				settled = append(settled, h)
			}
		}
	}
	t.more.waiting.woken = t.more.waiting.woken[:0]
	w.dismissInOrder(settled, reasonSettled)
}

// fit makes spans due until the waiting ones are within the limit: those of this trace if it has
// more than its share, else the oldest.
func (w *holding) fit(t *trace) {
	if t.more.waiting != nil && t.more.waiting.bytes > w.limit/traceShare {
		w.dismissAll(t, reasonBytes)
	}
	for w.waiting > w.limit {
		w.dismiss(w.oldest(), reasonBytes)
	}
}

func (w *holding) oldest() *hold { return w.byArrival.Front().Value.(*hold) }

func (w *holding) take(most int) []*hold {
	n := min(most, len(w.due))
	taken := slices.Clone(w.due[:n])
	w.due = slices.Delete(w.due, 0, n)
	return taken
}

// putBack makes spans due again that the next consumer did not take. One that was refused alone goes
// to the end: where it is itself the reason, those behind it leave all the same.
func (w *holding) putBack(holds []*hold) {
	at := 0
	if len(holds) == 1 {
		at = len(w.due)
	}
	w.due = slices.Insert(w.due, at, holds...)
}

// drop ends the accounting of a span that has left.
func (w *holding) drop(h *hold) {
	w.count--
	w.leaving -= h.size
	if h.origin.leaving--; h.origin.leaving == 0 {
		w.leaving -= h.origin.size
	}
}

// assemble puts held spans into a batch, each under its own resource and scope, by moving or else by
// copying them.
func assemble(holds []*hold, words *vocabulary, move bool) (ptrace.Traces, cargo) {
	batch, c := ptrace.NewTraces(), cargo{holds: holds, spans: make([]ptrace.Span, len(holds)), moved: move}
	places, put := map[*origin]ptrace.SpanSlice{}, ptrace.Span.CopyTo
	if move {
		put = ptrace.Span.MoveTo
	}
	for i, h := range holds {
		into, known := places[h.origin]
		if !known {
			into = h.origin.placeIn(batch)
			places[h.origin] = into
		}
		c.spans[i] = into.AppendEmpty()
		put(h.span, c.spans[i])
		c.note(i, h.stamps.stamp(c.spans[i].Attributes(), words))
	}
	return batch, c
}

// takeBack copies a span that was moved into a batch and refused, as it was before it took something with
// it: next time that may be something else.
func (h *hold) takeBack(span ptrace.Span, was []replaced, words *vocabulary) {
	span.CopyTo(h.span)
	var added uint64
	for g, taken := range h.stamps.taken {
		if taken != nil {
			added |= taken.mask() &^ h.own[g].mask()
		}
	}
	marked := h.stamps.origin(words) != ""
	h.span.Attributes().RemoveIf(func(name string, _ pcommon.Value) bool {
		if name == "" {
			return false
		}
		bit, known := words.bitOf(name)
		return known && added&(1<<bit) != 0 || name == semconv.SaasIdentityOrigin && marked
	})
	for _, r := range was {
		r.value.CopyTo(h.span.Attributes().PutEmpty(r.name))
	}
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

// divide tells the spans that need not be sent again from those that must.
func (a *answer) divide(holds []*hold) (gone, refused []*hold) {
	switch {
	case a.err == nil || a.final:
		return holds, nil
	case !a.partly:
		return nil, holds
	}
	left := countIDs(a.part)
	for _, h := range holds {
		if id := idOf(h.span); left[id] > 0 {
			left[id]--
			refused = append(refused, h)
		} else {
			gone = append(gone, h)
		}
	}
	return gone, refused
}

// spanKey identifies a span.
type spanKey struct {
	trace pcommon.TraceID
	span  pcommon.SpanID
}

func idOf(span ptrace.Span) spanKey { return spanKey{span.TraceID(), span.SpanID()} }

func countIDs(batch ptrace.Traces) map[spanKey]int {
	counts := map[spanKey]int{}
	for _, rs := range batch.ResourceSpans().All() {
		for _, ss := range rs.ScopeSpans().All() {
			for _, span := range ss.Spans().All() {
				counts[idOf(span)]++
			}
		}
	}
	return counts
}
