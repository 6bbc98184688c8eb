package identityprocessor

import (
	"math"
	"time"
)

// below is what stands below one node in one group.
type below struct {
	explicit *identity // what all spans below say; a stop where they disagree
	partial  *identity // what the partly filled ones say together; a stop where they disagree
	local    *identity // what reaches the node from below in its own process
	called   *identity // what reaches a CLIENT span from the process that it called
}

// inference is what is below every node of a trace, computed at once from the leaves up.
type inference struct {
	groups int
	below  []below
	done   []bool // by node; false on a cycle
}

func (i *inference) at(n int32, g int) *below { return &i.below[int(n)*i.groups+g] }

// mayInfer says whether a span that gets nothing from its ancestors for this reason may take what
// its descendants agree on.
func (t *trace) mayInfer(n int32, why reason) bool {
	open := why == 0 || why == reasonRoot || why == reasonBarred
	return open && t.rules.upward && !t.nodes[n].is(markScope|markFanIn|markTorn)
}

// covered says whether everything below a held span can have been received and remembered: nothing
// of its trace was forgotten since it began, nor in the time that spans may be late.
func (m *memory) covered(h *hold) bool {
	start, end := uint64(h.span.StartTimestamp()), uint64(h.span.EndTimestamp())
	if h.trace.forgotten() != 0 || end < start || end-start > math.MaxInt64/2 {
		return false
	}
	return h.since >= m.lapses.last(h.trace.id)+m.quiet+time.Duration(end-start)
}

// inferences are computed once for all spans of a trace that leave together.
type inferences map[*trace]*inference

func (all inferences) of(t *trace) *inference {
	i := all[t]
	if i == nil {
		i = t.infer()
		all[t] = i
	}
	return i
}

// complete adds to a verdict what the descendants of a held span agree on, and says for which groups.
func (i *inference) complete(h *hold, v *verdict) (inferred [maxGroups]bool) {
	t := h.trace
	for g := range t.rules.groups {
		own := h.own[g]
		if v.stamps[g] != nil || own.isExplicit() {
			continue
		}
		if _, why := t.taken(h.node, g, own); !t.mayInfer(h.node, why) {
			continue
		}
		found, why := i.found(t, h.node, g, own)
		v.stamps[g], inferred[g] = found, found != nil
		if t.rules.groups[g].hold && why != 0 {
			v.reason = why
		}
	}
	return inferred
}

// found is what everything below a node agrees on, as far as it reaches the node.
func (i *inference) found(t *trace, n int32, g int, own *identity) (*identity, reason) {
	if !i.done[n] || t.nodes[n].is(markDisputed) {
		return nil, reasonAmbiguous
	}
	b := i.at(n, g)
	found := joined(b.local, b.called)
	switch {
	case found == nil:
		return nil, 0
	case found.stop() != 0 || b.explicit.stop() != 0:
		return nil, reasonAmbiguous
	case b.partial != nil && (b.partial.stop() != 0 || !b.partial.within(found)):
		return nil, reasonAmbiguous
	case own != nil && !own.within(found):
		return nil, reasonAmbiguous
	}
	return found, 0
}

func (t *trace) infer() *inference {
	i := &inference{groups: len(t.rules.groups), done: make([]bool, len(t.nodes))}
	i.below = make([]below, len(t.nodes)*i.groups)
	t.fromLeaves(func(n int32) {
		i.done[n] = true
		if t.nodes[n].parent() != absent {
			for g := range t.rules.groups {
				i.rise(t, n, g)
			}
		}
	})
	return i
}

// fromLeaves visits every node after all its children; nodes on a cycle not at all.
func (t *trace) fromLeaves(visit func(n int32)) {
	pending := make([]int32, len(t.nodes))
	for n := range t.nodes {
		if parent := t.nodes[n].parent(); parent != absent {
			pending[parent]++
		}
	}
	ready := make([]int32, 0, len(t.nodes))
	for n, children := range pending {
		if children == 0 {
			ready = append(ready, int32(n))
		}
	}
	for ; len(ready) > 0; ready = ready[1:] {
		n := ready[0]
		visit(n)
		if parent := t.nodes[n].parent(); parent != absent {
			if pending[parent]--; pending[parent] == 0 {
				ready = append(ready, parent)
			}
		}
	}
}

// rise adds what a node and everything below it say to what stands below its parent.
func (i *inference) rise(t *trace, n int32, g int) {
	at, parent, own := &t.nodes[n], &t.nodes[t.nodes[n].parent()], t.own(n, g)
	from, to := i.at(n, g), i.at(at.parent(), g)
	to.explicit = joined(to.explicit, from.explicit)
	to.partial = united(to.partial, from.partial)
	given := from.local
	switch {
	case at.is(markScope | markTorn | markDisputed):
		to.explicit = stopConflict
		return
	case own == nil:
	case own.isExplicit() || own.stop() != 0:
		to.explicit = joined(to.explicit, own)
		given = own
	default:
		to.partial = united(to.partial, own)
	}
	switch {
	case given == nil || at.is(markEdge) || at.is(markFanIn) && !own.isExplicit():
	case t.sameProcess(at, parent):
		to.local = joined(to.local, given)
	case parent.is(markClient) && !t.bars(at, parent):
		to.called = joined(to.called, given)
	}
}

// united is what two partly filled spans say together. The order makes no difference.
func united(a, b *identity) *identity {
	switch {
	case a == nil || a == b:
		return b
	case b == nil:
		return a
	case a.stop() != 0 || b.stop() != 0:
		return stopConflict
	}
	var both []byte
	for x, y := a.code, b.code; x != "" || y != ""; {
		m, fromX, fromY := firstOf(x, y)
		if fromX == x && fromY == y {
			return stopConflict
		}
		both, x, y = append(both, m.code...), fromX, fromY
	}
	return &identity{code: string(both), rare: partlyFilled}
}

// firstOf takes the first member off two codes: off both where they share it, off neither where
// they contradict each other.
func firstOf(x, y string) (first member, restX, restY string) {
	switch {
	case y == "" || x != "" && x[0] < y[0]:
		first, x = cutMember(x)
		return first, x, y
	case x == "" || y[0] < x[0]:
		first, y = cutMember(y)
		return first, x, y
	}
	first, restX = cutMember(x)
	other, restY := cutMember(y)
	if first.code != other.code {
		return first, x, y
	}
	return first, restX, restY
}
