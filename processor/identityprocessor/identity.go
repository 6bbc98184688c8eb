package identityprocessor

import (
	"encoding/binary"
	"math"
	"math/bits"
	"strings"

	"go.opentelemetry.io/collector/pdata/pcommon"

	"github.com/otel-shim/otel-shim/processor/identityprocessor/internal/semconv"
)

// maxIdentityBytes bounds one remembered identity; a larger one is left on its span but is no
// source, so that a sender cannot fill the memory with attribute values.
const maxIdentityBytes = 4096

// A remembered span costs up to spanBytes at five spans a trace, where what they say takes up to
// traceBytes. What a trace says beyond that counts as more spans.
const spanBytes, traceBytes = 100, 200

// identityBytes and serviceBytes are what one takes besides its text.
const identityBytes, serviceBytes = 32, 72

// cataloguedBytes is the longest code that is catalogued.
const cataloguedBytes = 256

// identity is what one span carries of one group. It is interned and never changed. Its members are
// kept as they are compared, one after the other: there are as many as there are requests.
type identity struct {
	code string // members in the order of their bits; equal codes are equal identities
	rare *rare  // nil for most
}

// rare is what most identities have not.
type rare struct {
	others []pcommon.Value // values of the members that are no strings
	partly bool            // it has no key, nor says that there is none: it is no source
	stop   reason          // set where this is no identity, but why there will be none
	fixed  number          // the same in every trace, for stops
}

var partlyFilled = &rare{partly: true}

// isExplicit says whether a span that carries this is a source.
func (id *identity) isExplicit() bool { return id != nil && (id.rare == nil || !id.rare.partly) }

func (id *identity) stop() reason {
	if id.rare == nil {
		return 0
	}
	return id.rare.stop
}

func (id *identity) fixed() number {
	if id.rare == nil {
		return 0
	}
	return id.rare.fixed
}

// memberHead is the bit of a member, the type of its value and the length of its text.
const memberHead = 4

// member is one attribute of an identity.
type member struct {
	bit  uint8
	kind pcommon.ValueType
	text string
	code string // all of it
}

// cutMember takes the first member off a code.
func cutMember(code string) (m member, rest string) {
	end := memberHead + int(code[2])<<8 + int(code[3])
	return member{code[0], pcommon.ValueType(code[1]), code[memberHead:end], code[:end]}, code[end:]
}

// claims are one span's identities by group; nil where it has no attribute of the group.
type claims [maxGroups]*identity

// Stops stand in the place of an identity where it is settled that there is none. A nil identity
// means that this is not settled yet.
var (
	stopRoot     = &identity{rare: &rare{fixed: 1, stop: reasonRoot, partly: true}}
	stopBarred   = &identity{rare: &rare{fixed: 2, stop: reasonBarred, partly: true}}
	stopConflict = &identity{rare: &rare{fixed: 3, stop: reasonConflict, partly: true}}
	stopMismatch = &identity{rare: &rare{fixed: 4, stop: reasonMismatch, partly: true}}
	unusable     = &identity{rare: &rare{fixed: 5, stop: reasonConflict}}
)

// stops are in the order of their fixed numbers.
var stops = [...]*identity{nil, stopRoot, stopBarred, stopConflict, stopMismatch, unusable}

// size is the number of members.
func (id *identity) size() (n int) {
	for rest := id.code; rest != ""; n++ {
		_, rest = cutMember(rest)
	}
	return n
}

// mask is the members, one bit each.
func (id *identity) mask() (set uint64) {
	var m member
	if id == nil {
		return 0
	}
	for rest := id.code; rest != ""; {
		m, rest = cutMember(rest)
		set |= 1 << m.bit
	}
	return set
}

// within says whether every member is also in other, with an equal value.
func (id *identity) within(other *identity) bool {
	var m, o member
	for mine, theirs := id.code, other.code; mine != ""; {
		m, mine = cutMember(mine)
		for theirs != "" && o.bit < m.bit || o.code == "" && theirs != "" {
			o, theirs = cutMember(theirs)
		}
		if o.code != m.code {
			return false
		}
	}
	return true
}

// joined merges what two spans with one id carry: none, then an identity, then a conflict.
func joined(a, b *identity) *identity {
	switch {
	case a == nil:
		return b
	case b == nil || a == b:
		return a
	case a.stop() == 0 && b.stop() == 0 && a.code == b.code:
		return a
	}
	return stopConflict
}

// replaced is an attribute as it was before something else was put in its place.
type replaced struct {
	name  string
	value pcommon.Value
}

// replacing adds an attribute to those that are replaced, if it was there.
func replacing(was []replaced, there bool, name string, value pcommon.Value) []replaced {
	if !there {
		return was
	}
	r := replaced{name, pcommon.NewValueEmpty()}
	value.CopyTo(r.value)
	return append(was, r)
}

// stamp adds the identity's members that the attributes lack.
func (id *identity) stamp(attributes pcommon.Map, names []string, was []replaced) []replaced {
	var m member
	other := 0
	for rest := id.code; rest != ""; {
		m, rest = cutMember(rest)
		value, there := attributes.GetOrPutEmpty(names[m.bit])
		lacks := empty(value)
		if lacks {
			was = replacing(was, there, names[m.bit], value)
		}
		switch {
		case m.kind != pcommon.ValueTypeStr:
			if lacks {
				id.rare.others[other].CopyTo(value)
			}
			other++
		case lacks:
			value.SetStr(m.text)
		}
	}
	return was
}

func empty(value pcommon.Value) bool {
	switch value.Type() {
	case pcommon.ValueTypeEmpty:
		return true
	case pcommon.ValueTypeStr:
		return value.Str() == ""
	}
	return false
}

// origin is the mark that goes with what is taken: when a group that holds is among it, or anything
// inferred.
func (s *stamps) origin(words *vocabulary) (mark string) {
	if s.inferred != [maxGroups]bool{} {
		return semconv.SaasIdentityOriginDescendants
	}
	for g := range words.groups {
		if s.taken[g] != nil && words.groups[g].hold {
			return semconv.SaasIdentityOriginAncestor
		}
	}
	return ""
}

// stamp adds what is taken to a span's attributes, and marks its origin. It returns the attributes whose place that took.
func (s *stamps) stamp(attributes pcommon.Map, words *vocabulary) (was []replaced) {
	s.makeRoom(attributes)
	for g := range words.groups {
		if s.taken[g] != nil {
			was = s.taken[g].stamp(attributes, words.names, was)
		}
	}
	if origin := s.origin(words); origin != "" {
		value, there := attributes.GetOrPutEmpty(semconv.SaasIdentityOrigin)
		was = replacing(was, there, semconv.SaasIdentityOrigin, value)
		value.SetStr(origin)
	}
	if s.keep {
		attributes.PutBool(semconv.SaasSamplingKeep, true)
	}
	return was
}

// makeRoom lets the attributes grow once, not with each member; not at all where there is room: it counts
// the two marks only where they come.
func (s *stamps) makeRoom(attributes pcommon.Map) {
	more := 0
	for _, id := range s.taken {
		if id != nil {
			more += id.size()
		}
	}
	if more == 0 {
		return
	}
	if more++; s.keep {
		more++
	}
	attributes.EnsureCapacity(attributes.Len() + more)
}

// reader turns attributes into interned identities.
type reader struct {
	*vocabulary
	catalogs   [maxGroups]catalog[identity]
	last       [maxGroups]*identity // neighbours mostly say the same
	nursery    nursery
	inResource reading // scratch, as the following ones
	inSpan     reading
	code       []byte
}

// own reads the groups of a span: what it carries over what its resource carries. It looks first
// among what neighbours in the trace carry.
func (r *reader) own(span, resource *reading, inResource *claims, t *trace) claims {
	own := *inResource
	for g := range r.groups {
		if span.set&r.groups[g].mask != 0 {
			own[g] = r.identity(g, span, resource, t)
		}
	}
	return own
}

// identity interns one group.
func (r *reader) identity(g int, span, resource *reading, t *trace) *identity {
	s := r.groups[g].stated(span, resource)
	if s.set == 0 {
		return nil
	}
	if last := r.last[g]; last != nil && last.isSaidBy(&s) {
		return last
	}
	known := t.familiar(&s)
	if known == nil {
		known = r.intern(g, &s)
	}
	r.last[g] = known
	return known
}

// intern finds or adds an identity among those of all traces.
func (r *reader) intern(g int, s *statement) *identity {
	r.code = r.code[:0]
	for rest := s.set; rest != 0; rest &= rest - 1 {
		bit := uint8(bits.TrailingZeros64(rest))
		from := s.from(bit)
		r.code = appendText(append(r.code, bit, byte(from.kinds[bit])), from.texts[bit])
	}
	if len(r.code) > maxIdentityBytes {
		return unusable
	}
	if known := r.catalogs[g].find(r.code); known != nil {
		return known
	}
	id := r.nursery.identity()
	*id = identity{code: r.nursery.text(r.code), rare: s.rare(s.set&r.groups[g].key == 0 && !s.anonymous(&r.groups[g]))}
	r.catalogs[g].put(id.code, id)
	return id
}

// Sizes of a nursery's blocks. One identity that lives long keeps its neighbours.
const nurseryIdentities, nurseryBytes = 32, 1024

// nursery makes identities in blocks: there is one for each request, and the garbage collector
// looks at every object.
type nursery struct {
	identities []identity
	texts      strings.Builder
}

func (n *nursery) identity() *identity {
	if len(n.identities) == 0 {
		n.identities = make([]identity, nurseryIdentities)
	}
	id := &n.identities[0]
	n.identities = n.identities[1:]
	return id
}

func (n *nursery) text(code []byte) string {
	if n.texts.Cap()-n.texts.Len() < len(code) {
		n.texts.Reset()
		n.texts.Grow(max(nurseryBytes, len(code)))
	}
	start := n.texts.Len()
	n.texts.Write(code)
	return n.texts.String()[start:]
}

// isSaidBy says whether the identity is exactly what a span says.
func (id *identity) isSaidBy(s *statement) bool {
	var m member
	rest := id.code
	for left := s.set; left != 0; left &= left - 1 {
		if rest == "" {
			return false
		}
		m, rest = cutMember(rest)
		bit := uint8(bits.TrailingZeros64(left)) & 63
		if from := s.from(bit); m.bit != bit || m.kind != from.kinds[bit] || m.text != from.texts[bit] {
			return false
		}
	}
	return rest == ""
}

// rare copies the values that are no strings, because those of a batch do not outlive it.
func (s *statement) rare(partly bool) *rare {
	var others []pcommon.Value
	for set := s.set; set != 0; set &= set - 1 {
		bit := uint8(bits.TrailingZeros64(set))
		if from := s.from(bit); from.kinds[bit] != pcommon.ValueTypeStr {
			others = append(others, pcommon.NewValueEmpty())
			from.values[bit].CopyTo(others[len(others)-1])
		}
	}
	switch {
	case others != nil:
		return &rare{others: others, partly: partly}
	case partly:
		return partlyFilled
	}
	return nil
}

// appendText writes a text with its length, which fits where the whole is within bounds.
func appendText(code []byte, text string) []byte {
	code = binary.BigEndian.AppendUint16(code, uint16(min(len(text), math.MaxUint16)))
	return append(code, text...)
}

// catalogSize is how many entries a catalog keeps at least, and half of what it keeps at most.
const catalogSize = 16384

// catalogPatience is how many codes in a row may be new before only one in sixteen is catalogued:
// request ids never come again in another trace.
const catalogPatience = 1024

// catalog interns values by their code. It forgets in two generations what is no longer asked
// for, so equal values may have two pointers: compare codes where pointers differ.
type catalog[T any] struct {
	recent, older map[string]*T
	misses        int // in a row
}

// skips says that a code is long, so that many would take much memory, or probably new. Which ones
// are looked up all the same depends on the code, so that it shows when codes begin to come again.
func skips[T any, C string | []byte](c *catalog[T], code C) bool {
	return len(code) > cataloguedBytes || c.misses > catalogPatience && code[len(code)-1]&15 != 0
}

func (c *catalog[T]) find(code []byte) *T {
	if skips(c, code) {
		return nil
	}
	known := c.recent[string(code)]
	if known == nil {
		if known = c.older[string(code)]; known == nil {
			c.misses++
			return nil
		}
		c.add(string(code), known)
	}
	c.misses = 0
	return known
}

func (c *catalog[T]) put(code string, value *T) {
	if !skips(c, code) {
		c.add(code, value)
	}
}

func (c *catalog[T]) add(code string, value *T) {
	if c.recent == nil || len(c.recent) >= catalogSize {
		c.older, c.recent = c.recent, map[string]*T{}
	}
	c.recent[code] = value
}
