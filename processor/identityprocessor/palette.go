package identityprocessor

import "math"

// number stands for an identity or a service within its trace.
type number uint16

// paletteSearch is how many of the newest entries are compared before one is added: neighbours
// mostly share theirs, and an entry that is there twice does no harm.
const paletteSearch = 8

// palette numbers what the nodes of one trace have in common.
type palette[T any] []*T

// number finds or adds a value. Numbers begin at first; there are not arbitrarily many.
func (p *palette[T]) number(value *T, first int) (n number, ok bool) {
	for i := len(*p) - 1; i >= max(0, len(*p)-paletteSearch); i-- {
		if (*p)[i] == value {
			return number(first + i), true
		}
	}
	if first+len(*p) > math.MaxUint16 {
		return 0, false
	}
	*p = appendTight(*p, value)
	return number(first + len(*p) - 1), true
}

// appendTight is append that grows by a half. Most traces are small, and there are many.
func appendTight[E any](s []E, e E) []E {
	if len(s) == cap(s) {
		grown := make([]E, len(s), len(s)+max(1, (len(s)+1)/2))
		copy(grown, s)
		s = grown
	}
	return append(s, e)
}
