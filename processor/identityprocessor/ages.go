package identityprocessor

// ages is a list of traces in the order in which they expire. The links are in the traces: a list
// element for each would cost half as much again.
type ages struct {
	oldest, youngest *trace
	count            int
}

func (a *ages) pushBack(t *trace) {
	t.older, t.younger = a.youngest, nil
	if a.youngest == nil {
		a.oldest = t
	} else {
		a.youngest.younger = t
	}
	a.youngest = t
	a.count++
}

func (a *ages) remove(t *trace) {
	if t.older == nil {
		a.oldest = t.younger
	} else {
		t.older.younger = t.younger
	}
	if t.younger == nil {
		a.youngest = t.older
	} else {
		t.younger.older = t.older
	}
	t.older, t.younger = nil, nil
	a.count--
}

func (a *ages) moveToBack(t *trace) {
	if a.youngest == t {
		return
	}
	a.remove(t)
	a.pushBack(t)
}
