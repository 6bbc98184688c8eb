package identityprocessor

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// heapShapes are spans that take much of the heap for their size as OTLP, and ordinary ones.
var heapShapes = map[string]func(ptrace.Span){
	"empty":                func(ptrace.Span) {},
	"one long value":       func(s ptrace.Span) { s.Attributes().PutStr("x", strings.Repeat("y", 4000)) },
	"many tiny attributes": func(s ptrace.Span) { putMany(s.Attributes(), 100, "%d", "v") },
	"many numbers": func(s ptrace.Span) {
		for i := range 100 {
			s.Attributes().PutInt(fmt.Sprint(i), 1)
		}
	},
	"ordinary": func(s ptrace.Span) {
		putMany(s.Attributes(), 10, "http.some.attribute.%d", "some value of the usual length")
	},
	"many events": func(s ptrace.Span) {
		for range 100 {
			s.Events().AppendEmpty()
		}
	},
	"many links": func(s ptrace.Span) {
		for range 100 {
			s.Links().AppendEmpty()
		}
	},
	"a list": func(s ptrace.Span) {
		for list := s.Attributes().PutEmptySlice("x"); list.Len() < 100; {
			list.AppendEmpty()
		}
	},
	"a map": func(s ptrace.Span) { putMany(s.Attributes().PutEmptyMap("x"), 100, "%d", "v") },
}

func putMany(into pcommon.Map, n int, name, value string) {
	for i := range n {
		into.PutStr(fmt.Sprintf(name, i), value)
	}
}

// What held spans count as is what they take on the heap, however they are made and however few come
// in a batch: `max_held_bytes` is a bound on it.
func TestHeldBytesAreHeap(t *testing.T) {
	skipWhereShort(t)
	const spans = 5000
	for name, fill := range heapShapes {
		for _, batch := range []int{1, 100} {
			t.Run(fmt.Sprintf("%s, %d in a batch", name, batch), func(t *testing.T) {
				cfg := createDefaultConfig().(*Config)
				cfg.TTL, cfg.Wait, cfg.Quiet, cfg.MaxHeldBytes = time.Hour, time.Hour, time.Hour, 1<<40
				p := start(t, cfg, consumertest.NewNop())
				before := liveHeap()
				for first := 0; first < spans; first += batch {
					require.NoError(t, p.ConsumeTraces(context.Background(), orphans(t, first, batch, fill)))
				}
				after := liveHeap()
				p.mu.Lock()
				defer p.mu.Unlock()
				heap := float64(after.HeapAlloc - before.HeapAlloc - uint64(spanBytes*p.memory.spans))
				ratio := heap / float64(p.memory.holding.bytes())
				t.Logf("%.0f bytes a span, %.2f of what it counts as", heap/spans, ratio)
				assert.Less(t, ratio, 1.1)
				assert.Greater(t, ratio, 0.6)
			})
		}
	}
}

// orphans are spans as a receiver decodes them, five to a trace, whose parent never comes.
func orphans(t *testing.T, first, n int, fill func(ptrace.Span)) ptrace.Traces {
	batch := ptrace.NewTraces()
	rs := batch.ResourceSpans().AppendEmpty()
	rs.Resource().Attributes().PutStr("service.name", "api")
	spans := rs.ScopeSpans().AppendEmpty().Spans()
	for number := first; number < first+n; number++ {
		span := spans.AppendEmpty()
		trace := number/5 + 1
		span.SetTraceID(pcommon.TraceID{13: byte(trace >> 16), 14: byte(trace >> 8), 15: byte(trace)})
		span.SetSpanID(spanID(number + 1))
		span.SetParentSpanID(spanID(spanOfNobody))
		fill(span)
	}
	text, err := (&ptrace.ProtoMarshaler{}).MarshalTraces(batch)
	require.NoError(t, err)
	batch, err = (&ptrace.ProtoUnmarshaler{}).UnmarshalTraces(text)
	require.NoError(t, err)
	return batch
}

const spanOfNobody = 1 << 40

// skipWhereShort is for tests that measure the heap: with the race detector, which is slow, they would
// measure that.
func skipWhereShort(t *testing.T) {
	if testing.Short() {
		t.Skip("it measures the heap, without the race detector")
	}
}
