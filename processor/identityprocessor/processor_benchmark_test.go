package identityprocessor

import (
	"context"
	"encoding/binary"
	"fmt"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
	otelsemconv "go.opentelemetry.io/otel/semconv/v1.37.0"

	"github.com/otel-shim/otel-shim/processor/identityprocessor/internal/semconv"
)

// The traffic: traces of 15 spans with 15 attributes each, a batch of 10 traces.
const (
	benchTraces     = 10
	benchSpans      = 15
	benchAttributes = 15
	benchParts      = 20
)

// All spans carry their identity: what everybody pays.
func BenchmarkPassIdentified(b *testing.B) { benchmarkBatches(b, nil) }

// Every span but the root takes its identity from its parent within the batch.
func BenchmarkPassCompleted(b *testing.B) {
	benchmarkBatches(b, func(_, span int) bool { return span > 0 })
}

// One trace in ten has a span that takes its identity within the batch.
func BenchmarkPassFewCompleted(b *testing.B) {
	benchmarkBatches(b, func(trace, span int) bool { return trace == 0 && span > 0 })
}

// What a gateway gets: batches of one service, with its part of many traces whose other parts come
// with other batches. Each trace has a request of its own.
func BenchmarkPassParts(b *testing.B) {
	const spansInPart, partsInTrace, tracesAtOnce = 5, 3, 300
	p := start(b, benchConfig(), consumertest.NewNop())
	template := ptrace.NewTraces()
	benchBatch(nil).ResourceSpans().At(0).Resource().CopyTo(template.ResourceSpans().AppendEmpty().Resource())
	spans := template.ResourceSpans().At(0).ScopeSpans().AppendEmpty().Spans()
	for range benchParts {
		for s := range spansInPart {
			benchSpan(spans.AppendEmpty(), 0, s, false)
		}
	}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		b.StopTimer()
		scratch := ptrace.NewTraces()
		template.CopyTo(scratch)
		for i, span := range spansIn(scratch).All() {
			part := n*benchParts + i/spansInPart
			round, place := part/(tracesAtOnce*partsInTrace), part%(tracesAtOnce*partsInTrace)
			place, trace := place/tracesAtOnce, round*tracesAtOnce+place%tracesAtOnce
			repart(span, trace, place*spansInPart+i%spansInPart)
		}
		n++
		b.StartTimer()
		require.NoError(b, p.ConsumeTraces(context.Background(), scratch))
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*benchParts*spansInPart), "ns/span")
}

// repart makes a span of the template the one at this place of this trace.
func repart(span ptrace.Span, trace, place int) {
	id := span.TraceID()
	binary.BigEndian.PutUint64(id[:8], uint64(trace)*0x9e3779b97f4a7c15)
	span.SetTraceID(id)
	span.SetSpanID(pcommon.SpanID{7: byte(place + 1)})
	span.SetParentSpanID(pcommon.SpanID{7: byte((place + 1) / 2)})
	span.Attributes().PutStr(semconv.SaasRequestID, fmt.Sprintf("0199f0a2-6a3c-7bd2-9f0e-%012d", trace))
	span.Attributes().PutStr(semconv.SaasOrgID, fmt.Sprintf("org-%04d", trace%500))
}

func benchmarkBatches(b *testing.B, lacks func(trace, span int) bool) {
	p := start(b, benchConfig(), consumertest.NewNop())
	template := benchBatch(lacks)
	b.ReportAllocs()
	var n uint64
	for b.Loop() {
		b.StopTimer()
		scratch := ptrace.NewTraces()
		template.CopyTo(scratch)
		retrace(scratch, &n)
		b.StartTimer()
		require.NoError(b, p.ConsumeTraces(context.Background(), scratch))
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*benchTraces*benchSpans), "ns/span")
}

// Every span but the root is held, then the root comes and releases them.
func BenchmarkHoldAndRelease(b *testing.B) {
	p := start(b, benchConfig(), consumertest.NewNop())
	template := benchBatch(func(_, span int) bool { return span > 0 })
	b.ReportAllocs()
	var n uint64
	for b.Loop() {
		b.StopTimer()
		children, roots := ptrace.NewTraces(), ptrace.NewTraces()
		template.CopyTo(children)
		retrace(children, &n)
		children.CopyTo(roots)
		isRoot := func(span ptrace.Span) bool { return span.ParentSpanID().IsEmpty() }
		spansIn(children).RemoveIf(isRoot)
		spansIn(roots).RemoveIf(func(span ptrace.Span) bool { return !isRoot(span) })
		b.StartTimer()
		require.NoError(b, p.ConsumeTraces(context.Background(), children))
		require.NoError(b, p.ConsumeTraces(context.Background(), roots))
		for !p.settled() { // another goroutine releases
			runtime.Gosched()
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*benchTraces*(benchSpans-1)), "ns/held-span")
}

func benchConfig() *Config {
	cfg := createDefaultConfig().(*Config)
	cfg.MaxTraces = 10_000
	return cfg
}

func spansIn(batch ptrace.Traces) ptrace.SpanSlice {
	return batch.ResourceSpans().At(0).ScopeSpans().At(0).Spans()
}

func benchBatch(lacks func(trace, span int) bool) ptrace.Traces {
	batch := ptrace.NewTraces()
	rs := batch.ResourceSpans().AppendEmpty()
	rs.Resource().Attributes().PutStr(string(otelsemconv.ServiceNameKey), "api")
	rs.Resource().Attributes().PutStr(string(otelsemconv.ServiceNamespaceKey), "shop")
	spans := rs.ScopeSpans().AppendEmpty().Spans()
	for t := range benchTraces {
		for s := range benchSpans {
			benchSpan(spans.AppendEmpty(), t, s, lacks != nil && lacks(t, s))
		}
	}
	return batch
}

func benchSpan(span ptrace.Span, t, s int, lacks bool) {
	span.SetTraceID(pcommon.TraceID{15: byte(t + 1)})
	span.SetSpanID(pcommon.SpanID{7: byte(s + 1)})
	span.SetParentSpanID(pcommon.SpanID{7: byte((s + 1) / 2)})
	span.SetName("SELECT orders")
	attributes := span.Attributes()
	for i := range benchAttributes - 5 {
		attributes.PutStr(fmt.Sprintf("http.some.attribute.%d", i), "some value of the usual length")
	}
	if lacks {
		return
	}
	attributes.PutStr(semconv.SaasOrgID, "org-7f3a")
	attributes.PutStr(string(otelsemconv.UserHashKey), "k3Jd9w.2Q0pGJ0bJm3u0zP5l9oTt8r1m4Zq7yXc2nVb6aHsKfE")
	attributes.PutStr(semconv.SaasActorType, semconv.SaasActorTypeUser)
	attributes.PutStr(semconv.SaasPlan, "pro")
	attributes.PutStr(semconv.SaasRequestID, fmt.Sprintf("0199f0a2-6a3c-7bd2-9f0e-3f1f5a3c9a%02d", t))
}

// retrace gives the batch trace ids that have not been used.
func retrace(batch ptrace.Traces, n *uint64) {
	base := *n + 1
	for _, span := range spansIn(batch).All() {
		id := span.TraceID()
		binary.BigEndian.PutUint64(id[:8], base)
		span.SetTraceID(id)
	}
	*n = base
}
