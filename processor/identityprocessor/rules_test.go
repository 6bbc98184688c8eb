package identityprocessor

import (
	"context"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/metric/metricdata/metricdatatest"
	otelsemconv "go.opentelemetry.io/otel/semconv/v1.37.0"

	"github.com/otel-shim/otel-shim/processor/identityprocessor/internal/metadatatest"
	"github.com/otel-shim/otel-shim/processor/identityprocessor/internal/semconv"
)

// In a trace that is never quiet, a span takes what is below it when it has waited long enough.
func TestUpwardAtWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		time.Sleep(20 * time.Second)
		b.send(t, unknown(1, 0))
		for id := range uint8(12) {
			b.send(t, known(2+id, 1))
			time.Sleep(time.Second)
		}
		assert.Contains(t, b.out(), "1 org-a")
		metadatatest.AssertEqualProcessorIdentitySpansCompleted(t, b.telemetry, []metricdata.DataPoint[int64]{{
			Attributes: attribute.NewSet(attribute.String("group", "org"), attribute.String("origin", "descendants")), Value: 1,
		}}, metricdatatest.IgnoreTimestamp())
	})
}

// Whyever a trace was forgotten, nothing is inferred from what is remembered of it since.
func TestUpwardAfterAnyForgetting(t *testing.T) {
	other := known(2, 1)
	other.org = "org-b"
	for name, test := range map[string]struct {
		change func(*Config)
		forget func(t *testing.T, b *bench)
	}{
		"ttl": {
			func(cfg *Config) { cfg.Quiet, cfg.Wait, cfg.TTL = 8*time.Second, 8*time.Second, 9*time.Second },
			func(*testing.T, *bench) { time.Sleep(10 * time.Second) },
		},
		"max_traces": {
			func(cfg *Config) { cfg.MaxTraces = 2 },
			func(t *testing.T, b *bench) { b.send(t, known(1, 0).in(2), known(1, 0).in(3)) },
		},
		"max_spans": {
			func(cfg *Config) { cfg.MaxSpans, cfg.MaxSpansPerTrace = 4, 4 },
			func(t *testing.T, b *bench) { b.send(t, known(1, 0).in(2), known(2, 1).in(2), known(3, 1).in(2)) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, test.change)
				time.Sleep(30 * time.Second)
				b.send(t, other)
				test.forget(t, b)
				b.send(t, unknown(1, 0), known(3, 1))
				time.Sleep(12 * time.Second)
				assert.Contains(t, b.out(), "1")
			})
		})
	}
}

func TestSpansReleaseTheOldest(t *testing.T) {
	b := newBench(t, func(cfg *Config) { cfg.MaxSpans, cfg.MaxSpansPerTrace = 5, 5 })
	b.send(t, unknown(1, 99).in(1), unknown(2, 99).in(1), unknown(3, 99).in(2))
	b.send(t, unknown(4, 99).in(3))
	assert.Equal(t, []string{"1", "2"}, b.out())
	b.incomplete(t, map[string]int64{"spans": 2})
	metadatatest.AssertEqualProcessorIdentityTracesEvicted(t, b.telemetry, []metricdata.DataPoint[int64]{
		{Attributes: attribute.NewSet(attribute.String("reason", "spans")), Value: 1},
	}, metricdatatest.IgnoreTimestamp())
}

func TestReasonsOfWhatIsSettled(t *testing.T) {
	b := newBench(t, func(cfg *Config) { cfg.Upward = upwardOff })
	edge := unknown(2, 1)
	edge.edge = true
	contradicts := unknown(3, 1)
	contradicts.user = "somebody else"
	b.send(t, known(1, 0), edge, contradicts)
	assert.Equal(t, []string{"1", "2", "3"}, b.out())
	b.incomplete(t, map[string]int64{"barred": 1, "mismatch": 1})
}

// Any group may hold, also not the first one, and each is completed for itself.
func TestASecondGroupHolds(t *testing.T) {
	b := newBench(t, func(cfg *Config) { cfg.Groups[1].Hold = true })
	asked := known(1, 0)
	asked.request = "r"
	b.send(t, known(3, 2))
	assert.Empty(t, b.out(), "its request is not known")
	b.send(t, unknown(2, 1))
	b.send(t, asked)
	requests := map[string]string{}
	for span := range spansOf(b.sink.AllTraces()) {
		requests[span.Name()] = read(span).request
	}
	assert.Equal(t, map[string]string{"1": "r", "2": "r", "3": "r"}, requests)
}

// What each group took is counted by where that group's came from.
func TestOriginsAreCountedByGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(cfg *Config) { cfg.Groups[1].Hold = true })
		time.Sleep(20 * time.Second)
		root, below := known(1, 0), unknown(3, 2)
		below.request = "r"
		b.send(t, root, unknown(2, 1), below)
		time.Sleep(11 * time.Second)
		point := func(group, origin string, n int64) metricdata.DataPoint[int64] {
			return metricdata.DataPoint[int64]{Attributes: attribute.NewSet(attribute.String("group", group), attribute.String("origin", origin)), Value: n}
		}
		metadatatest.AssertEqualProcessorIdentitySpansCompleted(t, b.telemetry, []metricdata.DataPoint[int64]{
			point("org", "ancestor", 2), point("request", "descendants", 2),
		}, metricdatatest.IgnoreTimestamp())
	})
}

// A consumer with links says whose its work is: its parent may take that, as any other.
func TestExplicitConsumerIsNoBarrierUpward(t *testing.T) {
	for name, test := range map[string]struct {
		consumer plain
		want     []string
	}{
		"explicit":     {known(2, 1), []string{"1 org-a", "2", "3"}},
		"not explicit": {unknown(2, 1), []string{"1", "2", "3"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, nil)
				time.Sleep(20 * time.Second)
				test.consumer.fanIn = true
				b.send(t, unknown(1, 0), test.consumer, known(3, 2))
				time.Sleep(11 * time.Second)
				out := b.out()
				assert.Contains(t, out, test.want[0])
			})
		})
	}
}

// Where a resource does not name its process, all of it has to be the same; and two that are not named
// at all never share because of their names.
func TestUnnamedServicesAreToldApartByTheirResources(t *testing.T) {
	resource := func(attributes ...string) map[string]any {
		m := map[string]any{}
		for i := 0; i < len(attributes); i += 2 {
			m[attributes[i]] = attributes[i+1]
		}
		return m
	}
	const name, host = string(otelsemconv.ServiceNameKey), string(otelsemconv.HostNameKey)
	for what, test := range map[string]struct {
		parent, child map[string]any
		taken         bool
	}{
		"nothing in both":        {resource(), resource(), true},
		"unnamed on two hosts":   {resource(host, "a"), resource(host, "b"), false},
		"unnamed on one host":    {resource(host, "a"), resource(host, "a"), true},
		"unknown on two hosts":   {resource(name, "unknown_service:python", host, "a"), resource(name, "unknown_service:python", host, "b"), false},
		"unknown on one host":    {resource(name, "unknown_service:python", host, "a"), resource(name, "unknown_service:python", host, "a"), true},
		"one name on two hosts":  {resource(name, "api", host, "a"), resource(name, "api", host, "b"), true},
		"two names on one host":  {resource(name, "api", host, "a"), resource(name, "web", host, "a"), false},
		"more said by one of us": {resource(host, "a"), resource(host, "a", "x", "y"), false},
	} {
		t.Run(what, func(t *testing.T) {
			b := newBench(t, func(cfg *Config) { cfg.Upward = upwardOff })
			batch := ptrace.NewTraces()
			for i, from := range []map[string]any{test.parent, test.child} {
				rs := batch.ResourceSpans().AppendEmpty()
				require.NoError(t, rs.Resource().Attributes().FromRaw(from))
				[]plain{known(1, 0), unknown(2, 1)}[i].build(rs.ScopeSpans().AppendEmpty().Spans().AppendEmpty())
			}
			require.NoError(t, b.ConsumeTraces(context.Background(), batch))
			assert.Equal(t, test.taken, b.out()[1] == "2 org-a")
		})
	}
}

// Values that JSON cannot write are told apart too.
func TestValuesThatJSONCannotWrite(t *testing.T) {
	r := &reader{vocabulary: newVocabulary(createDefaultConfig().(*Config))}
	said := func(number float64, text string) string {
		attributes := pcommon.NewMap()
		m := attributes.PutEmptyMap(semconv.SaasOrgID)
		m.PutDouble("n", number)
		m.PutStr("t", text)
		var span, resource reading
		r.read(attributes, &span)
		s := r.groups[0].stated(&span, &resource)
		return r.intern(0, &s).code
	}
	assert.Equal(t, said(math.NaN(), "a"), said(math.NaN(), "a"))
	assert.NotEqual(t, said(math.NaN(), "a"), said(math.NaN(), "b"))
	assert.NotEqual(t, said(math.NaN(), "a"), said(math.Inf(1), "a"))
}
