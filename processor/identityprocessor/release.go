package identityprocessor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"
)

// releaseSize is how many held spans go to the next consumer in one call, at most: after a refusal it is
// half as many, because there are queues and messages for which so many are too large.
const releaseSize = 1000

// A next consumer that refuses is left alone for this long, then for twice as long, and so on: each
// attempt repeats the spans for those behind it that had taken them.
const firstPause, longestPause = 250 * time.Millisecond, 30 * time.Second

// Shutdown waits for the next consumer at most for this long, also where nobody limits it; and for
// it to notice that it was called off.
const patience, lastPatience = 10 * time.Second, time.Second

// wake tells the releaser that spans are due.
func (p *identityProcessor) wake() {
	select {
	case p.due <- struct{}{}:
	default:
	}
}

// releaseWhenDue is the only one that releases: with one call at a time, no more than releaseSize
// spans are with a next consumer that blocks, and no sender waits for it. At the end it tries once
// more.
func (p *identityProcessor) releaseWhenDue() {
	defer close(p.released)
	for {
		select {
		case <-p.due:
			p.releaseUntilTaken()
		case <-p.done:
			_, p.unreleased = p.release(p.lifetime)
			return
		}
	}
}

func (p *identityProcessor) releaseUntilTaken() {
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		taken, err := p.release(p.lifetime)
		if err == nil {
			return
		}
		if taken > 0 {
			pause = firstPause
		}
		select {
		case <-time.After(pause):
		case <-p.done:
			return
		}
	}
}

// release sends due spans to the next consumer until none is left or it refuses. It has no sender's
// context: those of the spans are gone.
func (p *identityProcessor) release(ctx context.Context) (taken int, err error) {
	defer p.report()
	for {
		holds := p.take(p.size)
		if len(holds) == 0 {
			return taken, nil
		}
		a := p.send(ctx, holds)
		gone, entries := p.settle(holds, &a)
		p.remove(entries)
		taken += gone
		if a.err != nil && !a.final {
			p.size = max(1, p.size/2)
			return taken, a.err
		}
		p.size = min(releaseSize, 2*p.size)
	}
}

// send gives spans to the next consumer in a batch of their own.
func (p *identityProcessor) send(ctx context.Context, holds []*hold) answer {
	batch, l := p.load(holds)
	l.seal(batch)
	a := answerOf(p.next.ConsumeTraces(ctx, batch))
	l.unload(&a, p.memory.rules.vocabulary)
	return a
}

func (p *identityProcessor) take(most int) []*hold {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.memory.take(most)
}

// settle accounts for released spans. It returns how many are done with, because they were taken, or are
// lost because they are refused for good; and the stored entries that are done with.
func (p *identityProcessor) settle(holds []*hold, a *answer) (done int, entries []uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	gone, refused := a.divide(holds)
	switch {
	case a.final:
		p.logger.Error("The next consumer refused held spans for good.", zap.Error(a.err), zap.Int("spans", len(holds)))
		p.memory.tally.rejected += int64(len(holds))
	case a.err != nil && !p.refused:
		p.logger.Warn("The next consumer refuses held spans; they stay held.", zap.Error(a.err))
	}
	p.refused = a.err != nil && !a.final
	p.memory.depart(gone, p.now())
	p.memory.holding.putBack(refused)
	return len(gone), finished(gone)
}

// Shutdown stops taking batches and releases everything held. What the next consumer then refuses,
// or does not take in time, is left in the storage; without one it is lost, and the error says how
// much.
func (p *identityProcessor) Shutdown(ctx context.Context) error {
	if !p.close() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	waited := until(ctx, p.idle)
	p.mu.Lock()
	p.memory.dismissEverything(reasonShutdown)
	p.ended = true
	p.mu.Unlock()
	close(p.done)
	p.ticking.Wait()
	return errors.Join(waited, p.finish(ctx), p.store.close(context.WithoutCancel(ctx)))
}

// finish waits for the last release, and says what is left over.
func (p *identityProcessor) finish(ctx context.Context) error {
	err := until(ctx, p.released)
	if err != nil {
		p.callOff()
		last, cancel := context.WithTimeout(context.Background(), lastPatience)
		defer cancel()
		err = until(last, p.released)
	}
	if err == nil {
		err = p.unreleased
	}
	p.callOff()
	p.report()
	p.reporter.Shutdown()
	p.mu.Lock()
	defer p.mu.Unlock()
	left := p.memory.holding.count
	if left > 0 && err == nil {
		err = errUnderWay
	}
	switch {
	case err != nil && p.store == nil && left > 0:
		return fmt.Errorf("%d held spans are lost: %w", left, err)
	case err != nil:
		p.logger.Warn("Held spans stay in the storage.", zap.Error(err), zap.Int("spans", left))
	}
	return nil
}

// until waits for a channel to be closed.
func until(ctx context.Context, closed <-chan struct{}) error {
	select {
	case <-closed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
