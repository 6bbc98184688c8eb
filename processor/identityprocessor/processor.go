package identityprocessor

import (
	"cmp"
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

// The ticker looks this many times during `quiet`, within these limits.
const ticksPerQuiet, shortestTick, longestTick = 20, 5 * time.Millisecond, 250 * time.Millisecond

var (
	errShutdown = errors.New("the identity processor has been shut down")
	errUnderWay = errors.New("the call that has them did not end in time, or was refused after the end")
	errFull     = errors.New("the identity processor holds `max_held_bytes` and the next consumer does not take them: retry later")
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
//	  │ with it what it has made due (ride.go)       │        ▲
//	  │ refused: the error goes to the sender, who   │        ▲
//	  │ sends all of it again; nothing was held      │        │
//	  ▼ accepted                                     ▼        │
//	keep (memory.go) ◀──────────────────────────── hold       │
//	                                                 │        │
//	due: its ancestor came · quiet · wait · ttl ·    ▼        │
//	     a limit · shutdown ────▶ release (release.go) ───────┘
//	                      refused: stays due, and is tried again later
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

	mu      sync.Mutex
	memory  *memory // guarded by mu
	closed  bool    // guarded by mu
	ended   bool    // guarded by mu; the last release is under way, or over
	refused bool    // guarded by mu; the last release was
	running int     // guarded by mu; calls of ConsumeTraces under way

	riding     int           // guarded by mu; held spans that are with the next consumer in somebody's batch
	aloneUntil time.Duration // guarded by mu; until then no batch has riders

	ticking    sync.WaitGroup
	due        chan struct{} // there is something to release
	done       chan struct{} // closed when the ticker and the releaser are to end
	idle       chan struct{} // closed when no call is under way, nor will be
	released   chan struct{} // closed while there is no releaser
	unreleased error         // of its last attempt
	size       int           // of its next attempt, in spans
	lifetime   context.Context
	callOff    context.CancelFunc
}

var _ processor.Traces = (*identityProcessor)(nil)

func newProcessor(set processor.Settings, cfg *Config, next consumer.Traces) (*identityProcessor, error) {
	p := &identityProcessor{
		cfg: cfg, next: next, id: set.ID, logger: set.Logger,
		epoch: time.Now(), size: releaseSize, due: make(chan struct{}, 1),
		done: make(chan struct{}), idle: make(chan struct{}), released: make(chan struct{}),
	}
	close(p.released)
	p.lifetime, p.callOff = context.WithCancel(context.Background())
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
	p.released = make(chan struct{})
	p.ticking.Go(p.tickUntilDone)
	go p.releaseWhenDue()
	return nil
}

// restore holds the spans of one stored entry again. One that is damaged is dropped: it would be so
// at every start.
func (p *identityProcessor) restore(number uint64, batch ptrace.Traces, err error) {
	if err != nil {
		p.failed("A stored batch of held spans is damaged, and dropped.", err)
		p.remove([]uint64{number})
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
	p.wake()
}

// ConsumeTraces passes a batch on without the spans that must wait, and releases those that it
// settles.
func (p *identityProcessor) ConsumeTraces(ctx context.Context, batch ptrace.Traces) error {
	if err := p.enter(); err != nil {
		return err
	}
	defer p.leave()
	o := p.judge(batch)
	if err := p.store.put(ctx, o.held, p.memory.rules.vocabulary); err != nil {
		p.failed("Held spans cannot be stored; the sender is told to try again.", err)
		return err
	}
	if o.ready {
		p.board(ctx, &o)
	}
	if err := p.pass(ctx, batch, &o); err != nil {
		return err
	}
	return p.keep(&o)
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
	p.running++
	return nil
}

func (p *identityProcessor) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running--; p.closed && p.running == 0 {
		close(p.idle)
	}
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
	riders := p.embark(o.riders, batch)
	a := p.alight(&riders, answerOf(p.next.ConsumeTraces(ctx, batch)))
	switch {
	case a.err == nil || len(o.held) == 0:
	case a.final:
		return cmp.Or(p.keep(&outcome{spans: len(o.held), held: o.held}), a.err)
	case a.partly:
		again := ptrace.NewTraces() // the part is the next consumer's, and may be read-only
		a.part.CopyTo(again)
		held, _ := assemble(o.held, p.memory.rules.vocabulary, false)
		held.ResourceSpans().MoveAndAppendTo(again.ResourceSpans())
		a.err = consumererror.NewTraces(a.err, again)
		fallthrough
	default:
		p.remove(finished(o.held))
	}
	return a.err
}

// remove deletes stored entries. While that fails it is tried again; were the process to end before
// it succeeds, their spans would come out once more after the next start.
func (p *identityProcessor) remove(entries []uint64) {
	if err := p.store.remove(context.Background(), entries); err != nil {
		p.failed("Released spans cannot be deleted from the storage yet.", err)
	}
}

func (p *identityProcessor) failed(what string, err error) {
	p.logger.Error(what, zap.Error(err))
	p.mu.Lock()
	defer p.mu.Unlock()
	p.memory.tally.storage++
}

// keep accounts for a batch that was passed on, and holds what was taken out of it. After the end
// nobody would release that, so the sender must send the batch again.
func (p *identityProcessor) keep(o *outcome) error {
	p.mu.Lock()
	if p.ended {
		p.mu.Unlock()
		p.remove(finished(o.held)) // they come again
		return errShutdown
	}
	p.memory.accept(o)
	ready := len(p.memory.holding.due) > 0
	p.mu.Unlock()
	if ready {
		p.wake()
	}
	p.report()
	return nil
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
	ready := len(p.memory.holding.due) > 0
	p.mu.Unlock()
	if ready {
		p.wake()
	}
	p.remove(nil)
	p.report()
}

func (p *identityProcessor) close() (first bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.closed = true
	if p.running == 0 {
		close(p.idle)
	}
	return true
}

func (p *identityProcessor) now() time.Duration { return time.Since(p.epoch) }

func (p *identityProcessor) report() {
	p.mu.Lock()
	t := p.memory.drain()
	p.mu.Unlock()
	p.reporter.report(context.Background(), &t)
}
