package identityprocessor

import (
	"context"
	"time"

	"go.opentelemetry.io/collector/client"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// What a batch settles rides with it: one call of the next consumer instead of two. A rider is held
// until that call is answered, and its sender has nothing to do with the batch's: neither learns of the
// other's spans, and what is refused because of one is tried again without it.

// ridePause is how long batches go alone once one with riders was refused: nobody knows whose spans
// were the reason.
const ridePause = time.Minute

// board takes what is due to ride with a batch: all of it, or nothing where that cannot be told apart
// from the batch, is too much, or would carry what the batch's sender said about itself.
func (p *identityProcessor) board(ctx context.Context, o *outcome) {
	p.mu.Lock()
	defer p.mu.Unlock()
	own, due := o.spans-len(o.held), p.memory.holding.due
	switch {
	case len(due) == 0 || own == 0 || o.repeats || carriesSender(ctx):
		return
	case p.ended || p.refused || p.now() < p.aloneUntil:
		return
	case p.riding+own+len(due) > releaseSize || anyForgotten(due):
		return
	}
	o.riders = p.memory.take(len(due))
	p.riding += len(o.riders)
}

// carriesSender says that a component behind could act on who sent the batch: an exporter that passes its
// tenant on, for example.
func carriesSender(ctx context.Context) bool {
	info := client.FromContext(ctx)
	for range info.Metadata.Keys() {
		return true
	}
	return info.Auth != nil
}

// anyForgotten says that the trace of one was let go: then a span of the batch may have its id unnoticed.
func anyForgotten(holds []*hold) bool {
	for _, h := range holds {
		if h.trace.forgotten() != 0 {
			return true
		}
	}
	return false
}

// embark puts riders behind the spans of a batch.
func (p *identityProcessor) embark(riders []*hold, batch ptrace.Traces) cargo {
	if len(riders) == 0 {
		return cargo{}
	}
	behind, l := p.load(riders)
	behind.ResourceSpans().MoveAndAppendTo(batch.ResourceSpans())
	l.seal(batch)
	return l
}

// alight accounts for riders, and turns the answer into one about the rest of the batch. Refused for
// good is only what was refused alone.
func (p *identityProcessor) alight(l *cargo, a answer) answer {
	if len(l.holds) == 0 {
		return a
	}
	if a.final {
		a = answer{err: retryable{a.err}}
	}
	l.unload(&a, p.memory.rules.vocabulary)
	others := a.without(l.holds) // once they are settled, the riders are the releaser's
	p.goAlone(len(l.holds), a.err != nil)
	_, entries := p.settle(l.holds, &a)
	p.remove(entries)
	if a.err != nil {
		p.wake()
	}
	return others
}

// goAlone counts riders that have arrived, and stops riding for a while after a refusal.
func (p *identityProcessor) goAlone(arrived int, refused bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.riding -= arrived
	if refused {
		p.aloneUntil = p.now() + ridePause
	}
}

// without is what an answer says to somebody who did not send some of the spans.
func (a *answer) without(holds []*hold) answer {
	if !a.partly {
		return *a
	}
	others, left := map[spanKey]bool{}, ptrace.NewTraces()
	for _, h := range holds {
		others[idOf(h.span)] = true
	}
	a.part.CopyTo(left) // it is the next consumer's, and may be read-only
	left.ResourceSpans().RemoveIf(func(rs ptrace.ResourceSpans) bool {
		rs.ScopeSpans().RemoveIf(func(ss ptrace.ScopeSpans) bool {
			ss.Spans().RemoveIf(func(span ptrace.Span) bool { return others[idOf(span)] })
			return ss.Spans().Len() == 0
		})
		return rs.ScopeSpans().Len() == 0
	})
	if left.SpanCount() == 0 {
		return answer{}
	}
	return answer{err: consumererror.NewTraces(a.err, left), partly: true, part: left}
}

// cargo is held spans in a batch.
type cargo struct {
	holds []*hold
	spans []ptrace.Span // the same, in the batch
	moved bool          // they are nowhere else
	was   map[int][]replaced
}

// note keeps what a span of the batch had in place of what it took.
func (l *cargo) note(span int, was []replaced) {
	if was == nil {
		return
	}
	if l.was == nil {
		l.was = map[int][]replaced{}
	}
	l.was[span] = was
}

// load puts held spans into a batch. A batch belongs to who gets it, even where it is refused; so the
// spans are copied, unless the next consumer changes nothing: then they are moved, and taken back from a
// batch that nobody can have changed.
func (p *identityProcessor) load(holds []*hold) (ptrace.Traces, cargo) {
	return assemble(holds, p.memory.rules.vocabulary, !p.next.Capabilities().MutatesData)
}

// seal makes sure that moved spans can be taken back as they are.
func (l *cargo) seal(batch ptrace.Traces) {
	if l.moved {
		batch.MarkReadOnly()
	}
}

// unload takes moved spans back unless they will not be needed again.
func (l *cargo) unload(a *answer, words *vocabulary) {
	if !l.moved || a.err == nil || a.final {
		return
	}
	for i, h := range l.holds {
		h.takeBack(l.spans[i], l.was[i], words)
	}
}
