package identityprocessor

import (
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
)

// marked are traces with a span that must not be sampled out. It outlives the trace's own record,
// so that a reused or very large trace stays marked. A mark lives between one and two ttl; less
// only when more than so many traces are marked within one.
type marked struct {
	ttl           time.Duration
	most          int
	recent, older map[pcommon.TraceID]struct{}
	turned        time.Duration // when recent was begun
}

func (k *marked) add(id pcommon.TraceID, now time.Duration) {
	k.turn(now)
	if _, known := k.recent[id]; known {
		return
	}
	if k.recent == nil || len(k.recent) >= k.most {
		k.begin(now)
	}
	k.recent[id] = struct{}{}
}

func (k *marked) has(id pcommon.TraceID) bool {
	if _, ok := k.recent[id]; ok {
		return true
	}
	_, ok := k.older[id]
	return ok
}

// turn lets go what was marked too long ago.
func (k *marked) turn(now time.Duration) {
	if k.turned+k.ttl <= now && len(k.recent)+len(k.older) > 0 {
		k.begin(now)
	}
}

func (k *marked) begin(now time.Duration) {
	k.older, k.recent, k.turned = k.recent, map[pcommon.TraceID]struct{}{}, now
}
