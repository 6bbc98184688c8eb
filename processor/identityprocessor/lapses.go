package identityprocessor

import (
	"encoding/binary"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
)

// lapsesPerTrace is how many slots there are for each trace that may be remembered: enough that
// two live traces rarely share both of theirs.
const lapsesPerTrace = 4

// lapses remembers when a trace was last forgotten, in seconds, rounded up. A trace has two slots,
// found by its id; where others share both, lapses err on the side of having forgotten it.
type lapses []uint32

func (l lapses) slots(id pcommon.TraceID) (a, b uint32) {
	n := uint32(len(l))
	return binary.BigEndian.Uint32(id[8:]) % n, binary.BigEndian.Uint32(id[12:]) % n
}

func (l lapses) add(id pcommon.TraceID, now time.Duration) {
	a, b := l.slots(id)
	l[a] = seconds(now)
	l[b] = l[a]
}

// last is when the trace was forgotten, at the latest; zero, the start of the processor, if never.
func (l lapses) last(id pcommon.TraceID) time.Duration {
	a, b := l.slots(id)
	return time.Duration(min(l[a], l[b])) * time.Second
}

// seconds rounds up.
func seconds(t time.Duration) uint32 { return uint32((t + time.Second - 1) / time.Second) }
