package identityprocessor

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/processor"
	"go.uber.org/zap"
)

// releaseSize is how many held spans go to the next consumer in one call.
const releaseSize = 1000

// The ticker looks this many times during `quiet`, within these limits.
const ticksPerQuiet, shortestTick, longestTick = 20, 5 * time.Millisecond, 250 * time.Millisecond

var (
	errShutdown = errors.New("the identity processor has been shut down")
	errFull     = errors.New("the identity processor holds `max_held_bytes` and the next consumer refuses them: retry later")
)

// identityProcessor completes the identity of spans from their ancestors.
//
//	ConsumeTraces
//	  │ judge (batch.go), under the lock
//	  │   every span ──▶ observe (memory.go) ──▶ its node in the forest of its trace (trace.go)
//	  │   a span without identity ──▶ inherited (trace.go, barrier.go)
//	  │        settled ──▶ stamped, or left as it is ──┐
//	  │        an ancestor is missing ──▶ taken out ─┐ │
//	  ▼                                              │ ▼
//	put (store.go), if there is a storage            │ │
//	  ▼                                              │ ▼
//	pass ──────────────── the batch, in place ───────│────▶ next consumer
//	  │ refused: the error goes to the sender, who   │        ▲
//	  │ sends all of it again; nothing was held      │        │
//	  ▼ accepted                                     ▼        │
//	keep (memory.go) ◀──────────────────────────── hold       │
//	                                                 │        │
//	due: its ancestor came · quiet · wait · ttl ·    ▼        │
//	     a limit · shutdown ──────────────────▶ release ──────┘
//	                                refused: stays due, the ticker tries again
//
// Identity is found in one place, trace.inherited, and written in one place, claims.stamp.
type identityProcessor struct {
	cfg      *Config
	next     consumer.Traces
	id       component.ID
	logger   *zap.Logger
	reporter *reporter
	store    *store    // nil where none is configured
	epoch    time.Time // times are kept as distances from it

	mu     sync.Mutex
	memory *memory // guarded by mu
	closed bool    // guarded by mu

	calls   sync.WaitGroup // ConsumeTraces under way; added to under mu, while not closed
	ticking sync.WaitGroup
	done    chan struct{}
}

var _ processor.Traces = (*identityProcessor)(nil)

func newProcessor(set processor.Settings, cfg *Config, next consumer.Traces) (*identityProcessor, error) {
	p := &identityProcessor{
		cfg: cfg, next: next, id: set.ID, logger: set.Logger,
		epoch: time.Now(), done: make(chan struct{}),
	}
	p.memory = newMemory(cfg, p.now)
	var err error
	p.reporter, err = newReporter(set, p.memory.rules.groups)
	return p, err
}

// Capabilities says that batches are changed in place.
func (*identityProcessor) Capabilities() consumer.Capabilities {
	return consumer.Capabilities{MutatesData: true}
}

// Start takes over what an earlier process held, and begins to look after deadlines.
func (p *identityProcessor) Start(ctx context.Context, host component.Host) (err error) {
	if p.cfg.Storage != nil {
		if p.store, err = openStore(ctx, *p.cfg.Storage, p.id, host); err != nil {
			return err
		}
		if err = p.store.load(ctx, p.restore); err != nil {
			return fmt.Errorf("`storage: %s` cannot be read: %w", p.cfg.Storage, errors.Join(err, p.store.close(ctx)))
		}
	}
	p.ticking.Go(p.tickUntilDone)
	return nil
}

// restore holds the spans of one stored entry again. One that cannot be read stays where it is.
func (p *identityProcessor) restore(number uint64, batch ptrace.Traces, err error) {
	if err != nil {
		p.logger.Error("A stored batch of held spans cannot be read.", zap.Error(err), zap.Uint64("entry", number))
		p.memory.tally.storage++
		return
	}
	holds := p.memory.recall(batch, p.now())
	if len(holds) == 0 {
		p.remove([]uint64{number})
	}
	stored := &entry{number: number, left: len(holds)}
	for _, h := range holds {
		h.entry = stored
	}
	p.memory.tally.restored += int64(len(holds))
	p.memory.accept(&outcome{spans: len(holds), held: holds})
}

// ConsumeTraces passes a batch on without the spans that must wait, and releases those that it
// settles.
func (p *identityProcessor) ConsumeTraces(ctx context.Context, batch ptrace.Traces) error {
	if err := p.enter(); err != nil {
		return err
	}
	defer p.calls.Done()
	o := p.judge(batch)
	if err := p.store.put(ctx, o.held, p.memory.rules.vocabulary); err != nil {
		p.failed("Held spans cannot be stored; the sender is told to try again.", err)
		return err
	}
	if err := p.pass(ctx, batch, &o); err != nil {
		return err
	}
	p.keep(&o)
	return nil
}

func (p *identityProcessor) enter() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return errShutdown
	case p.memory.holding.full():
		return errFull
	}
	p.calls.Add(1)
	return nil
}

func (p *identityProcessor) judge(batch ptrace.Traces) outcome {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.memory.judge(batch, p.now())
}

// pass sends on what is left of the batch. On an error the sender is expected to send the batch
// again, so the spans taken out of it are let go: they come again too. Two errors say otherwise.
// After a permanent one nothing comes again, so those spans are kept; and one that names the part
// to send again gets those spans added to that part.
func (p *identityProcessor) pass(ctx context.Context, batch ptrace.Traces, o *outcome) error {
	if batch.SpanCount() == 0 && len(o.held) > 0 {
		return nil
	}
	err := p.next.ConsumeTraces(ctx, batch)
	var partial consumererror.Traces
	switch {
	case err == nil || len(o.held) == 0:
	case consumererror.IsPermanent(err):
		p.keep(&outcome{spans: len(o.held), held: o.held})
	case errors.As(err, &partial):
		again := partial.Data()
		assemble(o.held, p.memory.rules.vocabulary).ResourceSpans().MoveAndAppendTo(again.ResourceSpans())
		err = consumererror.NewTraces(err, again)
		fallthrough
	default:
		p.remove(finished(o.held))
	}
	return err
}

// remove deletes stored entries. On failure they come out once more after the next start.
func (p *identityProcessor) remove(entries []uint64) {
	if err := p.store.remove(context.Background(), entries); err != nil {
		p.failed("Released spans cannot be deleted from the storage; they will come again.", err)
	}
}

func (p *identityProcessor) failed(what string, err error) {
	p.logger.Error(what, zap.Error(err))
	p.mu.Lock()
	defer p.mu.Unlock()
	p.memory.tally.storage++
}

// keep accounts for a batch that was passed on, holds what was taken out of it, and releases what
// is due, unless the next consumer is refusing: then the ticker does.
func (p *identityProcessor) keep(o *outcome) {
	p.mu.Lock()
	p.memory.accept(o)
	ready := len(p.memory.holding.due) > 0 && !p.memory.holding.refused
	p.mu.Unlock()
	if ready {
		p.releaseNow()
	}
	p.report()
}

// releaseNow releases without any sender's context: those of the spans are gone, and the one at
// hand belongs to somebody else. A refusal is logged and counted, and the spans stay due.
func (p *identityProcessor) releaseNow() { _ = p.release(context.Background()) }

// release sends due spans to the next consumer until none is left or it refuses.
func (p *identityProcessor) release(ctx context.Context) error {
	for {
		holds := p.take()
		if len(holds) == 0 {
			return nil
		}
		err := p.next.ConsumeTraces(ctx, assemble(holds, p.memory.rules.vocabulary))
		done, err := p.settle(holds, err)
		p.remove(done)
		if err != nil {
			return err
		}
	}
}

func (p *identityProcessor) take() []*hold {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.memory.take(releaseSize)
}

// settle accounts for released spans. It returns the stored entries that are done with, and the
// error of a consumer that may take the spans later; what is refused for good is lost.
func (p *identityProcessor) settle(holds []*hold, err error) (done []uint64, again error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if permanent := consumererror.IsPermanent(err); permanent || err == nil {
		if permanent {
			p.logger.Error("The next consumer refused held spans for good.", zap.Error(err), zap.Int("spans", len(holds)))
			p.memory.tally.rejected += int64(len(holds))
		}
		p.memory.depart(holds, p.now())
		return finished(holds), nil
	}
	if !p.memory.holding.refused {
		p.logger.Warn("The next consumer refuses held spans; they stay held.", zap.Error(err))
	}
	taken, refused := divide(holds, err)
	p.memory.depart(taken, p.now())
	p.memory.holding.putBack(refused)
	return finished(taken), err
}

func (p *identityProcessor) tickUntilDone() {
	ticker := time.NewTicker(min(max(p.cfg.Quiet/ticksPerQuiet, shortestTick), longestTick))
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			p.tick()
		case <-p.done:
			return
		}
	}
}

func (p *identityProcessor) tick() {
	p.mu.Lock()
	p.memory.expire(p.now())
	p.mu.Unlock()
	p.releaseNow()
	p.report()
}

// Shutdown stops taking batches and releases everything held. What the next consumer then refuses
// is left in the storage; without one it is lost, and the error says how much.
func (p *identityProcessor) Shutdown(ctx context.Context) error {
	if !p.close() {
		return nil
	}
	p.calls.Wait()
	close(p.done)
	p.ticking.Wait()
	p.mu.Lock()
	p.memory.dismissEverything(reasonShutdown)
	p.mu.Unlock()
	err := p.release(ctx)
	p.report()
	p.reporter.Shutdown()
	switch {
	case err != nil && p.store == nil:
		err = fmt.Errorf("%d held spans are lost: %w", p.memory.holding.count, err)
	case err != nil:
		p.logger.Warn("Held spans stay in the storage.", zap.Error(err), zap.Int("spans", p.memory.holding.count))
		err = nil
	}
	return errors.Join(err, p.store.close(ctx))
}

func (p *identityProcessor) close() (first bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	first = !p.closed
	p.closed = true
	return first
}

func (p *identityProcessor) now() time.Duration { return time.Since(p.epoch) }

func (p *identityProcessor) report() {
	p.mu.Lock()
	t := p.memory.drain()
	p.mu.Unlock()
	p.reporter.report(context.Background(), &t)
}
