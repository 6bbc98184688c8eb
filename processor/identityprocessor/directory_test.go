package identityprocessor

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
)

// The directory is a map, as far as anybody can tell.
func TestDirectoryIsAMap(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 14))
	d, want := newDirectory(), map[pcommon.TraceID]*trace{}
	for range 200_000 {
		id := pcommon.TraceID{0: byte(random.IntN(256)), 1: byte(random.IntN(8)), 15: 1}
		found := d.get(id)
		require.Equal(t, want[id], found)
		switch {
		case found == nil && random.IntN(2) == 0:
			want[id] = &trace{id: id}
			d.add(want[id])
		case found != nil && random.IntN(2) == 0:
			delete(want, id)
			d.remove(id)
		}
		require.Equal(t, len(want), d.count)
	}
	for id, it := range want {
		require.Same(t, it, d.get(id))
	}
	require.Less(t, len(d.places), 8192)
}
