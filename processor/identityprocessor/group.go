package identityprocessor

import (
	"fmt"
	"math/bits"
	"slices"

	"go.opentelemetry.io/collector/pdata/pcommon"

	"github.com/otel-shim/otel-shim/processor/identityprocessor/internal/semconv"
)

// vocabulary is the configuration's groups, compiled: every attribute that matters is one bit of a
// machine word, the marks for barriers included.
type vocabulary struct {
	groups []group
	names  []string   // by bit
	slots  [256]uint8 // by slotOf: one more than the bit of the first name there; most attributes fail here
	more   []uint8    // by bit: the same for the next name of the slot
	edge   uint8
	scope  uint8
	keep   uint64 // one bit, or none
}

// group is one set of attributes that travel together.
type group struct {
	name      string
	key       uint64 // one bit
	mask      uint64 // key and members
	anonymous uint8  // bit of the member that may say so
	phrase    string // what it then says; empty where nothing counts as anonymous
	hold      bool
}

func newVocabulary(cfg *Config) *vocabulary {
	v := &vocabulary{}
	for i := range cfg.Groups {
		v.groups = append(v.groups, v.compile(&cfg.Groups[i]))
	}
	v.edge = v.add(semconv.SaasIdentityEdge)
	v.scope = v.add(semconv.SaasIdentityScope)
	if cfg.KeepAttribute != "" {
		v.keep = 1 << v.add(cfg.KeepAttribute)
	}
	return v
}

func (v *vocabulary) compile(cfg *GroupConfig) group {
	g := group{name: cfg.Name, key: 1 << v.add(cfg.Key), hold: cfg.Hold}
	g.mask = g.key
	for _, member := range slices.Sorted(slices.Values(cfg.Members)) {
		g.mask |= 1 << v.add(member)
	}
	if cfg.Anonymous.Attribute != "" {
		g.anonymous, _ = v.bitOf(cfg.Anonymous.Attribute)
		g.phrase = cfg.Anonymous.Value
	}
	return g
}

func (v *vocabulary) add(name string) uint8 {
	bit, slot := uint8(len(v.names)), slotOf(name)
	v.names = append(v.names, name)
	v.more = append(v.more, v.slots[slot])
	v.slots[slot] = bit + 1
	return bit
}

// slotOf spreads names by what costs least to look at. It takes no empty name.
func slotOf(name string) uint8 {
	last := len(name) - 1
	return uint8(last)<<3 ^ name[0] ^ name[last]<<1
}

func (v *vocabulary) bitOf(name string) (bit uint8, known bool) {
	for next := v.slots[slotOf(name)]; next != 0; next = v.more[next-1] {
		if v.names[next-1] == name {
			return next - 1, true
		}
	}
	return 0, false
}

// reading is what one span or resource says in the vocabulary. The rest is valid where set has the
// attribute's bit.
type reading struct {
	set    uint64
	kinds  [64]pcommon.ValueType
	texts  [64]string
	values [64]pcommon.Value // of those that are no strings
}

// read fills the reading from attributes. An empty value counts as absent.
func (v *vocabulary) read(attributes pcommon.Map, into *reading) {
	into.set = 0
	for name, value := range attributes.All() {
		if name == "" || v.slots[slotOf(name)] == 0 {
			continue
		}
		if bit, known := v.bitOf(name); known {
			into.take(bit, value)
		}
	}
}

func (r *reading) take(bit uint8, value pcommon.Value) {
	switch kind := value.Type(); kind {
	case pcommon.ValueTypeEmpty:
		return
	case pcommon.ValueTypeStr:
		if value.Str() == "" { // also where the name comes twice
			return
		}
		r.kinds[bit], r.texts[bit] = kind, value.Str()
	default:
		r.kinds[bit], r.texts[bit], r.values[bit] = kind, value.AsString(), value
		if r.texts[bit] == "" {
			r.texts[bit] = fmt.Sprintf("%#v", value.AsRaw()) // JSON has no NaN
		}
	}
	r.set |= 1 << bit
}

func (r *reading) has(bit uint8) bool { return r.set&(1<<bit) != 0 }

// keepIn says whether a span has a reason not to be sampled out.
func (v *vocabulary) keepIn(span *reading) bool { return span.set&v.keep != 0 }

// statement is what a span says in one group: its own attributes, and what its resource adds.
type statement struct {
	top, below *reading
	set        uint64 // of both
}

// stated puts a span's attributes over its resource's. The resource adds nothing when its key is
// another one: its members then belong to somebody else.
func (g *group) stated(span, resource *reading) statement {
	own, added := span.set&g.mask, resource.set&g.mask
	if own&added&g.key != 0 && !span.agrees(resource, uint8(bits.TrailingZeros64(g.key))) {
		added = 0
	}
	return statement{span, resource, own | added}
}

// agrees says whether two readings say the same in an attribute that both have.
func (r *reading) agrees(with *reading, bit uint8) bool {
	return r.kinds[bit] == with.kinds[bit] && r.texts[bit] == with.texts[bit]
}

// from is the reading that an attribute comes from.
func (s *statement) from(bit uint8) *reading {
	if s.top.has(bit) {
		return s.top
	}
	return s.below
}

// anonymous says whether it is an identity without a key.
func (s *statement) anonymous(g *group) bool {
	return g.phrase != "" && s.set&(1<<g.anonymous) != 0 && s.from(g.anonymous).texts[g.anonymous] == g.phrase
}
