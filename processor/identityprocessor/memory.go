package identityprocessor

import (
	"hash/maphash"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
)

// memory is all that is known about recent traces and the spans held for them. It has no lock of
// its own.
type memory struct {
	rules   *rules
	traces  directory
	last    *trace // of the newest span: its neighbours are mostly of the same
	byAge   ages
	spans   int // weight of all traces
	repeats int // spans whose id was there before, ever
	lapses  lapses
	kept    marked
	holding holding
	origins newestOrigins
	scratch []candidate // its room is used again
	// What was inferred for the trace of which the last released span was: more of it may leave next.
	inferred inferences
	tally    tally
	shown    levels // as last reported

	quiet, wait, ttl time.Duration
	maxTraces        int
	maxSpans         int
	maxSpansPerTrace int
}

func newMemory(cfg *Config, now func() time.Duration) *memory {
	return &memory{
		rules: &rules{
			reader: reader{vocabulary: newVocabulary(cfg)},
			remote: remoteRule{mode: cfg.Remote, lists: cfg.RemoteServices, seed: maphash.MakeSeed()},
			upward: cfg.Upward == upwardLocal,
		},
		traces:           newDirectory(),
		inferred:         inferences{},
		lapses:           make(lapses, lapsesPerTrace*cfg.MaxTraces),
		kept:             marked{ttl: cfg.TTL, most: cfg.MaxTraces},
		holding:          holding{limit: cfg.MaxHeldBytes, now: now},
		quiet:            cfg.Quiet,
		wait:             cfg.Wait,
		ttl:              cfg.TTL,
		maxTraces:        cfg.MaxTraces,
		maxSpans:         cfg.MaxSpans,
		maxSpansPerTrace: cfg.MaxSpansPerTrace,
	}
}

// observe remembers a received span and makes due the held spans that it settles.
func (m *memory) observe(a *arrival, now time.Duration) (*trace, int32) {
	t := m.trace(a.trace, now)
	if t.weight() >= m.maxSpansPerTrace && t.growsBy(a) {
		m.forget(t, reasonSpansPerTrace, now)
		t = m.trace(a.trace, now)
	}
	before := t.weight()
	delete(m.inferred, t)
	n, again, clash := t.receive(a)
	m.spans += t.weight() - before
	if again {
		m.repeats++
	}
	if clash {
		m.tally.conflicts++
	}
	m.touch(t, a, now)
	m.holding.wake(t)
	for m.spans > m.maxSpans {
		m.forget(m.byAge.oldest, reasonSpans, now)
	}
	return t, n
}

func (m *memory) trace(id pcommon.TraceID, now time.Duration) *trace {
	if m.last != nil && m.last.id == id {
		return m.last
	}
	if t := m.traces.get(id); t != nil {
		m.last = t
		return t
	}
	if m.traces.count >= m.maxTraces {
		m.forget(m.byAge.oldest, reasonTraces, now)
	}
	t := &trace{id: id, rules: m.rules, expires: seconds(now + m.ttl), more: nothingMore}
	if m.kept.has(id) {
		t.extended().kept = true
	}
	m.byAge.pushBack(t)
	m.traces.add(t)
	m.last = t
	return t
}

// touch renews what a received span renews: the trace is not quiet, and identity of its own makes
// it live longer. A span that must be kept makes all later ones of its trace kept.
func (m *memory) touch(t *trace, a *arrival, now time.Duration) {
	if t.more.waiting != nil {
		m.holding.awaken(t, now)
	}
	if a.keep {
		t.extended().kept = true
		m.kept.add(a.trace, now)
	}
	for _, own := range a.own {
		if own.isExplicit() && t.expires != seconds(now+m.ttl) {
			t.expires = seconds(now + m.ttl)
			m.byAge.moveToBack(t)
			return
		}
	}
}

// forget lets a trace go. Whoever still has it can finish judging by it, but not wait for it.
func (m *memory) forget(t *trace, why reason, now time.Duration) {
	m.holding.dismissAll(t, why)
	m.byAge.remove(t)
	m.traces.remove(t.id)
	m.spans -= t.weight()
	m.lapses.add(t.id, now)
	t.bytes = -int32(why)
	if m.last == t {
		m.last = nil
	}
	if why != reasonTTL {
		m.tally.evicted[why]++
	}
}

// keep holds the spans of an accepted batch. What has been settled since, or can no longer be, is
// due at once.
func (m *memory) keep(holds []*hold) {
	for _, h := range holds {
		m.holding.admit(h)
		switch {
		case !h.trace.judge(h.node, &h.own).wait:
			m.holding.dismiss(h, reasonSettled)
		case h.trace.forgotten() != 0:
			m.holding.dismiss(h, h.trace.forgotten())
		default:
			m.holding.fit(h.trace)
		}
	}
}

// expire makes due whatever has waited long enough, and forgets what is too old.
func (m *memory) expire(now time.Duration) {
	m.kept.turn(now)
	for e := m.holding.byQuiet.Front(); e != nil && e.Value.(*trace).more.waiting.seen+m.quiet <= now; e = m.holding.byQuiet.Front() {
		m.holding.dismissAll(e.Value.(*trace), reasonQuiet)
	}
	m.holding.dismissReceivedBy(now-m.wait, reasonWait)
	for m.byAge.count > 0 && m.byAge.oldest.expires <= uint32(now/time.Second) {
		m.forget(m.byAge.oldest, reasonTTL, now)
	}
}

// dismissEverything makes all waiting spans due, the oldest first.
func (m *memory) dismissEverything(why reason) {
	for m.holding.byArrival.Len() > 0 {
		m.holding.dismiss(m.holding.oldest(), why)
	}
}

// accept accounts for a batch that was passed on, and holds what was taken out of it.
func (m *memory) accept(o *outcome) {
	m.tally.seen += int64(o.spans)
	m.tally.passed += int64(o.spans - len(o.held))
	m.tally.merge(&o.left)
	m.keep(o.held)
}

// take removes up to so many due spans and decides what each of them takes with it.
func (m *memory) take(most int) []*hold {
	holds := m.holding.take(most)
	for _, h := range holds {
		h.stamps = m.conclude(h)
	}
	for t := range m.inferred {
		if len(m.holding.due) == 0 || t != holds[len(holds)-1].trace {
			delete(m.inferred, t)
		}
	}
	return holds
}

// conclude is the last word on a held span. From descendants it takes something only where it was
// given the time for that.
func (m *memory) conclude(h *hold) stamps {
	v := h.trace.judge(h.node, &h.own)
	s := stamps{taken: v.stamps, reason: v.reason, keep: h.trace.more.kept || m.kept.has(h.trace.id)}
	if !v.wait {
		return s
	}
	timely := h.reason == reasonQuiet || h.reason == reasonWait
	if timely && m.rules.upward && m.covered(h) {
		s.inferred = m.inferred.of(h.trace).complete(h, &v)
		s.taken, s.reason = v.stamps, v.reason
	}
	switch {
	case m.rules.satisfied(&h.own, &s.taken):
		s.reason = reasonSettled
	case s.reason == reasonSettled || !timely:
		s.reason = h.reason
	}
	return s
}

// depart accounts for held spans that have left.
func (m *memory) depart(holds []*hold, now time.Duration) {
	for _, h := range holds {
		m.holding.drop(h)
		m.tally.departures.add(&h.stamps)
		m.tally.holds = append(m.tally.holds, now-h.since)
		m.tally.releases = append(m.tally.releases, now-h.due)
	}
}

// levels are what there is now.
type levels struct{ held, bytes, traces int64 }

// drain hands over what has happened since it was last called.
func (m *memory) drain() tally {
	t, now := m.tally, levels{int64(m.holding.count), m.holding.bytes(), int64(m.traces.count)}
	t.change = levels{now.held - m.shown.held, now.bytes - m.shown.bytes, now.traces - m.shown.traces}
	m.tally, m.shown = tally{}, now
	return t
}
