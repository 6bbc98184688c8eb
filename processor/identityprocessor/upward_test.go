package identityprocessor

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"

	"context"

	"github.com/otel-shim/otel-shim/processor/identityprocessor/internal/semconv"
)

const (
	remoteChild = 0x300 // its parent is in another process
	localChild  = 0x100
)

// by returns a span as another service sends it.
func (s plain) by(service uint8, flags uint32) plain {
	s.service, s.flags = service, flags
	return s
}

// Each case is what arrives at once, and how it is after it was left alone.
func TestUpward(t *testing.T) {
	client := func(s plain) plain { s.client = true; return s }
	of := func(org string, s plain) plain { s.org = org; return s }
	multi := func(s plain) plain { s.scope = semconv.SaasIdentityScopeMulti; return s }
	edge := func(s plain) plain { s.edge = true; return s }
	user := func(name string, s plain) plain { s.user = name; return s }
	for name, test := range map[string]struct {
		spans []plain
		want  []string
	}{
		"root of its process":        {[]plain{unknown(1, 0), unknown(2, 1), known(3, 2)}, []string{"1 org-a", "2 org-a", "3"}},
		"nothing below":              {[]plain{unknown(1, 0), unknown(2, 1)}, []string{"1", "2"}},
		"siblings get nothing":       {[]plain{unknown(1, 9), known(2, 9)}, []string{"1", "2"}},
		"an inferred is no source":   {[]plain{unknown(1, 0), unknown(2, 1), known(3, 1)}, []string{"1 org-a", "2", "3"}},
		"they disagree":              {[]plain{unknown(1, 0), known(2, 1), of("org-b", known(3, 1))}, []string{"1", "2", "3"}},
		"one below disagrees deeply": {[]plain{unknown(1, 0), known(2, 1), of("org-b", known(3, 2).by(2, remoteChild))}, []string{"1", "2", "3"}},
		"the caller":                 {[]plain{client(unknown(2, 1)), known(3, 2).by(1, remoteChild)}, []string{"2 org-a", "3"}},
		"the caller of unknown work": {[]plain{client(unknown(2, 1)), unknown(3, 2).by(1, remoteChild), known(4, 3).by(1, localChild)}, []string{"2 org-a", "3 org-a", "4"}},
		"not above the caller":       {[]plain{unknown(1, 0), client(unknown(2, 1)), known(3, 2).by(1, remoteChild)}, []string{"1", "2 org-a", "3"}},
		"no caller by kind":          {[]plain{unknown(2, 1), known(3, 2).by(1, remoteChild)}, []string{"2", "3"}},
		"a caller elsewhere":         {[]plain{client(unknown(2, 1).by(2, 0)), known(3, 2).by(1, remoteChild)}, []string{"2", "3"}},
		"not across an edge":         {[]plain{client(unknown(2, 1)), edge(known(3, 2).by(1, remoteChild))}, []string{"2", "3"}},
		"below an edge":              {[]plain{edge(unknown(2, 1)), known(3, 2)}, []string{"2 org-a", "3"}},
		"work of several below":      {[]plain{unknown(1, 0), multi(unknown(2, 1)), known(3, 1)}, []string{"1", "2", "3"}},
		"work of several":            {[]plain{multi(unknown(2, 1)), known(3, 2)}, []string{"2", "3"}},
		"contradicts itself":         {[]plain{user("u1", unknown(1, 0)), user("u2", known(2, 1))}, []string{"1", "2"}},
		"says the same in part":      {[]plain{user("u1", unknown(1, 0)), user("u1", known(2, 1))}, []string{"1 org-a", "2"}},
		"partly filled contradicts":  {[]plain{unknown(1, 0), user("u1", known(2, 1)), user("u2", unknown(3, 2))}, []string{"1", "2", "3"}},
		"a torn span below":          {[]plain{unknown(1, 0), known(2, 1), unknown(4, 0), known(2, 4)}, []string{"1", "2", "4", "2"}},
		"a cycle":                    {[]plain{unknown(1, 2), unknown(2, 1), known(3, 2)}, []string{"1", "2", "3"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, nil)
				time.Sleep(6 * time.Second)
				b.send(t, test.spans...)
				time.Sleep(11 * time.Second)
				assert.ElementsMatch(t, test.want, b.out())
			})
		})
	}
}

// What could have been missed is not inferred from: at the start, for spans longer than the memory
// reaches back, after the trace was forgotten, and where clocks are wrong.
func TestUpwardNeedsMemoryOfTheWholeSpan(t *testing.T) {
	for name, test := range map[string]struct {
		before, start, end time.Duration
		want               string
	}{
		"just started":      {5 * time.Second, 0, 0, "1"},
		"long enough":       {10 * time.Second, 0, 4 * time.Second, "1 org-a"},
		"longer than known": {10 * time.Second, 0, 5 * time.Second, "1"},
		"ends before":       {10 * time.Second, time.Second, 0, "1"},
		"began in 1970":     {10 * time.Second, 0, 1 << 62, "1"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, nil)
				time.Sleep(test.before)
				batch := batchOf([]plain{unknown(1, 0), known(2, 1)})
				span := batch.ResourceSpans().At(0).ScopeSpans().At(0).Spans().At(0)
				span.SetStartTimestamp(pcommon.Timestamp(test.start))
				span.SetEndTimestamp(pcommon.Timestamp(test.end))
				assert.NoError(t, b.ConsumeTraces(context.Background(), batch))
				time.Sleep(11 * time.Second)
				assert.ElementsMatch(t, []string{test.want, "2"}, b.out())
			})
		})
	}
}

func TestUpwardAfterTheTraceWasForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(cfg *Config) { cfg.MaxSpansPerTrace = 3 })
		time.Sleep(20 * time.Second)
		other := known(2, 1)
		other.org = "org-b"
		b.send(t, other, known(5, 4), known(7, 6))
		b.send(t, unknown(1, 0), known(3, 1))
		time.Sleep(11 * time.Second)
		assert.ElementsMatch(t, []string{"2", "5", "7", "1", "3"}, b.out())
	})
}

// Released because of a limit or the end, a span takes nothing from below: there was no time.
func TestUpwardOnlyWhenLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		time.Sleep(10 * time.Second)
		b.send(t, unknown(1, 0), known(2, 1))
		assert.NoError(t, b.Shutdown(context.Background()))
		assert.ElementsMatch(t, []string{"1", "2"}, b.out())
	})
}

func TestUpwardSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		time.Sleep(10 * time.Second)
		other := known(4, 3).in(2)
		other.org = "org-b"
		b.send(t, unknown(1, 0), known(2, 1), unknown(3, 0).in(2), other, known(5, 3).in(2), unknown(6, 0).in(3))
		time.Sleep(11 * time.Second)
		for span := range spansOf(b.sink.AllTraces()) {
			if span.Name() == "1" {
				assert.Equal(t, semconv.SaasIdentityOriginDescendants, read(span).origin)
			}
		}
		b.incomplete(t, map[string]int64{"ambiguous": 1, "root": 1})
	})
}

// A span with an audit reference is marked, and whatever comes for its trace later: held spans that
// leave, spans of other batches, and those after the trace was forgotten.
func TestKeepMarksTheRestOfTheTrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(cfg *Config) { cfg.MaxSpansPerTrace = 3 })
		b.send(t, known(1, 0), unknown(3, 9), known(1, 0).in(2))
		audited := batchOf([]plain{known(2, 1)})
		audited.ResourceSpans().At(0).ScopeSpans().At(0).Spans().At(0).Attributes().PutStr(semconv.AuditRecordID, "a1")
		assert.NoError(t, b.ConsumeTraces(context.Background(), audited))
		b.send(t, known(4, 1), known(5, 1), known(6, 1), known(2, 1).in(2))
		time.Sleep(11 * time.Second)
		assert.Equal(t, map[string]bool{"1": false, "2": true, "3": true, "4": true, "5": true, "6": true}, kept(b.sink.AllTraces(), 1))
		assert.Equal(t, map[string]bool{"1": false, "2": false}, kept(b.sink.AllTraces(), 2))
	})
}

func TestKeepMarkLivesForTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		audited := batchOf([]plain{known(1, 0)})
		audited.ResourceSpans().At(0).ScopeSpans().At(0).Spans().At(0).Attributes().PutStr(semconv.AuditRecordID, "a1")
		assert.NoError(t, b.ConsumeTraces(context.Background(), audited))
		time.Sleep(61 * time.Second) // the trace is forgotten, its mark is not
		b.send(t, known(2, 1))
		time.Sleep(121 * time.Second)
		b.send(t, known(3, 1))
		assert.Equal(t, map[string]bool{"1": true, "2": true, "3": false}, kept(b.sink.AllTraces(), 1))
	})
}

// A span without a place in any trace is marked for itself.
func TestKeepWithoutIDs(t *testing.T) {
	b := newBench(t, nil)
	batch := ptrace.NewTraces()
	batch.ResourceSpans().AppendEmpty().ScopeSpans().AppendEmpty().Spans().AppendEmpty().Attributes().PutStr(semconv.AuditRecordID, "a1")
	assert.NoError(t, b.ConsumeTraces(context.Background(), batch))
	assert.Equal(t, map[string]bool{"": true}, kept(b.sink.AllTraces(), 0))
}

func kept(batches []ptrace.Traces, trace byte) map[string]bool {
	found := map[string]bool{}
	for span := range spansOf(batches) {
		if span.TraceID() == (pcommon.TraceID{15: trace}) {
			value, marked := span.Attributes().Get(semconv.SaasSamplingKeep)
			found[span.Name()] = marked && value.Bool()
		}
	}
	return found
}
