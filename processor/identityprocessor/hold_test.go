package identityprocessor

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/metric/metricdata/metricdatatest"

	"github.com/otel-shim/otel-shim/processor/identityprocessor/internal/metadatatest"
	"github.com/otel-shim/otel-shim/processor/identityprocessor/internal/semconv"
)

// bench is a started processor with its sink and its own telemetry.
type bench struct {
	*identityProcessor
	sink      *refusingSink
	telemetry *componenttest.Telemetry
}

func newBench(t *testing.T, change func(*Config)) *bench {
	cfg := createDefaultConfig().(*Config)
	if change != nil {
		change(cfg)
	}
	require.NoError(t, cfg.Validate())
	b := &bench{sink: &refusingSink{}, telemetry: componenttest.NewTelemetry()}
	t.Cleanup(func() { require.NoError(t, b.telemetry.Shutdown(context.Background())) })
	p, err := newProcessor(metadatatest.NewSettings(b.telemetry), cfg, b.sink)
	require.NoError(t, err)
	require.NoError(t, p.Start(context.Background(), componenttest.NewNopHost()))
	t.Cleanup(func() { _ = p.Shutdown(context.Background()) })
	b.identityProcessor = p
	return b
}

// send returns once what is due has been released, or refused, and that has been counted.
func (b *bench) send(t *testing.T, spans ...plain) {
	require.NoError(t, b.ConsumeTraces(context.Background(), batchOf(spans)))
	b.settleDown()
	for range 1_000_000 {
		if b.count("spans_seen") == b.count("spans_passed")+b.count("spans_held")+b.count("hold_duration") {
			return
		}
		time.Sleep(time.Microsecond)
	}
	require.Fail(t, "the metrics do not add up")
}

// count is the value of a sum, or the count of a histogram.
func (b *bench) count(name string) int64 {
	found, err := b.telemetry.GetMetric("otelcol_processor_identity_" + name)
	if err != nil { // nothing recorded yet
		return 0
	}
	if durations, ok := found.Data.(metricdata.Histogram[float64]); ok {
		return int64(durations.DataPoints[0].Count)
	}
	return found.Data.(metricdata.Sum[int64]).DataPoints[0].Value
}

// out names the spans that came out, those with an inherited identity with its organisation.
func (b *bench) out() []string {
	names := []string{}
	for span := range spansOf(b.sink.AllTraces()) {
		name := span.Name()
		if got := read(span); got.origin != "" {
			name += " " + got.org
		}
		names = append(names, name)
	}
	return names
}

func (b *bench) incomplete(t *testing.T, counts map[string]int64) {
	var points []metricdata.DataPoint[int64]
	for why, n := range counts {
		points = append(points, metricdata.DataPoint[int64]{
			Attributes: attribute.NewSet(attribute.String("reason", why)), Value: n,
		})
	}
	metadatatest.AssertEqualProcessorIdentitySpansIncomplete(t, b.telemetry, points, metricdatatest.IgnoreTimestamp())
}

// level is what is held now.
func (b *bench) level() (spans int, bytes int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.memory.holding.count, b.memory.holding.bytes()
}

// remembered is what counts towards `max_spans` now.
func (b *bench) remembered() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.memory.spans
}

// settleDown waits until nothing is due, or what is due was refused.
func (p *identityProcessor) settleDown() {
	for !p.settled() {
		time.Sleep(time.Microsecond)
	}
}

func (p *identityProcessor) settled() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.memory.holding.leaving == 0 || p.refused
}

// refusingSink gives the error that is set, and lets something happen meanwhile.
type refusingSink struct {
	consumertest.TracesSink
	mood      atomic.Pointer[error]
	refusals  atomic.Int64
	meanwhile func() // called once
}

func (s *refusingSink) refuse(err error) { s.mood.Store(&err) }
func (s *refusingSink) accept()          { s.mood.Store(nil) }

func (s *refusingSink) ConsumeTraces(ctx context.Context, batch ptrace.Traces) error {
	if meanwhile := s.meanwhile; meanwhile != nil {
		s.meanwhile = nil
		meanwhile()
	}
	if err := s.mood.Load(); err != nil {
		s.refusals.Add(1)
		return *err
	}
	return s.TracesSink.ConsumeTraces(ctx, batch)
}

func known(id, parent uint8) plain {
	return plain{trace: 1, id: id, parent: parent, name: fmt.Sprint(id), org: "org-a"}
}

func unknown(id, parent uint8) plain {
	return plain{trace: 1, id: id, parent: parent, name: fmt.Sprint(id)}
}

func (s plain) in(trace uint8) plain { s.trace = trace; return s }

// A held span leaves in the call that brings its ancestor, not at some later tick.
func TestAncestorReleasesAtOnce(t *testing.T) {
	b := newBench(t, nil)
	b.send(t, unknown(3, 2))
	b.send(t, unknown(2, 1))
	assert.Empty(t, b.out())
	b.send(t, known(1, 0))
	assert.ElementsMatch(t, []string{"1", "2 org-a", "3 org-a"}, b.out())
}

func TestBatchWithNothingToHoldIsNotCopied(t *testing.T) {
	b := newBench(t, nil)
	batch := batchOf([]plain{known(1, 0), unknown(2, 1)})
	require.NoError(t, b.ConsumeTraces(context.Background(), batch))
	require.Len(t, b.sink.AllTraces(), 1)
	assert.Equal(t, batch, b.sink.AllTraces()[0])
}

func TestQuietReleases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(cfg *Config) { cfg.Quiet, cfg.Wait = 2*time.Second, 10*time.Second })
		b.send(t, unknown(2, 9))
		time.Sleep(1500 * time.Millisecond)
		b.send(t, unknown(3, 9), unknown(5, 4).in(2)) // the first trace is not quiet
		time.Sleep(1500 * time.Millisecond)
		assert.Empty(t, b.out())
		time.Sleep(time.Second)
		assert.ElementsMatch(t, []string{"2", "3", "5"}, b.out())
		b.incomplete(t, map[string]int64{"quiet": 3})
	})
}

func TestWaitReleasesInATraceThatIsNeverQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(cfg *Config) { cfg.Quiet, cfg.Wait = 2*time.Second, 3*time.Second })
		for id := range uint8(8) {
			b.send(t, unknown(10+id, 100))
			time.Sleep(time.Second)
		}
		time.Sleep(time.Second / 2)
		assert.Equal(t, []string{"10", "11", "12", "13", "14", "15"}, b.out())
		b.incomplete(t, map[string]int64{"wait": 6})
	})
}

// A span that was sent three times is held three times, and comes out three times.
func TestRedeliveredSpanIsReleasedAsOftenAsItCame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.send(t, unknown(3, 2), unknown(3, 2), unknown(4, 2))
		b.send(t, unknown(3, 2))
		b.send(t, known(2, 1))
		time.Sleep(10 * time.Second)
		assert.ElementsMatch(t, []string{"2", "3 org-a", "3 org-a", "3 org-a", "4 org-a"}, b.out())
		held, bytes := b.level()
		assert.Zero(t, held)
		assert.Zero(t, bytes)
	})
}

// What left without identity still carries it from a late ancestor to later spans.
func TestSpanAfterItsParentWasReleased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.send(t, unknown(2, 1))
		time.Sleep(7 * time.Second)
		b.send(t, known(1, 0))
		b.send(t, unknown(3, 2))
		assert.Equal(t, []string{"2", "1", "3 org-a"}, b.out())
	})
}

func TestTTLIsRenewedByIdentityOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(cfg *Config) { cfg.TTL = 20 * time.Second })
		b.send(t, known(1, 0))
		time.Sleep(15 * time.Second)
		b.send(t, known(2, 1)) // renews
		time.Sleep(15 * time.Second)
		b.send(t, unknown(3, 1)) // inherits and does not renew
		time.Sleep(6 * time.Second)
		b.send(t, unknown(4, 1))
		assert.Equal(t, []string{"1", "2", "3 org-a"}, b.out())
		metadatatest.AssertEqualProcessorIdentityTracesRemembered(t, b.telemetry,
			[]metricdata.DataPoint[int64]{{Value: 1}}, metricdatatest.IgnoreTimestamp())
	})
}

func TestTTLReleasesWhatIsHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(cfg *Config) { cfg.Quiet, cfg.Wait, cfg.TTL = 4*time.Second, 4*time.Second, 4*time.Second })
		b.send(t, unknown(1, 9))
		time.Sleep(3 * time.Second)
		b.send(t, unknown(2, 9))
		time.Sleep(1100 * time.Millisecond)
		assert.Equal(t, []string{"1", "2"}, b.out())
		b.incomplete(t, map[string]int64{"wait": 1, "ttl": 1})
	})
}

func TestHeldBytesReleaseTheOldest(t *testing.T) {
	size := heldSize(t)
	b := newBench(t, func(cfg *Config) { cfg.MaxHeldBytes = 8*size + size/2 })
	for id := uint8(1); id <= 10; id++ {
		b.send(t, unknown(id, 99).in(id))
	}
	assert.Equal(t, []string{"1", "2"}, b.out())
	b.incomplete(t, map[string]int64{"bytes": 2})
}

// heldSize is what one span by itself counts as while it is held.
func heldSize(t *testing.T) int64 {
	b := newBench(t, nil)
	b.send(t, unknown(1, 99))
	_, size := b.level()
	return size
}

// One trace has a quarter for itself, also where its spans share an id and need no memory of their
// own: then all of them leave, and nobody else's.
func TestHeldBytesOfOneTrace(t *testing.T) {
	size := heldSize(t)
	b := newBench(t, func(cfg *Config) { cfg.MaxHeldBytes = 16 * size })
	b.send(t, unknown(1, 99).in(1))
	for range 100 {
		b.send(t, unknown(2, 99).in(2))
	}
	held, bytes := b.level()
	assert.LessOrEqual(t, bytes, 7*size)
	assert.Equal(t, slices.Repeat([]string{"2"}, 101-held), b.out())
	b.incomplete(t, map[string]int64{"bytes": int64(101 - held)})
	b.send(t, known(99, 0).in(1))
	assert.Contains(t, b.out(), "1 org-a")
}

func TestTracesReleaseTheOldest(t *testing.T) {
	b := newBench(t, func(cfg *Config) { cfg.MaxTraces = 2 })
	for id := uint8(1); id <= 4; id++ {
		b.send(t, unknown(id, 99).in(id))
	}
	assert.Equal(t, []string{"1", "2"}, b.out())
	b.incomplete(t, map[string]int64{"traces": 2})
	metadatatest.AssertEqualProcessorIdentityTracesEvicted(t, b.telemetry, []metricdata.DataPoint[int64]{
		{Attributes: attribute.NewSet(attribute.String("reason", "traces")), Value: 2},
	}, metricdatatest.IgnoreTimestamp())
}

func TestSpansPerTraceReleaseTheOldest(t *testing.T) {
	b := newBench(t, func(cfg *Config) { cfg.MaxSpansPerTrace = 4 })
	for id := uint8(1); id <= 5; id++ {
		b.send(t, unknown(id, 99))
	}
	assert.Equal(t, []string{"1", "2", "3"}, b.out())
	b.incomplete(t, map[string]int64{"spans_per_trace": 3})
}

// A batch larger than the cap keeps no span of a trace that is no longer remembered.
func TestSpansPerTraceWithinOneBatch(t *testing.T) {
	b := newBench(t, func(cfg *Config) { cfg.MaxSpansPerTrace = 4 })
	b.send(t, unknown(1, 99), unknown(2, 99), unknown(3, 99), unknown(4, 99))
	assert.Equal(t, []string{"1", "2", "3"}, b.out())
	b.incomplete(t, map[string]int64{"spans_per_trace": 3})
}

// A trace that is forgotten while its batch is with the next consumer holds nothing any more.
func TestTraceForgottenWhileItsBatchPasses(t *testing.T) {
	b := newBench(t, func(cfg *Config) { cfg.MaxTraces = 1 })
	b.sink.meanwhile = func() { b.send(t, known(9, 0).in(2)) }
	b.send(t, known(1, 0), unknown(3, 2))
	assert.Equal(t, []string{"9", "1", "3"}, b.out())
	b.incomplete(t, map[string]int64{"traces": 1})
}

var errDown = errors.New("down")

// The sender gets the error and sends again; the held part must not be there twice.
func TestRefusedBatchIsNotHeld(t *testing.T) {
	b := newBench(t, nil)
	b.sink.refuse(errDown)
	require.ErrorIs(t, b.ConsumeTraces(context.Background(), batchOf([]plain{known(1, 0), unknown(3, 2)})), errDown)
	b.sink.accept()
	b.send(t, known(1, 0), unknown(3, 2))
	b.send(t, unknown(2, 1))
	assert.ElementsMatch(t, []string{"1", "2 org-a", "3 org-a"}, b.out())
}

// Nobody sends again after a permanent error, so what was taken out is kept.
func TestBatchRefusedForGoodKeepsItsHeldSpans(t *testing.T) {
	b := newBench(t, nil)
	b.sink.refuse(consumererror.NewPermanent(errDown))
	require.ErrorIs(t, b.ConsumeTraces(context.Background(), batchOf([]plain{known(1, 0), unknown(3, 2)})), errDown)
	b.sink.accept()
	b.send(t, unknown(2, 1))
	assert.ElementsMatch(t, []string{"2 org-a", "3 org-a"}, b.out())
}

// It is tried less and less often: each attempt repeats the spans for those behind the next consumer
// that had taken them. Once it is taken, the next refusal begins anew.
func TestRefusedReleaseIsTriedAgainLessAndLessOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.send(t, unknown(2, 1))
		b.sink.refuse(errDown)
		time.Sleep(7 * time.Second) // quiet after six
		assert.Equal(t, int64(3), b.sink.refusals.Load())
		time.Sleep(10 * time.Minute)
		assert.InDelta(t, 10*60/30+8, b.sink.refusals.Load(), 2)
		held, _ := b.level()
		assert.Equal(t, 1, held)
		b.sink.accept()
		time.Sleep(30 * time.Second)
		assert.Equal(t, []string{"2"}, b.out())
		b.incomplete(t, map[string]int64{"quiet": 1})
		b.sink.refusals.Store(0)
		b.send(t, unknown(3, 1))
		b.sink.refuse(errDown)
		time.Sleep(7 * time.Second)
		assert.Equal(t, int64(3), b.sink.refusals.Load())
	})
}

// While a release is refused, an ancestor may still come: the next attempt takes it along.
func TestRefusedReleaseIsCompletedByALateAncestor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.send(t, unknown(2, 1))
		b.sink.refuse(errDown)
		time.Sleep(7100 * time.Millisecond) // between two ticks
		b.sink.accept()
		b.send(t, known(1, 0))
		time.Sleep(time.Second)
		assert.ElementsMatch(t, []string{"1", "2 org-a"}, b.out())
	})
}

// What a span was to take with it at an attempt that was refused is not left on it.
func TestRefusedReleaseTakesNothingAlong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		time.Sleep(20 * time.Second)
		partly := unknown(2, 1)
		partly.user = "u1"
		below := known(3, 2)
		below.user, below.plan = "u1", "pro"
		b.send(t, partly, below)
		b.sink.refuse(errDown)
		time.Sleep(7 * time.Second)
		b.mu.Lock()
		attributes := b.memory.holding.due[0].span.Attributes().AsRaw()
		b.mu.Unlock()
		assert.Equal(t, map[string]any{"user.hash": "u1"}, attributes)
		above := known(1, 0)
		above.org, above.user = "org-b", "u1"
		b.sink.accept()
		b.send(t, above)
		time.Sleep(time.Minute)
		assert.Contains(t, b.out(), "2 org-b")
		for span := range spansOf(b.sink.AllTraces()) {
			if span.Name() == "2" {
				assert.Equal(t, given{org: "org-b", user: "u1", origin: semconv.SaasIdentityOriginAncestor}, read(span))
			}
		}
	})
}

func TestReleaseRefusedForGoodIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.send(t, unknown(2, 1))
		b.sink.refuse(consumererror.NewPermanent(errDown))
		time.Sleep(7 * time.Second)
		held, bytes := b.level()
		assert.Zero(t, held)
		assert.Zero(t, bytes)
		metadatatest.AssertEqualProcessorIdentitySpansRejected(t, b.telemetry,
			[]metricdata.DataPoint[int64]{{Value: 1}}, metricdatatest.IgnoreTimestamp())
	})
}

// Full and refused: the sender is told to come back, and nothing more is taken in.
func TestFullPushesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(cfg *Config) { cfg.MaxHeldBytes = 1 })
		b.sink.refuse(errDown)
		b.send(t, unknown(2, 1))
		err := b.ConsumeTraces(context.Background(), batchOf([]plain{unknown(3, 1)}))
		require.ErrorIs(t, err, errFull)
		assert.False(t, consumererror.IsPermanent(err))
		b.sink.accept()
		time.Sleep(time.Second)
		b.send(t, unknown(3, 1))
		assert.ElementsMatch(t, []string{"2", "3"}, b.out())
	})
}

func TestShutdownReleasesThenRefuses(t *testing.T) {
	b := newBench(t, nil)
	b.send(t, unknown(2, 1), unknown(5, 4).in(2))
	require.NoError(t, b.Shutdown(context.Background()))
	assert.Equal(t, []string{"2", "5"}, b.out())
	b.incomplete(t, map[string]int64{"shutdown": 2})
	require.ErrorIs(t, b.ConsumeTraces(context.Background(), batchOf([]plain{known(1, 0)})), errShutdown)
	assert.Len(t, b.out(), 2)
}

func TestShutdownReportsWhatIsLost(t *testing.T) {
	b := newBench(t, nil)
	b.send(t, unknown(2, 1))
	b.sink.refuse(errDown)
	err := b.Shutdown(context.Background())
	require.ErrorIs(t, err, errDown)
	require.ErrorContains(t, err, "1 held spans are lost")
	require.NoError(t, b.Shutdown(context.Background()))
}

// seen = passed + held + those in hold_duration.
func TestTelemetryAddsUp(t *testing.T) {
	b := newBench(t, nil)
	b.send(t, known(1, 0), unknown(2, 1), unknown(3, 2), unknown(5, 4), unknown(7, 6))
	b.send(t, unknown(4, 1))
	_, bytes := b.level()
	ignore := metricdatatest.IgnoreTimestamp()
	value := func(n int64) []metricdata.DataPoint[int64] { return []metricdata.DataPoint[int64]{{Value: n}} }
	metadatatest.AssertEqualProcessorIdentitySpansSeen(t, b.telemetry, value(6), ignore)
	metadatatest.AssertEqualProcessorIdentitySpansPassed(t, b.telemetry, value(4), ignore)
	metadatatest.AssertEqualProcessorIdentitySpansHeld(t, b.telemetry, value(1), ignore)
	metadatatest.AssertEqualProcessorIdentityHeldBytes(t, b.telemetry, value(bytes), ignore)
	held, err := b.telemetry.GetMetric("otelcol_processor_identity_hold_duration")
	require.NoError(t, err)
	assert.Equal(t, uint64(1), held.Data.(metricdata.Histogram[float64]).DataPoints[0].Count)
	metadatatest.AssertEqualProcessorIdentitySpansCompleted(t, b.telemetry, []metricdata.DataPoint[int64]{{
		Attributes: attribute.NewSet(attribute.String("group", "org"), attribute.String("origin", "ancestor")), Value: 4,
	}}, ignore)
	assert.Positive(t, bytes)
}

// A span that its ancestor released leaves as soon as the batch that brought the ancestor is taken.
func TestReleaseFollowsTheAncestorsBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const took = 20 * time.Millisecond
		b := newBench(t, nil)
		b.send(t, unknown(2, 1))
		time.Sleep(1100 * time.Millisecond) // between two looks of the ticker
		b.sink.meanwhile = func() { time.Sleep(took) }
		b.send(t, known(1, 0))
		found, err := b.telemetry.GetMetric("otelcol_processor_identity_release_duration")
		require.NoError(t, err)
		point := found.Data.(metricdata.Histogram[float64]).DataPoints[0]
		assert.Equal(t, uint64(1), point.Count)
		assert.InDelta(t, took.Seconds(), point.Sum, 1e-9)
	})
}

func TestConflictsAreCounted(t *testing.T) {
	b := newBench(t, nil)
	other := known(1, 0)
	other.org = "org-b"
	b.send(t, known(1, 0), other, other, unknown(2, 1))
	assert.Equal(t, []string{"1", "1", "1", "2"}, b.out())
	b.incomplete(t, map[string]int64{"conflict": 1})
	metadatatest.AssertEqualProcessorIdentitySpanConflicts(t, b.telemetry,
		[]metricdata.DataPoint[int64]{{Value: 1}}, metricdatatest.IgnoreTimestamp())
}

func spanID(n int) (id pcommon.SpanID) {
	binary.BigEndian.PutUint64(id[:], uint64(n))
	return id
}
