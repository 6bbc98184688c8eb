package identityprocessor

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
)

// Names are told apart also where they share a slot, as many of these do.
func TestVocabularyKnowsItsNamesOnly(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 10))
	name := func() string {
		text := make([]byte, 1+random.IntN(6))
		for i := range text {
			text[i] = "abc"[random.IntN(3)]
		}
		return string(text)
	}
	for range 200 {
		v := &vocabulary{}
		for len(v.names) < maxAttributes {
			if next := name(); !slices.Contains(v.names, next) {
				v.add(next)
			}
		}
		for range 1000 {
			asked := name()
			bit, known := v.bitOf(asked)
			require.Equal(t, slices.Contains(v.names, asked), known, asked)
			if known {
				require.Equal(t, asked, v.names[bit])
			}
		}
	}
}

// Two spans that say the same have one code, and only they: what compares without writing the code
// down finds the same.
func TestSayingTheSame(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 11))
	values := []func(pcommon.Value){
		func(v pcommon.Value) { v.SetStr("1") },
		func(v pcommon.Value) { v.SetStr("12") },
		func(v pcommon.Value) { v.SetInt(1) },
		func(v pcommon.Value) { v.SetBool(true) },
		func(v pcommon.Value) { v.SetStr("true") },
		func(v pcommon.Value) { v.SetStr("") },
		func(pcommon.Value) {},
	}
	attributes := func() pcommon.Map {
		m := pcommon.NewMap()
		for _, name := range []string{"key", "a", "b", "other"} {
			if random.IntN(2) == 0 {
				values[random.IntN(len(values))](m.PutEmpty(name))
			}
		}
		return m
	}
	cfg := createDefaultConfig().(*Config)
	cfg.Groups = []GroupConfig{{Name: "g", Key: "key", Members: []string{"a", "b"}, Hold: true}}
	r := &reader{vocabulary: newVocabulary(cfg)}
	var known []*identity
	equal := 0
	for range 400 {
		var resource, span reading
		r.read(attributes(), &resource)
		r.read(attributes(), &span)
		s := r.groups[0].stated(&span, &resource)
		if s.set == 0 {
			continue
		}
		id := r.intern(0, &s)
		for _, other := range known {
			require.Equal(t, id.code == other.code, other.isSaidBy(&s), "%q %q", id.code, other.code)
			if id.code == other.code {
				equal++
			}
		}
		known = append(known, id)
	}
	assert.Greater(t, equal, 500)
}

// What never comes again is soon not catalogued, and what comes again is, soon after it begins to.
func TestCatalogOfWhatNeverComesAgain(t *testing.T) {
	c := &catalog[int]{}
	ask := func(n int) (found bool) {
		code := fmt.Sprintf("0199f0a2-%06x", n)
		if found = c.find([]byte(code)) != nil; !found {
			c.put(code, new(int))
		}
		return found
	}
	for n := range 100_000 {
		require.False(t, ask(n))
	}
	assert.Less(t, len(c.recent)+len(c.older), 10_000)
	found := 0
	for n := range 10_000 {
		if ask(1_000_000 + n%100) {
			found++
		}
	}
	assert.Greater(t, found, 9_000)
}
