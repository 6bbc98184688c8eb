package identityprocessor

import "math"

// number stands for an identity or a service within its trace.
type number uint16

// paletteSearch is how many of the newest entries are compared before one is added: neighbours
// mostly share theirs, and an entry that is there twice does no harm.
const paletteSearch = 8

// paletteRoom is how many entries need no memory of their own: most traces have one organisation
// and one request, and go through a few services.
const paletteRoom = 4

// palette numbers what the nodes of one trace have in common.
type palette[T any] struct {
	few  [paletteRoom]*T
	more *[]*T // mostly nil, and smaller than a slice
}

func (p *palette[T]) size() int {
	if p.more != nil {
		return paletteRoom + len(*p.more)
	}
	for i, entry := range p.few {
		if entry == nil {
			return i
		}
	}
	return paletteRoom
}

func (p *palette[T]) at(i int) *T {
	if i < paletteRoom {
		return p.few[i]
	}
	return (*p.more)[i-paletteRoom]
}

func (p *palette[T]) add(value *T) {
	size := p.size()
	if size < paletteRoom {
		p.few[size] = value
		return
	}
	if p.more == nil {
		p.more = new([]*T)
	}
	*p.more = appendTight(*p.more, value)
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
	p.add(value)
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
