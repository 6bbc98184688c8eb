package identityprocessor

import (
	"context"
	"encoding/binary"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
	otelsemconv "go.opentelemetry.io/otel/semconv/v1.37.0"

	"github.com/otel-shim/otel-shim/processor/identityprocessor/internal/semconv"
)

// What is remembered of a span is at most 100 bytes of live heap, everything counted: as many traces as are remembered by default,
// each with a request id of its own, and the organisations and users of a thousand people.
func TestMemoryOfARememberedSpan(t *testing.T) {
	skipWhereShort(t)
	for _, spans := range []int{5, 50} {
		t.Run(fmt.Sprintf("%d spans a trace", spans), func(t *testing.T) {
			cfg := createDefaultConfig().(*Config)
			traces := min(cfg.MaxTraces, cfg.MaxSpans/spans)
			cfg.TTL, cfg.MaxSpans = time.Hour, 2*cfg.MaxSpans // nothing is forgotten
			p := start(t, cfg, consumertest.NewNop())
			before := liveHeap()
			for n := range traces {
				require.NoError(t, p.ConsumeTraces(context.Background(), ordinaryTrace(n, spans)))
			}
			after := liveHeap()
			each := float64(after.HeapAlloc-before.HeapAlloc) / float64(traces*spans)
			objects := float64(after.HeapObjects-before.HeapObjects) / float64(traces)
			t.Logf("%d traces of %d spans: %.1f bytes for each remembered span, %.1f objects for each trace", traces, spans, each, objects)
			p.mu.Lock()
			defer p.mu.Unlock()
			assert.InDelta(t, traces*spans, p.memory.spans, 10)
			assert.Less(t, each, 100.0)
			assert.Less(t, objects, 3+float64(spans)/10, "the garbage collector looks at each: they cost more than everything else here")
		})
	}
}

// However a sender goes about it, memory stays within what the limits say: what spans say about
// themselves counts too, each span with an organisation, a request and a service of its own, or with
// very long ones, in one trace or in many.
func TestHostileSpansStayWithinTheLimits(t *testing.T) {
	skipWhereShort(t)
	const most, batches = 100_000, 1000
	for name, test := range map[string]struct{ traces, text int }{
		"one trace":            {1, 20},
		"few traces":           {10, 20},
		"many traces":          {10_000, 20},
		"one trace, long":      {1, 1000},
		"many traces, long":    {10_000, 1000},
		"many traces, longest": {10_000, 3000},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := createDefaultConfig().(*Config)
			cfg.TTL, cfg.MaxSpans, cfg.MaxSpansPerTrace, cfg.MaxTraces = time.Hour, most, most, most/5
			p := start(t, cfg, consumertest.NewNop())
			before := liveHeap()
			peak := uint64(0)
			for n := range batches {
				require.NoError(t, p.ConsumeTraces(context.Background(), hostile(n*50, 50, test.traces, test.text)))
				if n%(batches/5) == batches/5-1 {
					peak = max(peak, liveHeap().HeapAlloc-before.HeapAlloc)
				}
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			assert.LessOrEqual(t, p.memory.spans, most)
			each := float64(peak) / float64(most)
			t.Logf("%d bytes in all, %.0f for each of `max_spans`, %d counted", peak, each, p.memory.spans)
			assert.Less(t, peak, uint64(most*spanBytes+cfg.MaxTraces*hostileTrace+catalogsAtMost))
		})
	}
}

// hostileTrace is what one trace may cost over its spans, and catalogsAtMost what all catalogs may.
const hostileTrace, catalogsAtMost = 500, 10 << 20

func hostile(first, n, traces, text int) ptrace.Traces {
	batch := ptrace.NewTraces()
	for number := first; number < first+n; number++ {
		rs := batch.ResourceSpans().AppendEmpty()
		long := func(what string) string { return strings.Repeat("x", text) + fmt.Sprint(what, number) }
		rs.Resource().Attributes().PutStr(string(otelsemconv.ServiceNameKey), long("service"))
		span := rs.ScopeSpans().AppendEmpty().Spans().AppendEmpty()
		var trace pcommon.TraceID
		binary.BigEndian.PutUint64(trace[8:], uint64(number%traces+1)*0x9e3779b97f4a7c15)
		span.SetTraceID(trace)
		span.SetSpanID(spanID(number + 1))
		span.SetParentSpanID(spanID(spanOfNobody + number))
		span.Attributes().PutStr(semconv.SaasOrgID, long("org"))
		span.Attributes().PutStr(semconv.SaasRequestID, long("request"))
	}
	return batch
}

// One trace has its share of what is remembered, whatever its spans say.
func TestLongIdentitiesCountAsSpans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(cfg *Config) { cfg.MaxSpans, cfg.MaxSpansPerTrace = 1000, 200 })
		long := func(trace, id uint8) plain {
			s := known(id, 0).in(trace)
			s.org = strings.Repeat("o", 3990) + fmt.Sprintf("%02x", id)
			return s
		}
		b.send(t, long(1, 1), long(1, 2), long(1, 2))
		assert.InDelta(t, 2+2*4000/spanBytes, b.remembered(), 2)
		for id := range uint8(20) {
			b.send(t, long(2, id+1))
		}
		assert.Less(t, b.remembered(), 82+200+41)
		for trace := range uint8(100) {
			b.send(t, long(trace+3, 1))
		}
		assert.LessOrEqual(t, b.remembered(), 1000)
		time.Sleep(2 * b.cfg.TTL)
		assert.Zero(t, b.remembered())
	})
}

func liveHeap() (stats runtime.MemStats) {
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&stats)
	return stats
}

func ordinaryTrace(n, spans int) ptrace.Traces {
	batch := ptrace.NewTraces()
	var byService []ptrace.SpanSlice
	for _, name := range []string{"api", "connector", "mailer", "ledger"} {
		rs := batch.ResourceSpans().AppendEmpty()
		rs.Resource().Attributes().PutStr(string(otelsemconv.ServiceNameKey), name)
		byService = append(byService, rs.ScopeSpans().AppendEmpty().Spans())
	}
	for i := range spans {
		span := byService[i%len(byService)].AppendEmpty()
		var trace pcommon.TraceID
		binary.BigEndian.PutUint64(trace[8:], uint64(n+1)*0x9e3779b97f4a7c15)
		span.SetTraceID(trace)
		span.SetSpanID(spanID(n<<8 + i + 1))
		if i > 0 {
			span.SetParentSpanID(spanID(n<<8 + (i-1)/2 + 1))
		}
		person := n
		span.Attributes().PutStr(semconv.SaasOrgID, fmt.Sprintf("org-%04d", person%100))
		span.Attributes().PutStr(string(otelsemconv.UserHashKey), fmt.Sprintf("k3Jd9w.2Q0pGJ0bJm3u0zP5l9oTt8r1m4Zq7yXc2n%08d", person))
		span.Attributes().PutStr(semconv.SaasActorType, semconv.SaasActorTypeUser)
		span.Attributes().PutStr(semconv.SaasRequestID, fmt.Sprintf("0199f0a2-6a3c-7bd2-9f0e-%012d", n))
	}
	return batch
}
