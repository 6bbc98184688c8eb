package identityprocessor

import "math"

// number stands for an identity or a service within its trace.
type number uint16

// paletteSearch is how many of the newest entries are compared before one is added: neighbours
// mostly share theirs, and an entry that is there twice does no harm.
const paletteSearch = 8

// palette numbers what the nodes of one trace have in common. Most traces have one organisation
// and one request, so the first two need no memory of their own.
type palette[T any] struct {
	first, second *T
	more          []*T
}

func (p *palette[T]) size() int {
	switch {
	case p.first == nil:
		return 0
	case p.second == nil:
		return 1
	}
	return 2 + len(p.more)
}

func (p *palette[T]) at(i int) *T {
	switch i {
	case 0:
		return p.first
	case 1:
		return p.second
	}
	return p.more[i-2]
}

// newest finds one of the newest entries.
func (p *palette[T]) newest(wanted func(*T) bool) (i int, ok bool) {
	size := p.size()
	for i := size - 1; i >= max(0, size-paletteSearch); i-- {
		if wanted(p.at(i)) {
			return i, true
		}
	}
	return 0, false
}

// number finds or adds a value. Numbers begin at first; there are not arbitrarily many.
func (p *palette[T]) number(value *T, first int) (n number, ok bool) {
	if i, known := p.newest(func(entry *T) bool { return entry == value }); known {
		return number(first + i), true
	}
	size := p.size()
	if first+size > math.MaxUint16 {
		return 0, false
	}
	switch size {
	case 0:
		p.first = value
	case 1:
		p.second = value
	default:
		p.more = appendTight(p.more, value)
	}
	return number(first + size), true
}

// Growth of small arrays: most traces are small, and there are many.
const firstRoom, leastRoom = 2, 3

// appendTight is append that grows by a half.
func appendTight[E any](s []E, e E) []E {
	if len(s) == cap(s) {
		room := max(leastRoom, (len(s)+1)/2)
		if len(s) == 0 {
			room = firstRoom
		}
		s = append(make([]E, 0, len(s)+room), s...)
	}
	return append(s, e)
}
