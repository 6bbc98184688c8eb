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
	tags   []uint8  // part of the hash of each: most others are told apart without a look at them
	count  int
}

const firstPlaces = 64

func newDirectory() directory {
	return directory{seed: maphash.MakeSeed(), places: make([]*trace, firstPlaces), tags: make([]uint8, firstPlaces)}
}

// home is the place where a trace should be, and its tag.
func (d *directory) home(id pcommon.TraceID) (place int, tag uint8) {
	hash := maphash.Bytes(d.seed, id[:])
	return int(hash) & (len(d.places) - 1), uint8(hash >> 56)
}

func (d *directory) after(place int) int { return (place + 1) & (len(d.places) - 1) }

// find returns the place of a trace, or the one that is free for it, and its tag.
func (d *directory) find(id pcommon.TraceID) (place int, tag uint8) {
	place, tag = d.home(id)
	for d.places[place] != nil && (d.tags[place] != tag || d.places[place].id != id) {
		place = d.after(place)
	}
	return place, tag
}

func (d *directory) get(id pcommon.TraceID) *trace {
	place, _ := d.find(id)
	return d.places[place]
}

func (d *directory) put(t *trace) {
	place, tag := d.find(t.id)
	d.places[place], d.tags[place] = t, tag
}

// add takes in a trace whose id is not there yet.
func (d *directory) add(t *trace) {
	if d.count++; d.count > len(d.places)/8*7 {
		old := d.places
		d.places, d.tags = make([]*trace, 2*len(old)), make([]uint8, 2*len(old))
		for _, t := range old {
			if t != nil {
				d.put(t)
			}
		}
	}
	d.put(t)
}

// remove lets a trace go, and moves up those that had to go further because of it.
func (d *directory) remove(id pcommon.TraceID) {
	free, _ := d.find(id)
	if d.places[free] == nil {
		return
	}
	d.count--
	for next := d.after(free); d.places[next] != nil; next = d.after(next) {
		mask := len(d.places) - 1
		if home, tag := d.home(d.places[next].id); (next-home)&mask >= (next-free)&mask {
			d.places[free], d.tags[free], free = d.places[next], tag, next
		}
	}
	d.places[free] = nil
}
