package identityprocessor

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/client"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/processor/processortest"

	"github.com/otel-shim/otel-shim/processor/identityprocessor/internal/metadata"
	"github.com/otel-shim/otel-shim/processor/identityprocessor/internal/semconv"
)

// give sends a batch and returns the error that its sender gets.
func (b *bench) give(ctx context.Context, spans ...plain) error {
	return b.ConsumeTraces(ctx, batchOf(spans))
}

// calls are the names in each batch that was taken.
func (b *bench) calls() (calls [][]string) {
	for _, batch := range b.sink.AllTraces() {
		var names []string
		for span := range spansOf([]ptrace.Traces{batch}) {
			names = append(names, span.Name())
		}
		calls = append(calls, names)
	}
	return calls
}

// What a batch settles leaves with it, behind its own spans.
func TestReleasedSpansRideWithTheBatchThatSettledThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.send(t, unknown(2, 1), unknown(3, 2))
		b.send(t, known(9, 0).in(2), known(1, 0), known(8, 0).in(3))
		assert.Equal(t, [][]string{{"9", "1", "8", "2", "3"}}, b.calls())
		assert.ElementsMatch(t, []string{"9", "1", "8", "2 org-a", "3 org-a"}, b.out())
		assert.Zero(t, b.riding)
	})
}

// A batch whose sender said something about itself takes nobody's spans along; nor does one with a span that
// came before, because a refused part could not be told from it; nor is a batch made larger than a release.
func TestWhatHasNoRiders(t *testing.T) {
	said := client.NewContext(context.Background(), client.Info{Metadata: client.NewMetadata(map[string][]string{"x-scope-orgid": {"a"}})})
	signed := client.NewContext(context.Background(), client.Info{Auth: nobody{}})
	var many []plain
	for i := range releaseSize - 1 {
		many = append(many, known(uint8(1+i%250), 0).in(uint8(2+i/250)))
	}
	for name, test := range map[string]struct {
		ctx   context.Context
		first []plain
		then  []plain
	}{
		"its sender has metadata":   {said, nil, []plain{known(1, 0)}},
		"its sender was recognised": {signed, nil, []plain{known(1, 0)}},
		"a span came before":        {context.Background(), []plain{known(9, 0)}, []plain{known(1, 0), known(9, 0)}},
		"it comes twice":            {context.Background(), nil, []plain{known(1, 0), known(1, 0)}},
		"it would be too large":     {context.Background(), nil, append(many, known(1, 0))},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, nil)
				b.send(t, append(test.first, unknown(251, 1))...)
				before := len(b.calls())
				require.NoError(t, b.give(test.ctx, test.then...))
				synctest.Wait()
				require.Len(t, b.calls(), before+2)
				assert.Equal(t, []string{"251"}, b.calls()[before+1])
			})
		})
	}
}

type nobody struct{}

func (nobody) GetAttribute(string) any     { return nil }
func (nobody) GetAttributeNames() []string { return nil }

// The sender of a refused batch sends its own spans again, and they go alone; the riders are tried again
// by themselves. Nothing comes twice.
func TestRefusedBatchWithRiders(t *testing.T) {
	for name, mutates := range map[string]bool{"moved": false, "copied": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, nil)
				b.next = capable{b.sink, mutates}
				b.send(t, unknown(2, 1))
				b.sink.refuse(errDown)
				require.ErrorIs(t, b.give(context.Background(), known(1, 0), unknown(7, 6)), errDown)
				synctest.Wait()
				held, _ := b.level()
				assert.Equal(t, 1, held, "the sender's own is let go, the rider is not")
				b.sink.accept()
				require.NoError(t, b.give(context.Background(), known(1, 0), unknown(7, 6)))
				time.Sleep(time.Minute)
				assert.ElementsMatch(t, []string{"1", "2 org-a", "7"}, b.out())
				held, bytes := b.level()
				assert.Zero(t, held)
				assert.Zero(t, bytes)
			})
		})
	}
}

// capable says whether it changes batches.
type capable struct {
	consumer.Traces
	mutates bool
}

func (c capable) Capabilities() consumer.Capabilities {
	return consumer.Capabilities{MutatesData: c.mutates}
}

// After a refusal nobody has riders for a while: they may have been the reason.
func TestNobodyHasRidersAfterARefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.send(t, unknown(2, 1))
		b.sink.refuse(errDown)
		require.Error(t, b.give(context.Background(), known(1, 0)))
		b.sink.accept()
		time.Sleep(ridePause / 2)
		b.send(t, unknown(4, 3).in(2))
		b.send(t, known(3, 0).in(2))
		assert.Equal(t, [][]string{{"2"}, {"3"}, {"4"}}, b.calls())
		time.Sleep(ridePause)
		b.send(t, unknown(6, 5).in(3))
		b.send(t, known(5, 0).in(3))
		assert.Equal(t, []string{"5", "6"}, b.calls()[3])
	})
}

// Refused for good may be the riders' fault: the sender learns only what its own spans got alone, and
// nobody's spans are lost because of others.
func TestBatchWithRidersRefusedForGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.send(t, unknown(2, 1))
		b.sink.refuse(consumererror.NewPermanent(errDown))
		err := b.give(context.Background(), known(1, 0))
		require.ErrorContains(t, err, errDown.Error())
		assert.False(t, consumererror.IsPermanent(err))
		synctest.Wait()
		assert.Equal(t, int64(1), b.count("spans_rejected"), "by itself")
		assert.True(t, consumererror.IsPermanent(b.give(context.Background(), known(1, 0))), "by itself")
		assert.Zero(t, b.count("spans_held"))
	})
}

// partial takes all but what is named.
type partial struct {
	*refusingSink
	refuses atomic.Pointer[[]string]
}

func (s *partial) ConsumeTraces(ctx context.Context, batch ptrace.Traces) error {
	taken, rest := ptrace.NewTraces(), ptrace.NewTraces()
	batch.CopyTo(taken)
	batch.CopyTo(rest)
	keep := func(from ptrace.Traces, refused bool) {
		from.ResourceSpans().RemoveIf(func(rs ptrace.ResourceSpans) bool {
			rs.ScopeSpans().At(0).Spans().RemoveIf(func(span ptrace.Span) bool { return slices.Contains(*s.refuses.Load(), span.Name()) != refused })
			return rs.ScopeSpans().At(0).Spans().Len() == 0
		})
	}
	keep(taken, false)
	keep(rest, true)
	if taken.SpanCount() > 0 {
		_ = s.TracesSink.ConsumeTraces(ctx, taken)
	}
	if rest.SpanCount() > 0 {
		return consumererror.NewTraces(errDown, rest)
	}
	return nil
}

// Of a part that is refused the sender learns its own spans; the others are tried again.
func TestPartOfABatchWithRidersIsRefused(t *testing.T) {
	for name, test := range map[string]struct {
		refuses []string
		again   []string // what the sender is to send again
	}{
		"a rider":                   {[]string{"2"}, nil},
		"one of its own":            {[]string{"9"}, []string{"9", "7"}},
		"a rider and one its own":   {[]string{"3", "1"}, []string{"1", "7"}},
		"all riders and all of own": {[]string{"1", "2", "3", "9"}, []string{"1", "9", "7"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, nil)
				sink := &partial{refusingSink: b.sink}
				sink.refuses.Store(new([]string))
				b.next = sink
				b.send(t, unknown(2, 1), unknown(3, 1))
				sink.refuses.Store(&test.refuses)
				err := b.give(context.Background(), known(1, 0), known(9, 0).in(2), unknown(7, 6).in(3))
				sink.refuses.Store(new([]string))
				var part consumererror.Traces
				if test.again == nil {
					require.NoError(t, err)
				} else {
					require.ErrorAs(t, err, &part)
					again := part.Data()
					var names []string
					for span := range spansOf([]ptrace.Traces{again}) {
						names = append(names, span.Name())
					}
					assert.ElementsMatch(t, test.again, names)
					require.NoError(t, b.ConsumeTraces(context.Background(), again))
				}
				time.Sleep(time.Minute)
				assert.ElementsMatch(t, []string{"1", "2 org-a", "3 org-a", "9", "7"}, b.out())
			})
		})
	}
}

// What is stored of riders is deleted once they were taken, and not before.
func TestStoredRidersAreDeletedOnceTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stored, sink := newDisk(), &refusingSink{}
		cfg := createDefaultConfig().(*Config)
		cfg.Storage = &storageID
		p, err := newProcessor(processortest.NewNopSettings(metadata.Type), cfg, sink)
		require.NoError(t, err)
		require.NoError(t, p.Start(context.Background(), stored))
		defer func() { require.NoError(t, p.Shutdown(context.Background())) }()
		give := func(spans ...plain) error { return p.ConsumeTraces(context.Background(), batchOf(spans)) }
		require.NoError(t, give(unknown(2, 1), unknown(4, 3).in(2)))
		sink.refuse(errDown)
		require.Error(t, give(known(1, 0)))
		assert.Equal(t, 1, stored.entries())
		sink.accept()
		time.Sleep(2 * time.Second)
		assert.Equal(t, 1, stored.entries(), "half of the entry is still held")
		time.Sleep(3 * time.Second) // not yet quiet
		p.mu.Lock()
		p.aloneUntil = 0
		p.mu.Unlock()
		require.NoError(t, give(known(3, 0).in(2)))
		assert.Zero(t, stored.entries())
	})
}

// Riders in a call that does not end are lost without a storage, and the shutdown says so.
func TestShutdownDuringACallWithRiders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &blockingSink{blocked: make(chan struct{}), stubborn: true}
		p := startBefore(t, createDefaultConfig().(*Config), sink)
		require.NoError(t, p.ConsumeTraces(context.Background(), batchOf([]plain{unknown(2, 1)})))
		answered := make(chan error, 1)
		go func() { answered <- p.ConsumeTraces(context.Background(), batchOf([]plain{known(1, 0)})) }()
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		err := p.Shutdown(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "1 held spans are lost")
		close(sink.blocked)
		require.ErrorIs(t, <-answered, errShutdown)
	})
}

// A next consumer that does not answer has at most so many released spans, whoever they ride with.
func TestRidersAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &blockingSink{blocked: make(chan struct{})}
		p := startBefore(t, createDefaultConfig().(*Config), sink)
		var done atomic.Int64
		for trace := range uint8(20) {
			var batch []plain
			for id := range uint8(100) {
				batch = append(batch, unknown(2+id, 1).in(1+trace))
			}
			require.NoError(t, p.ConsumeTraces(context.Background(), batchOf(batch)))
		}
		for trace := range uint8(20) {
			go func() {
				if p.ConsumeTraces(context.Background(), batchOf([]plain{known(1, 0).in(1 + trace)})) == nil {
					done.Add(1)
				}
			}()
			synctest.Wait()
		}
		p.mu.Lock()
		assert.LessOrEqual(t, p.riding, releaseSize)
		p.mu.Unlock()
		assert.LessOrEqual(t, sink.most.Load(), int64(2*releaseSize+20))
		close(sink.blocked)
		require.NoError(t, p.Shutdown(context.Background()))
		assert.Equal(t, int64(20), done.Load())
		assert.Equal(t, 2020, sink.SpanCount())
	})
}

// A span that came with an origin of its own, or an empty attribute, has it again after a refusal.
func TestRefusedReleaseRestoresWhatWasThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		batch := batchOf([]plain{unknown(2, 1)})
		attributes := batch.ResourceSpans().At(0).ScopeSpans().At(0).Spans().At(0).Attributes()
		attributes.PutStr(semconv.SaasIdentityOrigin, "elsewhere")
		attributes.PutStr(semconv.SaasPlan, "")
		attributes.PutStr("other", "x")
		was := attributes.AsRaw()
		require.NoError(t, b.ConsumeTraces(context.Background(), batch))
		b.sink.refuse(errDown)
		root := known(1, 0)
		root.plan = "pro"
		for range 3 {
			require.Error(t, b.give(context.Background(), root))
			synctest.Wait()
			b.mu.Lock()
			assert.Equal(t, was, b.memory.holding.due[0].span.Attributes().AsRaw())
			b.mu.Unlock()
			time.Sleep(5 * time.Second)
		}
		b.sink.accept()
		time.Sleep(time.Minute)
		for span := range spansOf(b.sink.AllTraces()) {
			assert.Equal(t, given{org: "org-a", plan: "pro", origin: semconv.SaasIdentityOriginAncestor}, read(span))
		}
		assert.Equal(t, []string{"2 org-a"}, b.out())
	})
}

// Nothing was marked, so there is nothing to take back.
func TestRefusedReleaseLeavesAForeignOrigin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(cfg *Config) { cfg.Upward = upwardOff })
		batch := batchOf([]plain{unknown(2, 1)})
		batch.ResourceSpans().At(0).ScopeSpans().At(0).Spans().At(0).Attributes().PutStr(semconv.SaasIdentityOrigin, "elsewhere")
		require.NoError(t, b.ConsumeTraces(context.Background(), batch))
		b.sink.refuse(errDown)
		time.Sleep(8 * time.Second)
		b.sink.accept()
		time.Sleep(time.Minute)
		require.Len(t, b.out(), 1)
		for span := range spansOf(b.sink.AllTraces()) {
			assert.Equal(t, "elsewhere", read(span).origin)
		}
	})
}
