package identityprocessor

import (
	"math"

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
	keep    bool // must not be sampled out
	own     claims
}

// node remembers one span id of a trace. It exists from the first span that has the id, or has it
// as its parent. There are very many, so it is small and without pointers: what it refers to is
// numbered by its trace.
type node struct {
	id        pcommon.SpanID
	links     links
	service   number
	marks     marks
	standings [maxGroups]standing
}

// links are three nodes in one machine word: the parent, the first child, and the parent's next child.
type links uint64

const (
	linkBits = 21
	noLink   = 1<<linkBits - 1
	noLinks  = links(noLink | noLink<<linkBits | noLink<<(2*linkBits))
)

const (
	linkParent = iota * linkBits
	linkChild
	linkSibling
)

func (l links) to(which int) int32 {
	if n := int32(l>>which) & noLink; n != noLink {
		return n
	}
	return absent
}

func (l *links) set(which int, n int32) {
	*l = *l&^(noLink<<which) | links(n&noLink)<<which
}

func (at *node) parent() int32  { return at.links.to(linkParent) }
func (at *node) child() int32   { return at.links.to(linkChild) }
func (at *node) sibling() int32 { return at.links.to(linkSibling) }

// standing is how one node stands in one group.
type standing struct {
	own    number // what it carries, merged over duplicates
	passes number // what its children get: an identity, a stop, or nil while not settled
}

func (at *node) is(m marks) bool { return at.marks&m != 0 }

// trace is the forest of one trace's received spans. There are many, and most are small: what few have is
// in more.
type trace struct {
	id         pcommon.TraceID
	rules      *rules
	nodes      []node
	identities [identityRoom]*identity
	services   [serviceRoom]*service
	more       *more  // never nil, and not to be changed where it is nothingMore
	older      *trace // in memory.byAge
	younger    *trace
	bytes      int32  // of what is numbered; the negative reason once memory has let the trace go
	expires    uint32 // second, rounded up
}

// more is what few traces have.
type more struct {
	identities []*identity
	services   []*service
	index      map[pcommon.SpanID]int32
	waiting    *waiting // while spans are held
	kept       bool     // it has a span that must not be sampled out
}

var nothingMore = &more{}

// extended is the trace's own more.
func (t *trace) extended() *more {
	if t.more == nothingMore {
		t.more = &more{}
	}
	return t.more
}

// forgotten is why memory has let the trace go, if it has.
func (t *trace) forgotten() reason { return reason(max(0, -t.bytes)) }

// rules are the parts of the configuration that a trace is judged by.
type rules struct {
	reader
	remote remoteRule
	upward bool
}

func (t *trace) own(n int32, g int) *identity {
	return t.identityOf(t.nodes[n].standings[g].own)
}

func (t *trace) identityOf(n number) *identity {
	if int(n) < len(stops) {
		return stops[n]
	}
	return at(t.identities[:], t.more.identities, int(n)-len(stops))
}

// familiar finds what a span says among the newest identities of the trace. No trace has none.
func (t *trace) familiar(s *statement) *identity {
	if t == nil {
		return nil
	}
	i, ok := newest(t.identities[:], t.more.identities, func(id *identity) bool { return id.isSaidBy(s) })
	if !ok {
		return nil
	}
	return at(t.identities[:], t.more.identities, i)
}

// numberOf numbers an identity. One too many is no source, like one that is too large.
func (t *trace) numberOf(id *identity) number {
	switch {
	case id == nil:
		return 0
	case id.fixed() != 0:
		return id.fixed()
	}
	few := t.identities[:]
	if i, known := placeOf(few, t.more.identities, id); known {
		return number(len(stops) + i)
	}
	size := sizeOf(few, t.more.identities)
	if len(stops)+size > math.MaxUint16 {
		return unusable.fixed()
	}
	if size < len(few) {
		few[size] = id
	} else {
		t.extended().identities = appendTight(t.more.identities, id)
	}
	t.bytes += identityBytes + int32(len(id.code))
	return number(len(stops) + size)
}

// weight is how many spans a trace counts as.
func (t *trace) weight() int {
	return len(t.nodes) + (max(traceBytes, int(t.bytes))-traceBytes)/spanBytes
}

func (t *trace) serviceOf(of *node) *service {
	if of.service == 0 {
		return nil
	}
	return at(t.services[:], t.more.services, int(of.service)-1)
}

// numberOfService numbers a service; one too many shares with nobody. The first trace that has it
// counts it: mostly it is the service of many.
func (t *trace) numberOfService(s *service) number {
	if s == nil {
		return 0
	}
	few := t.services[:]
	if i, known := placeOf(few, t.more.services, s); known {
		return number(1 + i)
	}
	size := sizeOf(few, t.more.services)
	switch {
	case size >= math.MaxUint16:
		return 0
	case size < len(few):
		few[size] = s
	default:
		t.extended().services = appendTight(t.more.services, s)
	}
	if !s.counted {
		s.counted = true
		t.bytes += serviceBytes + int32(len(s.name)+len(s.namespace)+len(s.instance))
	}
	return number(1 + size)
}

func (t *trace) find(id pcommon.SpanID) int32 {
	if t.more.index != nil {
		if n, ok := t.more.index[id]; ok {
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
	t.nodes = appendTight(t.nodes, node{id: id, links: noLinks})
	t.extendIndex(n)
	return n
}

// growsBy says whether a span needs new nodes.
func (t *trace) growsBy(a *arrival) bool {
	return t.find(a.id) == absent || !a.parent.IsEmpty() && t.find(a.parent) == absent
}

func (t *trace) extendIndex(n int32) {
	switch {
	case t.more.index != nil:
		t.more.index[t.nodes[n].id] = n
	case len(t.nodes) > smallTrace:
		t.extended().index = make(map[pcommon.SpanID]int32, 2*smallTrace)
		for i := range t.nodes {
			t.more.index[t.nodes[i].id] = int32(i)
		}
	}
}

// receive takes a span into the forest and settles what follows from it. again says that the id was
// there before, and clash that the two contradict each other.
func (t *trace) receive(a *arrival) (n int32, again, clash bool) {
	n = t.findOrAdd(a.id)
	changed := true
	if again = t.nodes[n].is(markReceived); again {
		changed, clash = t.merge(n, a)
	} else {
		t.fill(n, a)
	}
	if changed {
		t.settle(n)
	}
	return n, again, clash
}

// fill makes a received node of a new one.
func (t *trace) fill(n int32, a *arrival) {
	parent := absent
	if !a.parent.IsEmpty() {
		parent = t.findOrAdd(a.parent)
	}
	at := &t.nodes[n]
	at.marks |= a.marks | markReceived
	at.service = t.numberOfService(a.service)
	for g := range t.rules.groups {
		at.standings[g].own = t.numberOf(a.own[g])
	}
	if parent != absent {
		at.links.set(linkParent, parent)
		at.links.set(linkSibling, t.nodes[parent].child())
		t.nodes[parent].links.set(linkChild, n)
	}
}

// merge joins a span into the node of an earlier one with the same id. The order of the two makes
// no difference.
func (t *trace) merge(n int32, a *arrival) (changed, clash bool) {
	if t.parentID(&t.nodes[n]) != a.parent {
		t.tear(n, a.parent)
		clash = !t.nodes[n].is(markTorn)
	}
	at := &t.nodes[n]
	before := *at
	at.marks = at.marks.with(a.marks)
	if clash {
		at.marks |= markTorn
	}
	if !equal(t.serviceOf(at), a.service) {
		at.service = 0
		clash = clash || before.service != 0
	}
	for g := range t.rules.groups {
		had := t.own(n, g)
		if own := joined(had, a.own[g]); own != had {
			at.standings[g].own = t.numberOf(own)
			clash = clash || own == stopConflict
		}
	}
	return *at != before, clash
}

func (t *trace) parentID(at *node) (id pcommon.SpanID) {
	if parent := at.parent(); parent != absent {
		id = t.nodes[parent].id
	}
	return id
}

// tear marks both parents that a span claims to have: neither can know what is below it.
func (t *trace) tear(n int32, other pcommon.SpanID) {
	if !other.IsEmpty() {
		t.nodes[t.findOrAdd(other)].marks |= markDisputed
	}
	if parent := t.nodes[n].parent(); parent != absent {
		t.nodes[parent].marks |= markDisputed
	}
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
	for c := t.nodes[n].child(); c != absent; c = t.nodes[c].sibling() {
		into = append(into, c)
	}
	return into
}

func (t *trace) wake(n int32) {
	if waiting := t.more.waiting; waiting != nil && waiting.spans[n] != nil {
		waiting.woken = append(waiting.woken, n)
	}
}

// update computes anew what a node passes to its children.
func (t *trace) update(n int32) (changed bool) {
	for g := range t.rules.groups {
		passes := t.passed(n, g)
		s := &t.nodes[n].standings[g]
		changed = changed || passes != s.passes
		s.passes = passes
	}
	return changed
}

func (t *trace) passed(n int32, g int) number {
	own := t.own(n, g)
	switch {
	case t.nodes[n].is(markScope):
		return stopBarred.fixed()
	case own != nil && (own.isExplicit() || own.stop() != 0):
		return t.nodes[n].standings[g].own
	}
	given := t.given(n, g)
	if own == nil || given < number(len(stops)) || own.within(t.identityOf(given)) {
		return given
	}
	return stopMismatch.fixed()
}

// inherited is the downward rule: what the nearest explicit ancestor of a node gives it. It is nil
// while an ancestor on the way has not been received.
func (t *trace) inherited(n int32, g int) *identity { return t.identityOf(t.given(n, g)) }

func (t *trace) given(n int32, g int) number {
	at := &t.nodes[n]
	parent := at.parent()
	switch {
	case at.marks.shut():
		return stopBarred.fixed()
	case at.is(markTorn):
		return stopConflict.fixed()
	case parent == absent:
		return stopRoot.fixed()
	case !t.nodes[parent].is(markReceived):
		return 0
	case t.bars(at, &t.nodes[parent]):
		return stopBarred.fixed()
	}
	return t.nodes[parent].standings[g].passes
}

// bars says whether identity stops between a span and its received parent because they are in
// different processes.
func (t *trace) bars(child, parent *node) bool {
	if t.rules.remote.mode == remoteAll || t.sameProcess(child, parent) {
		return false
	}
	return !t.rules.remote.share(t.serviceOf(child), t.serviceOf(parent))
}

// sameProcess says whether a span and its received parent are of one process, as far as they tell.
func (t *trace) sameProcess(child, parent *node) bool {
	return child.is(markLocal) || !child.is(markRemote) && equal(t.serviceOf(child), t.serviceOf(parent))
}

// verdict is what becomes of one span now.
type verdict struct {
	stamps claims // what it takes, by group
	wait   bool   // a group that holds is not settled
	reason reason // why a group that holds is not among its ancestors
}

// judge applies the downward rule to a span at a node that carries own.
func (t *trace) judge(n int32, own *claims) (v verdict) {
	for g := range t.rules.groups {
		if own[g].isExplicit() {
			continue
		}
		taken, why := t.taken(n, g, own[g])
		v.stamps[g] = taken
		if !t.rules.groups[g].hold || taken != nil {
			continue
		}
		v.wait = v.wait || why == 0 || t.mayInfer(n, why)
		if v.reason == 0 {
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
	case given.stop() != 0:
		return nil, given.stop()
	case own != nil && !own.within(given):
		return nil, reasonMismatch
	}
	return given, 0
}
