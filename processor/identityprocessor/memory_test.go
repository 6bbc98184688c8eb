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
	for _, spans := range []int{5, 50} {
		t.Run(fmt.Sprintf("%d spans a trace", spans), func(t *testing.T) {
			cfg := createDefaultConfig().(*Config)
			traces := min(cfg.MaxTraces, cfg.MaxSpans/spans)
			cfg.TTL = time.Hour // nothing is forgotten on a slow machine
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
			assert.Equal(t, traces*spans, p.memory.spans)
			assert.Less(t, each, 100.0)
			assert.Less(t, objects, 3+float64(spans)/10, "the garbage collector looks at each: they cost more than everything else here")
		})
	}
}

// Long identities count as the memory that they take: a sender cannot fill it with them.
func TestLongIdentitiesCountAsSpans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const surcharge = (4000 - ordinaryBytes) / spanBytes
		b := newBench(t, func(cfg *Config) { cfg.MaxSpans, cfg.MaxSpansPerTrace = 1000, 200 })
		long := func(trace, id uint8) plain {
			s := known(id, 0).in(trace)
			s.org = strings.Repeat("o", 4000-memberHead-2) + fmt.Sprintf("%02x", id)
			return s
		}
		b.send(t, long(1, 1), long(1, 2), long(1, 2))
		assert.Equal(t, 2+2*surcharge, b.remembered())
		for id := range uint8(20) {
			b.send(t, long(2, id+1))
		}
		assert.Less(t, b.remembered(), 2+2*surcharge+200+surcharge+1, "one trace has its share")
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
		person := n % 1000
		span.Attributes().PutStr(semconv.SaasOrgID, fmt.Sprintf("org-%04d", person/10))
		span.Attributes().PutStr(string(otelsemconv.UserHashKey), fmt.Sprintf("k3Jd9w.2Q0pGJ0bJm3u0zP5l9oTt8r1m4Zq7yXc2nVb6a%04d", person))
		span.Attributes().PutStr(semconv.SaasActorType, semconv.SaasActorTypeUser)
		span.Attributes().PutStr(semconv.SaasRequestID, fmt.Sprintf("0199f0a2-6a3c-7bd2-9f0e-%012d", n))
	}
	return batch
}
