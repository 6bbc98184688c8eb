package identityprocessor

import (
	"encoding/binary"
	"math"
	"math/bits"

	"go.opentelemetry.io/collector/pdata/pcommon"

	"github.com/otel-shim/otel-shim/processor/identityprocessor/internal/semconv"
)

// maxIdentityBytes bounds one remembered identity; a larger one is left on its span but is no
// source, so that a sender cannot fill the memory with attribute values.
const maxIdentityBytes = 4096

// identity is what one span carries of one group. It is interned and never changed. Its members are
// kept as they are compared, one after the other: there are as many as there are requests.
type identity struct {
	code     string           // members in the order of their bits; equal codes are equal identities
	others   *[]pcommon.Value // values of the members that are no strings
	explicit bool             // has the key, or says that there is none
	stop     reason           // set where this is no identity, but why there will be none
	fixed    number           // the same in every trace, for stops
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
	stopRoot     = &identity{fixed: 1, stop: reasonRoot}
	stopBarred   = &identity{fixed: 2, stop: reasonBarred}
	stopConflict = &identity{fixed: 3, stop: reasonConflict}
	stopMismatch = &identity{fixed: 4, stop: reasonMismatch}
	unusable     = &identity{fixed: 5, stop: reasonConflict, explicit: true}
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
	case a.stop == 0 && b.stop == 0 && a.code == b.code:
		return a
	}
	return stopConflict
}

// stamp adds the identity's members that the attributes lack.
func (id *identity) stamp(attributes pcommon.Map, names []string) {
	var m member
	other := 0
	for rest := id.code; rest != ""; {
		m, rest = cutMember(rest)
		value, _ := attributes.GetOrPutEmpty(names[m.bit])
		if m.kind == pcommon.ValueTypeStr {
			if empty(value) {
				value.SetStr(m.text)
			}
			continue
		}
		if empty(value) {
			(*id.others)[other].CopyTo(value)
		}
		other++
	}
}

// stamp adds what is taken to a span's attributes, and marks the origin when a group that holds is
// among it, or anything inferred.
func (s *stamps) stamp(attributes pcommon.Map, words *vocabulary) {
	origin := ""
	s.makeRoom(attributes)
	for g := range words.groups {
		if s.taken[g] == nil {
			continue
		}
		s.taken[g].stamp(attributes, words.names)
		if words.groups[g].hold {
			origin = semconv.SaasIdentityOriginAncestor
		}
	}
	if s.inferred {
		origin = semconv.SaasIdentityOriginDescendants
	}
	if origin != "" {
		attributes.PutStr(semconv.SaasIdentityOrigin, origin)
	}
	if s.keep {
		attributes.PutBool(semconv.SaasSamplingKeep, true)
	}
}

// makeRoom lets the attributes grow once, not with each member.
func (s *stamps) makeRoom(attributes pcommon.Map) {
	more := 0
	for _, id := range s.taken {
		if id != nil {
			more += id.size() + 2
		}
	}
	if more > 0 {
		attributes.EnsureCapacity(attributes.Len() + more)
	}
}

// reader turns attributes into interned identities.
type reader struct {
	*vocabulary
	identities catalog[identity]
	last       [64]*identity // by the key's bit: neighbours mostly say the same
	code       []byte        // scratch
}

// own reads the groups of a span: what it carries over what its resource carries.
func (r *reader) own(span, resource *reading, inResource *claims) claims {
	own := *inResource
	for g := range r.groups {
		if span.set&r.groups[g].mask != 0 {
			own[g] = r.identity(&r.groups[g], span, resource)
		}
	}
	return own
}

// identity interns one group. The resource adds nothing when its key is another one: its members
// then belong to somebody else.
func (r *reader) identity(g *group, span, resource *reading) *identity {
	top, below := span.set&g.mask, resource.set&g.mask
	if top&below&g.key != 0 {
		key := bits.TrailingZeros64(g.key)
		if !span.values[key].Equal(resource.values[key]) {
			below = 0
		}
	}
	value := func(bit uint8) pcommon.Value {
		if top&(1<<bit) != 0 {
			return span.values[bit]
		}
		return resource.values[bit]
	}
	return r.intern(g, top|below, value)
}

func (r *reader) intern(g *group, set uint64, value func(bit uint8) pcommon.Value) *identity {
	if set == 0 {
		return nil
	}
	r.code = r.code[:0]
	for rest := set; rest != 0; rest &= rest - 1 {
		bit := uint8(bits.TrailingZeros64(rest))
		r.code = appendValue(append(r.code, bit), value(bit))
	}
	if len(r.code) > maxIdentityBytes {
		return unusable
	}
	last := &r.last[bits.TrailingZeros64(g.key)]
	if *last != nil && (*last).code == string(r.code) {
		return *last
	}
	if known := r.identities.find(r.code); known != nil {
		*last = known
		return known
	}
	id := &identity{code: string(r.code), others: othersIn(set, value)}
	id.explicit = set&g.key != 0 || g.anonymousIn(value, set)
	r.identities.put(id.code, id)
	*last = id
	return id
}

// othersIn copies the values that are no strings, because those of a batch do not outlive it.
func othersIn(set uint64, value func(bit uint8) pcommon.Value) *[]pcommon.Value {
	var others []pcommon.Value
	for ; set != 0; set &= set - 1 {
		if v := value(uint8(bits.TrailingZeros64(set))); v.Type() != pcommon.ValueTypeStr {
			others = append(others, pcommon.NewValueEmpty())
			v.CopyTo(others[len(others)-1])
		}
	}
	if others == nil {
		return nil
	}
	return &others
}

// appendValue writes a value so that no two different values share their bytes.
func appendValue(code []byte, value pcommon.Value) []byte {
	code = append(code, byte(value.Type()))
	if value.Type() == pcommon.ValueTypeStr {
		return appendText(code, value.Str())
	}
	return appendText(code, value.AsString())
}

// appendText writes a text with its length, which fits where the whole is within bounds.
func appendText(code []byte, text string) []byte {
	code = binary.BigEndian.AppendUint16(code, uint16(min(len(text), math.MaxUint16)))
	return append(code, text...)
}

// catalogSize is how many entries a catalog keeps at least, and half of what it keeps at most.
const catalogSize = 16384

// catalog interns values by their code. It forgets in two generations what is no longer asked
// for, so equal values may have two pointers: compare codes where pointers differ.
type catalog[T any] struct {
	recent, older map[string]*T
}

func (c *catalog[T]) find(code []byte) *T {
	if known := c.recent[string(code)]; known != nil {
		return known
	}
	known := c.older[string(code)]
	if known != nil {
		c.put(string(code), known)
	}
	return known
}

func (c *catalog[T]) put(code string, value *T) {
	if c.recent == nil || len(c.recent) >= catalogSize {
		c.older, c.recent = c.recent, map[string]*T{}
	}
	c.recent[code] = value
}
