package identityprocessor

// number stands for an identity or a service within its trace.
type number uint16

// paletteSearch is how many of the newest entries are compared before one is added: neighbours
// mostly share theirs, and an entry that is there twice does no harm.
const paletteSearch = 8

// How many entries of a palette need no memory of their own: most traces have one organisation and one
// request, and go through a few services.
const identityRoom, serviceRoom = 2, 4

// What the nodes of one trace have in common is numbered by its place in a palette: a few entries, and
// more.

func sizeOf[T any](few, more []*T) int {
	if len(more) > 0 {
		return len(few) + len(more)
	}
	for i, entry := range few {
		if entry == nil {
			return i
		}
	}
	return len(few)
}

func at[T any](few, more []*T, i int) *T {
	if i < len(few) {
		return few[i]
	}
	return more[i-len(few)]
}

// placeOf finds an entry: mostly it is one of the few.
func placeOf[T any](few, more []*T, wanted *T) (i int, ok bool) {
	for i, entry := range few {
		if entry == wanted {
			return i, true
		}
	}
	if len(more) == 0 {
		return 0, false
	}
	return newest(few, more, func(other *T) bool { return other == wanted })
}

// newest finds one of the newest entries.
func newest[T any](few, more []*T, wanted func(*T) bool) (i int, ok bool) {
	size := sizeOf(few, more)
	for i := size - 1; i >= max(0, size-paletteSearch); i-- {
		if wanted(at(few, more, i)) {
			return i, true
		}
	}
	return 0, false
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
