package identityprocessor

import (
	"container/list"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
)

// absent is the index of no node.
const absent int32 = -1

// smallTrace is how many nodes are searched one by one; above it an index is cheaper.
const smallTrace = 16

// arrival is what one received span says that matters here.
type arrival struct {
	trace   pcommon.TraceID
	id      pcommon.SpanID
	parent  pcommon.SpanID
	service *service
	marks   marks
	own     claims
}

// node remembers one span id of a trace. It exists from the first span that has the id, or has it
// as its parent.
type node struct {
	id       pcommon.SpanID
	parent   int32
	child    int32 // first of its children
	sibling  int32 // next child of its parent
	service  *service
	marks    marks
	received bool
	torn     bool // received with different parents
}

// standing is how one node stands in one group.
type standing struct {
	own    *identity // what it carries, merged over duplicates
	passes *identity // what its children get: an identity, a stop, or nil while not settled
}

// trace is the forest of one trace's received spans.
type trace struct {
	id        pcommon.TraceID
	rules     *rules
	nodes     []node
	standings []standing // len(nodes) times the number of groups
	index     map[pcommon.SpanID]int32
	held      map[int32]*hold // waiting spans by node
	woken     []int32         // nodes in held for which something changed
	seen      time.Duration   // when its newest span was received
	expires   time.Duration
	age       *list.Element // in memory.byAge
	quiet     *list.Element // in holding.byQuiet, while anything is held
	forgotten reason        // set once memory has let it go
}

// rules are the parts of the configuration that a trace is judged by.
type rules struct {
	reader
	remote remoteRule
}

func (t *trace) at(n int32, g int) *standing {
	return &t.standings[int(n)*len(t.rules.groups)+g]
}

func (t *trace) find(id pcommon.SpanID) int32 {
	if t.index != nil {
		if n, ok := t.index[id]; ok {
			return n
		}
		return absent
	}
	for n := range t.nodes {
		if t.nodes[n].id == id {
			return int32(n)
		}
	}
	return absent
}

func (t *trace) findOrAdd(id pcommon.SpanID) int32 {
	if n := t.find(id); n != absent {
		return n
	}
	n := int32(len(t.nodes))
	t.nodes = append(t.nodes, node{id: id, parent: absent, child: absent, sibling: absent})
	for range t.rules.groups {
		t.standings = append(t.standings, standing{})
	}
	t.extendIndex(n)
	return n
}

func (t *trace) extendIndex(n int32) {
	switch {
	case t.index != nil:
		t.index[t.nodes[n].id] = n
	case len(t.nodes) > smallTrace:
		t.index = make(map[pcommon.SpanID]int32, 2*smallTrace)
		for i := range t.nodes {
			t.index[t.nodes[i].id] = int32(i)
		}
	}
}

// receive takes a span into the forest and settles what follows from it. clash says that the id
// was there before and that the two contradict each other.
func (t *trace) receive(a *arrival) (n int32, clash bool) {
	n = t.findOrAdd(a.id)
	changed := true
	if t.nodes[n].received {
		changed, clash = t.merge(n, a)
	} else {
		t.fill(n, a)
	}
	if changed {
		t.settle(n)
	}
	return n, clash
}

// fill makes a received node of a new one.
func (t *trace) fill(n int32, a *arrival) {
	parent := absent
	if !a.parent.IsEmpty() {
		parent = t.findOrAdd(a.parent)
	}
	at := &t.nodes[n]
	at.received, at.service, at.marks, at.parent = true, a.service, a.marks, parent
	for g := range t.rules.groups {
		t.at(n, g).own = a.own[g]
	}
	if parent != absent {
		at.sibling = t.nodes[parent].child
		t.nodes[parent].child = n
	}
}

// merge joins a span into the node of an earlier one with the same id. The order of the two makes
// no difference.
func (t *trace) merge(n int32, a *arrival) (changed, clash bool) {
	at := &t.nodes[n]
	before := *at
	at.marks = at.marks.with(a.marks)
	at.torn = at.torn || t.parentID(at) != a.parent
	if !equal(at.service, a.service) {
		at.service = nil
	}
	changed = at.marks != before.marks || at.torn != before.torn || at.service != before.service
	clash = at.torn != before.torn || at.service != before.service
	for g := range t.rules.groups {
		s := t.at(n, g)
		own := joined(s.own, a.own[g])
		clash = clash || own != s.own && own == stopConflict
		changed = changed || own != s.own
		s.own = own
	}
	return changed, clash
}

func (t *trace) parentID(at *node) (id pcommon.SpanID) {
	if at.parent != absent {
		id = t.nodes[at.parent].id
	}
	return id
}

// settle carries a change at a node down to whatever depends on it. Every node changes a fixed
// number of times at most, so this ends on cycles too, and costs nothing per span in the long run.
func (t *trace) settle(n int32) {
	var space [32]int32
	t.wake(n)
	t.update(n)
	below := t.children(space[:0], n)
	for len(below) > 0 {
		n, below = below[len(below)-1], below[:len(below)-1]
		t.wake(n)
		if t.update(n) {
			below = t.children(below, n)
		}
	}
}

func (t *trace) children(into []int32, n int32) []int32 {
	for c := t.nodes[n].child; c != absent; c = t.nodes[c].sibling {
		into = append(into, c)
	}
	return into
}

func (t *trace) wake(n int32) {
	if t.held[n] != nil {
		t.woken = append(t.woken, n)
	}
}

// update computes anew what a node passes to its children.
func (t *trace) update(n int32) (changed bool) {
	for g := range t.rules.groups {
		s := t.at(n, g)
		passes := t.passed(n, g)
		changed = changed || passes != s.passes
		s.passes = passes
	}
	return changed
}

func (t *trace) passed(n int32, g int) *identity {
	own := t.at(n, g).own
	switch {
	case t.nodes[n].marks&markScope != 0:
		return stopBarred
	case own != nil && (own.explicit || own.stop != 0):
		return own
	}
	given := t.inherited(n, g)
	if own != nil && given != nil && given.stop == 0 && !own.within(given) {
		return stopMismatch
	}
	return given
}

// inherited is the downward rule: what the nearest explicit ancestor of a node gives it. It is nil
// while an ancestor on the way has not been received.
func (t *trace) inherited(n int32, g int) *identity {
	at := &t.nodes[n]
	switch {
	case at.marks.shut():
		return stopBarred
	case at.torn:
		return stopConflict
	case at.parent == absent:
		return stopRoot
	case !t.nodes[at.parent].received:
		return nil
	case t.rules.remote.bars(at, &t.nodes[at.parent]):
		return stopBarred
	}
	return t.at(at.parent, g).passes
}

// verdict is what becomes of one span now.
type verdict struct {
	stamps claims // what it takes, by group
	wait   bool   // a group that holds is not settled
	reason reason // why a group that holds will never be there
}

// judge applies the downward rule to a span at a node that carries own.
func (t *trace) judge(n int32, own *claims) (v verdict) {
	for g := range t.rules.groups {
		if own[g] != nil && own[g].explicit {
			continue
		}
		taken, why := t.taken(n, g, own[g])
		v.stamps[g] = taken
		if !t.rules.groups[g].hold || taken != nil {
			continue
		}
		if why == 0 {
			v.wait = true
		} else if v.reason == 0 {
			v.reason = why
		}
	}
	return v
}

// taken is the identity that a span takes, or why it takes none; neither while not settled.
func (t *trace) taken(n int32, g int, own *identity) (*identity, reason) {
	given := t.inherited(n, g)
	switch {
	case given == nil:
		return nil, 0
	case given.stop != 0:
		return nil, given.stop
	case own != nil && !own.within(given):
		return nil, reasonMismatch
	}
	return given, 0
}
