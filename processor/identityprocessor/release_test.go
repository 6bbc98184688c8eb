package identityprocessor

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/processor/processortest"

	"github.com/otel-shim/otel-shim/processor/identityprocessor/internal/metadata"
)

// blockingSink takes nothing while it is blocked; a call ends when its context does, or, where the
// sink is stubborn, not even then.
type blockingSink struct {
	consumertest.TracesSink
	blocked  chan struct{} // closed when it takes again
	stubborn bool
	inside   atomic.Int64
	most     atomic.Int64 // spans that were inside at once
}

func (s *blockingSink) ConsumeTraces(ctx context.Context, batch ptrace.Traces) error {
	inside := s.inside.Add(int64(batch.SpanCount()))
	defer s.inside.Add(-int64(batch.SpanCount()))
	s.most.Store(max(s.most.Load(), inside))
	ended := ctx.Done()
	if s.stubborn {
		ended = nil
	}
	select {
	case <-s.blocked:
		return s.TracesSink.ConsumeTraces(ctx, batch)
	case <-ended:
		return ctx.Err()
	}
}

func startBefore(t *testing.T, cfg *Config, next consumer.Traces) *identityProcessor {
	p, err := newProcessor(processortest.NewNopSettings(metadata.Type), cfg, next)
	require.NoError(t, err)
	require.NoError(t, p.Start(context.Background(), componenttest.NewNopHost()))
	return p
}

// A next consumer that blocks is no reason to hold without bound, nor to keep senders waiting for
// spans that are not theirs: at the limit they are told to come back.
func TestBlockingConsumerPushesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &blockingSink{blocked: make(chan struct{})}
		cfg := createDefaultConfig().(*Config)
		cfg.MaxHeldBytes = 10_000_000
		p := startBefore(t, cfg, sink)
		var err error
		sent := 0
		for ; err == nil; sent++ {
			require.Less(t, sent, 100_000, "it holds without bound")
			err = p.ConsumeTraces(context.Background(), batchOf([]plain{unknown(1, 99).in(uint8(1 + sent%200))}))
			time.Sleep(time.Millisecond)
		}
		require.ErrorIs(t, err, errFull)
		assert.False(t, consumererror.IsPermanent(err))
		assert.LessOrEqual(t, p.memory.holding.bytes(), cfg.MaxHeldBytes*9/8+2000)
		assert.LessOrEqual(t, sink.most.Load(), int64(releaseSize))
		close(sink.blocked)
		time.Sleep(11 * time.Second)
		require.NoError(t, p.ConsumeTraces(context.Background(), batchOf([]plain{known(1, 0)})))
		require.NoError(t, p.Shutdown(context.Background()))
		assert.Equal(t, sent, sink.SpanCount())
	})
}

// Who shuts down says how long that may take, also where the next consumer blocks; else there is a
// limit of our own. What is left then is lost, and said so.
func TestShutdownDoesNotWaitForABlockingConsumer(t *testing.T) {
	for name, test := range map[string]struct {
		limit    time.Duration // of the caller; none if 0
		stubborn bool
		took     time.Duration
	}{
		"the caller's limit":       {limit: 2 * time.Second, took: 2 * time.Second},
		"no limit":                 {took: patience},
		"it does not notice":       {limit: 2 * time.Second, stubborn: true, took: 2*time.Second + lastPatience},
		"it was over at the start": {limit: -1, took: 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sink := &blockingSink{blocked: make(chan struct{}), stubborn: test.stubborn}
				p := startBefore(t, createDefaultConfig().(*Config), sink)
				require.NoError(t, p.ConsumeTraces(context.Background(), batchOf([]plain{unknown(2, 1), unknown(3, 1)})))
				time.Sleep(11 * time.Second) // released, and not taken
				ctx, cancel := context.Background(), func() {}
				if test.limit != 0 {
					ctx, cancel = context.WithTimeout(ctx, test.limit)
				}
				defer cancel()
				began := time.Now()
				require.ErrorContains(t, p.Shutdown(ctx), "2 held spans are lost")
				assert.Equal(t, test.took, time.Since(began))
				close(sink.blocked)
			})
		})
	}
}

// A call that does not end does not stop the shutdown either; its sender learns that what was to be
// held is not.
func TestShutdownDuringACallThatDoesNotEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &blockingSink{blocked: make(chan struct{})}
		p := startBefore(t, createDefaultConfig().(*Config), sink)
		answered := make(chan error, 1)
		go func() {
			answered <- p.ConsumeTraces(context.Background(), batchOf([]plain{known(1, 0), unknown(3, 2)}))
		}()
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		require.ErrorIs(t, p.Shutdown(ctx), context.DeadlineExceeded)
		close(sink.blocked)
		require.ErrorIs(t, <-answered, errShutdown)
	})
}

// Shutdown comes while senders are at it, again and again: what was acknowledged is out.
func TestShutdownWhileSendersSend(t *testing.T) {
	for seed := range uint64(50) {
		sink := new(consumertest.TracesSink)
		p := startBefore(t, createDefaultConfig().(*Config), sink)
		var taken atomic.Int64
		done := make(chan struct{})
		for sender := range uint8(4) {
			go func() {
				defer func() { done <- struct{}{} }()
				for id := uint8(1); ; id = max(1, id+1) {
					switch err := p.ConsumeTraces(context.Background(), batchOf([]plain{known(1, 0), unknown(id, 99).in(sender)})); {
					case errors.Is(err, errShutdown):
						return
					case err != nil:
						panic(err)
					}
					taken.Add(2)
				}
			}()
		}
		time.Sleep(time.Duration(seed) * 50 * time.Microsecond)
		require.NoError(t, p.Shutdown(context.Background()))
		for range 4 {
			<-done
		}
		require.Equal(t, int(taken.Load()), sink.SpanCount(), "seed %d", seed)
	}
}

// Several consumers stand behind a fan-out: what one refuses for good another may take later, and the
// part that one names is not all that others lack.
func TestAnswersOfSeveralConsumers(t *testing.T) {
	permanent := consumererror.NewPermanent(errDown)
	part := consumererror.NewTraces(errDown, batchOf([]plain{unknown(3, 2)}))
	for name, test := range map[string]struct {
		err           error
		final, partly bool
	}{
		"retryable":                  {err: errDown},
		"permanent":                  {err: permanent, final: true},
		"permanent, wrapped":         {err: fmt.Errorf("x: %w", permanent), final: true},
		"permanent for two reasons":  {err: consumererror.NewPermanent(errors.Join(errDown, errDisk)), final: true},
		"part":                       {err: part, partly: true},
		"part, wrapped":              {err: fmt.Errorf("x: %w", part), partly: true},
		"part, alone in a join":      {err: errors.Join(part), partly: true},
		"permanent twice":            {err: errors.Join(permanent, permanent), final: true},
		"permanent and retryable":    {err: errors.Join(permanent, errDown)},
		"retryable and permanent":    {err: fmt.Errorf("%w, %w", errDown, permanent)},
		"permanent and part":         {err: errors.Join(permanent, part)},
		"part and retryable":         {err: errors.Join(part, errDown)},
		"two parts":                  {err: errors.Join(part, part)},
		"part, of a joined deep one": {err: errors.Join(errDown, errors.Join(part, permanent))},
	} {
		t.Run(name, func(t *testing.T) {
			a := answerOf(test.err)
			assert.Equal(t, test.final, a.final)
			assert.Equal(t, test.partly, a.partly)
			assert.Equal(t, test.final, consumererror.IsPermanent(a.err))
			assert.EqualError(t, a.err, test.err.Error())
		})
	}
}

// What one consumer refuses for good and another for now is neither lost when it is passed nor when
// it is released.
func TestJoinedErrorsLoseNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		joined := errors.Join(consumererror.NewTraces(errDown, ptrace.NewTraces()), consumererror.NewPermanent(errDisk), errDown)
		b.send(t, unknown(4, 99).in(2))
		b.sink.refuse(joined)
		err := b.ConsumeTraces(context.Background(), batchOf([]plain{known(1, 0), unknown(3, 2)}))
		require.Error(t, err)
		assert.False(t, consumererror.IsPermanent(err), "the sender would not send it again")
		var partial consumererror.Traces
		assert.NotErrorAs(t, err, &partial, "the sender would send a part of it only")
		time.Sleep(7 * time.Second)
		held, _ := b.level()
		assert.Equal(t, 1, held)
		b.sink.accept()
		time.Sleep(time.Minute)
		assert.Equal(t, []string{"4"}, b.out())
	})
}

// A next consumer that never takes so many spans at once gets fewer.
func TestReleasesThatAreTooLargeBecomeSmaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := 0
		next, err := consumer.NewTraces(func(_ context.Context, batch ptrace.Traces) error {
			if batch.SpanCount() > 90 {
				return errDown
			}
			out += batch.SpanCount()
			return nil
		})
		require.NoError(t, err)
		p := startBefore(t, createDefaultConfig().(*Config), next)
		for id := range uint8(200) {
			require.NoError(t, p.ConsumeTraces(context.Background(), batchOf([]plain{unknown(1+id, 250)})))
		}
		time.Sleep(time.Minute)
		require.NoError(t, p.Shutdown(context.Background()))
		assert.Equal(t, 200, out)
	})
}

// The next consumer takes its time with some batches, so that later ones are held before earlier
// ones: each span still waits as long as it may, and no longer.
func TestWaitAndQuietWherePassingTakesTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const tick = 300 * time.Millisecond
		var mu sync.Mutex
		at, began := map[string]time.Duration{}, time.Now()
		next, err := consumer.NewTraces(func(_ context.Context, batch ptrace.Traces) error {
			slow := false
			mu.Lock()
			for span := range spansOf([]ptrace.Traces{batch}) {
				at[span.Name()] = time.Since(began)
				slow = slow || span.Name() == "slow"
			}
			mu.Unlock()
			if slow {
				time.Sleep(5 * time.Second)
			}
			return nil
		})
		require.NoError(t, err)
		p := startBefore(t, createDefaultConfig().(*Config), next)
		slow := known(1, 0).in(9)
		slow.name = "slow"
		go func() {
			_ = p.ConsumeTraces(context.Background(), batchOf([]plain{slow, unknown(2, 99).in(1)}))
		}()
		time.Sleep(2 * time.Second)
		for id := uint8(3); id < 9; id++ { // its trace is never quiet
			require.NoError(t, p.ConsumeTraces(context.Background(), batchOf([]plain{unknown(id, 99).in(2)})))
			time.Sleep(time.Second)
		}
		time.Sleep(20 * time.Second)
		require.NoError(t, p.Shutdown(context.Background()))
		mu.Lock()
		defer mu.Unlock()
		assert.InDelta(t, 6*time.Second, at["2"], float64(tick), "quiet, from when it was received")
		assert.InDelta(t, 12*time.Second, at["3"], float64(tick), "wait")
		assert.InDelta(t, 13*time.Second, at["4"], float64(tick), "quiet, from the newest")
	})
}
