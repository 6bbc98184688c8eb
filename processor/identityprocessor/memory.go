package identityprocessor

import (
	"container/list"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
)

// memory is all that is known about recent traces and the spans held for them. It has no lock of
// its own.
type memory struct {
	rules   *rules
	traces  map[pcommon.TraceID]*trace
	byAge   list.List // of *trace, the next to expire in front
	holding holding
	tally   tally
	shown   levels // as last reported

	quiet, wait, ttl time.Duration
	maxTraces        int
	maxSpans         int
}

func newMemory(cfg *Config) *memory {
	return &memory{
		rules: &rules{
			reader: reader{vocabulary: newVocabulary(cfg.Groups)},
			remote: remoteRule{mode: cfg.Remote, lists: cfg.RemoteServices},
		},
		traces:    map[pcommon.TraceID]*trace{},
		holding:   holding{limit: cfg.MaxHeldBytes},
		quiet:     cfg.Quiet,
		wait:      cfg.Wait,
		ttl:       cfg.TTL,
		maxTraces: cfg.MaxTraces,
		maxSpans:  cfg.MaxSpansPerTrace,
	}
}

// observe remembers a received span and makes due the held spans that it settles.
func (m *memory) observe(a *arrival, now time.Duration) (*trace, int32) {
	t := m.trace(a.trace, now)
	if len(t.nodes) >= m.maxSpans && t.find(a.id) == absent {
		m.forget(t, reasonSpansPerTrace)
		t = m.trace(a.trace, now)
	}
	n, clash := t.receive(a)
	if clash {
		m.tally.conflicts++
	}
	m.touch(t, a, now)
	m.holding.wake(t)
	return t, n
}

func (m *memory) trace(id pcommon.TraceID, now time.Duration) *trace {
	if t := m.traces[id]; t != nil {
		return t
	}
	if len(m.traces) >= m.maxTraces {
		m.forget(m.oldest(), reasonTraces)
	}
	t := &trace{id: id, rules: m.rules, expires: now + m.ttl}
	t.age = m.byAge.PushBack(t)
	m.traces[id] = t
	return t
}

// touch renews what a received span renews: the trace is not quiet, and identity of its own makes
// it live longer.
func (m *memory) touch(t *trace, a *arrival, now time.Duration) {
	t.seen = now
	if t.quiet != nil {
		m.holding.byQuiet.MoveToBack(t.quiet)
	}
	for _, own := range a.own {
		if own != nil && own.explicit {
			t.expires = now + m.ttl
			m.byAge.MoveToBack(t.age)
			return
		}
	}
}

func (m *memory) oldest() *trace { return m.byAge.Front().Value.(*trace) }

// forget lets a trace go. Whoever still has it can finish judging by it, but not wait for it.
func (m *memory) forget(t *trace, why reason) {
	m.holding.dismissAll(t, why)
	m.byAge.Remove(t.age)
	delete(m.traces, t.id)
	t.forgotten = why
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
		case h.trace.forgotten != 0:
			m.holding.dismiss(h, h.trace.forgotten)
		}
	}
	m.holding.fit()
}

// expire makes due whatever has waited long enough, and forgets what is too old.
func (m *memory) expire(now time.Duration) {
	for e := m.holding.byQuiet.Front(); e != nil && e.Value.(*trace).seen+m.quiet <= now; e = m.holding.byQuiet.Front() {
		m.holding.dismissAll(e.Value.(*trace), reasonQuiet)
	}
	for m.holding.byArrival.Len() > 0 && m.holding.oldest().since+m.wait <= now {
		m.holding.dismiss(m.holding.oldest(), reasonWait)
	}
	for m.byAge.Len() > 0 && m.oldest().expires <= now {
		m.forget(m.oldest(), reasonTTL)
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

// depart accounts for held spans that have left.
func (m *memory) depart(holds []*hold, now time.Duration) {
	for _, h := range holds {
		m.holding.drop(h)
		m.tally.departures.add(&h.stamps, h.reason)
		m.tally.holds = append(m.tally.holds, now-h.since)
	}
}

// levels are what there is now.
type levels struct{ held, bytes, traces int64 }

// drain hands over what has happened since it was last called.
func (m *memory) drain() tally {
	t, now := m.tally, levels{int64(m.holding.count), m.holding.bytes(), int64(len(m.traces))}
	t.change = levels{now.held - m.shown.held, now.bytes - m.shown.bytes, now.traces - m.shown.traces}
	m.tally, m.shown = tally{}, now
	return t
}
