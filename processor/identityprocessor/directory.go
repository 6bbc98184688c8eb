package identityprocessor

import (
	"hash/maphash"

	"go.opentelemetry.io/collector/pdata/pcommon"
)

// directory finds traces by their ids. It takes a third of the memory of a map, because the ids are in
// the traces: a place for each, found by hash, else the next that is free.
type directory struct {
	seed   maphash.Seed
	places []*trace // a power of two
	count  int
}

const firstPlaces = 64

func newDirectory() directory {
	return directory{seed: maphash.MakeSeed(), places: make([]*trace, firstPlaces)}
}

func (d *directory) home(id pcommon.TraceID) int {
	return int(maphash.Bytes(d.seed, id[:])) & (len(d.places) - 1)
}

func (d *directory) after(place int) int { return (place + 1) & (len(d.places) - 1) }

// find returns the place of a trace, or the one that is free for it.
func (d *directory) find(id pcommon.TraceID) int {
	place := d.home(id)
	for d.places[place] != nil && d.places[place].id != id {
		place = d.after(place)
	}
	return place
}

func (d *directory) get(id pcommon.TraceID) *trace { return d.places[d.find(id)] }

// add takes in a trace whose id is not there yet.
func (d *directory) add(t *trace) {
	if d.count++; d.count > len(d.places)/8*7 {
		old := d.places
		d.places = make([]*trace, 2*len(old))
		for _, t := range old {
			if t != nil {
				d.places[d.find(t.id)] = t
			}
		}
	}
	d.places[d.find(t.id)] = t
}

// remove lets a trace go, and moves up those that had to go further because of it.
func (d *directory) remove(id pcommon.TraceID) {
	free := d.find(id)
	if d.places[free] == nil {
		return
	}
	d.count--
	for next := d.after(free); d.places[next] != nil; next = d.after(next) {
		mask := len(d.places) - 1
		if home := d.home(d.places[next].id); (next-home)&mask >= (next-free)&mask {
			d.places[free], free = d.places[next], next
		}
	}
	d.places[free] = nil
}
