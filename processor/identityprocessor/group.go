package identityprocessor

import (
	"slices"

	"go.opentelemetry.io/collector/pdata/pcommon"

	"github.com/otel-shim/otel-shim/processor/identityprocessor/internal/semconv"
)

// vocabulary is the configuration's groups, compiled: every attribute that matters is one bit of a
// machine word, the marks for barriers included.
type vocabulary struct {
	groups  []group
	names   []string // by bit
	bits    map[string]uint8
	lengths [256]uint64 // by first byte: bit n is set where a name has n bytes (modulo 64); most fail here, unhashed
	edge    uint8
	scope   uint8
	keep    uint64 // one bit, or none
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
	v := &vocabulary{bits: map[string]uint8{}}
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
		g.anonymous, g.phrase = v.bits[cfg.Anonymous.Attribute], cfg.Anonymous.Value
	}
	return g
}

func (v *vocabulary) add(name string) uint8 {
	bit := uint8(len(v.names))
	v.names = append(v.names, name)
	v.bits[name] = bit
	v.lengths[name[0]] |= 1 << (len(name) & 63)
	return bit
}

// reading is what one span or resource says in the vocabulary. Values are valid where set has
// their bit.
type reading struct {
	set    uint64
	values [64]pcommon.Value
}

// read fills the reading from attributes. An empty value counts as absent.
func (v *vocabulary) read(attributes pcommon.Map, into *reading) {
	into.set = 0
	for name, value := range attributes.All() {
		if name == "" || v.lengths[name[0]]&(1<<(len(name)&63)) == 0 {
			continue
		}
		if bit, known := v.bits[name]; known && !empty(value) {
			into.set |= 1 << bit
			into.values[bit] = value
		}
	}
}

// keepIn says whether a span has a reason not to be sampled out.
func (v *vocabulary) keepIn(span *reading) bool { return span.set&v.keep != 0 }

func empty(value pcommon.Value) bool {
	switch value.Type() {
	case pcommon.ValueTypeEmpty:
		return true
	case pcommon.ValueTypeStr:
		return value.Str() == ""
	}
	return false
}

// anonymousIn says whether the reading is an identity without a key.
func (g *group) anonymousIn(value func(bit uint8) pcommon.Value, set uint64) bool {
	return g.phrase != "" && set&(1<<g.anonymous) != 0 && value(g.anonymous).AsString() == g.phrase
}
