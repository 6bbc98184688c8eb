package identityprocessor

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/otel-shim/otel-shim/processor/identityprocessor/internal/semconv"
)

const largeTrace = 100_000

// Parents that are no place in the trace.
const (
	parentNone    = -1
	parentMissing = -2
)

// large is one trace of very many spans, by their place; the oracle for it is linear.
type large struct {
	parents []int
	orgs    []string // what each says itself
}

// largeShapes are how a large trace may grow: the parent of each span.
var largeShapes = map[string]func(random *rand.Rand, place int) int{
	"chain": func(_ *rand.Rand, place int) int { return place - 1 },
	"star":  func(*rand.Rand, int) int { return 0 },
	"tree":  func(random *rand.Rand, place int) int { return random.IntN(place) },
	"torn": func(random *rand.Rand, place int) int {
		switch random.IntN(50) {
		case 0:
			return parentMissing
		case 1:
			return random.IntN(largeTrace) // may close a cycle
		}
		return max(0, place-1-random.IntN(20))
	},
}

// voices are who says something in a large trace: one span in so many, for one of so many
// organisations, and perhaps the root.
type voices struct {
	oneIn, orgs int
	root        bool
}

// largeVoices are such that much comes down, or much is inferred.
var largeVoices = map[string]voices{"down": {5000, 2, true}, "up": {20_000, 1, false}}

func growLarge(random *rand.Rand, shape func(*rand.Rand, int) int, who voices) *large {
	l := &large{parents: []int{parentNone}, orgs: make([]string, largeTrace)}
	for place := 1; place < largeTrace; place++ {
		l.parents = append(l.parents, shape(random, place))
	}
	for place := range l.orgs {
		if random.IntN(who.oneIn) == 0 || place == 0 && who.root {
			l.orgs[place] = fmt.Sprintf("org-%d", random.IntN(who.orgs))
		}
	}
	return l
}

// above is what the nearest explicit ancestor of each span says.
func (l *large) above() []string {
	const open, unknown = "?", "??" // unknown is on the way that is walked now
	found := slices.Repeat([]string{unknown}, largeTrace)
	for place := range found {
		var way []int
		at, org := place, ""
		for found[at] == unknown {
			found[at] = open
			way = append(way, at)
			parent := l.parents[at]
			if parent < 0 {
				break
			}
			if l.orgs[parent] != "" {
				org = l.orgs[parent]
				break
			}
			at = parent
			if found[at] != unknown && found[at] != open {
				org = found[at]
			}
		}
		for _, at := range way {
			found[at] = org
		}
	}
	return found
}

// below is what all explicit spans below each span say, if they agree and it is on no cycle.
func (l *large) below() []string {
	const several = "?"
	found := make([]string, largeTrace)
	for place, org := range l.orgs {
		if org == "" {
			continue
		}
		for at := l.parents[place]; at >= 0 && found[at] != org && found[at] != several; at = l.parents[at] {
			if found[at] != "" {
				org = several
			}
			found[at] = org
		}
	}
	for place := range found {
		if found[place] == several || l.onCycle(place) {
			found[place] = ""
		}
	}
	return found
}

// onCycle walks up. Where there is a cycle, the way to it is short.
func (l *large) onCycle(place int) bool {
	for at, steps := l.parents[place], 0; at >= 0 && steps < 2000; at, steps = l.parents[at], steps+1 {
		if at == place {
			return true
		}
	}
	return false
}

func (l *large) batch(places []int) ptrace.Traces {
	batch := ptrace.NewTraces()
	spans := batch.ResourceSpans().AppendEmpty().ScopeSpans().AppendEmpty().Spans()
	spans.EnsureCapacity(len(places))
	for _, place := range places {
		span := spans.AppendEmpty()
		span.SetTraceID(pcommon.TraceID{1})
		span.SetSpanID(spanID(place + 1))
		switch parent := l.parents[place]; parent {
		case parentNone:
		case parentMissing:
			span.SetParentSpanID(spanID(largeTrace + 1 + place))
		default:
			span.SetParentSpanID(spanID(parent + 1))
		}
		if l.orgs[place] != "" {
			span.Attributes().PutStr(semconv.SaasOrgID, l.orgs[place])
		}
	}
	return batch
}

// hardest is the order that is tried for a shape; `make soak` tries all.
var hardest = map[string]string{"chain": "root last", "star": "root last", "tree": "shuffled", "torn": "shuffled"}

// A trace of 100 000 spans, of every shape and in several orders: what comes down and what is
// inferred is the oracle's, and every span comes out once. Were the work quadratic, this would not
// end.
func TestLargeTraces(t *testing.T) {
	orders := map[string]func(random *rand.Rand, places []int){
		"root first": func(*rand.Rand, []int) {},
		"root last":  func(_ *rand.Rand, places []int) { slices.Reverse(places) },
		"shuffled": func(random *rand.Rand, places []int) {
			random.Shuffle(len(places), func(i, j int) { places[i], places[j] = places[j], places[i] })
		},
	}
	for shape, parent := range largeShapes {
		for order, arrange := range orders {
			for direction, who := range largeVoices {
				t.Run(shape+", "+order+", "+direction, func(t *testing.T) {
					if !soaking && order != hardest[shape] {
						t.Skip("only in a soak")
					}
					random := rand.New(rand.NewPCG(1, 12))
					places := make([]int, largeTrace)
					for place := range places {
						places[place] = place
					}
					arrange(random, places)
					synctest.Test(t, func(t *testing.T) { testLarge(t, growLarge(random, parent, who), places) })
				})
			}
		}
	}
}

func testLarge(t *testing.T, l *large, places []int) {
	cfg := createDefaultConfig().(*Config)
	cfg.MaxSpansPerTrace, cfg.MaxHeldBytes = 3*largeTrace, 1<<30
	sink := new(consumertest.TracesSink)
	p := start(t, cfg, sink)
	time.Sleep(2 * cfg.Quiet) // nothing can have been missed
	for batch := range slices.Chunk(places, 5000) {
		require.NoError(t, p.ConsumeTraces(context.Background(), l.batch(batch)))
	}
	time.Sleep(cfg.Wait + time.Second)
	seen, above, below, origins := make([]bool, largeTrace), l.above(), l.below(), map[string]int{}
	for span := range spansOf(sink.AllTraces()) {
		place := int(binary.BigEndian.Uint64(idBytes(span))) - 1
		require.False(t, seen[place], "span %d came twice", place)
		seen[place] = true
		want := wantLarge(l.orgs[place], above[place], below[place])
		require.Equal(t, want, read(span), "span %d", place)
		origins[want.origin]++
	}
	require.NotContains(t, seen, false)
	t.Logf("%d from an ancestor, %d inferred", origins[semconv.SaasIdentityOriginAncestor], origins[semconv.SaasIdentityOriginDescendants])
}

func wantLarge(own, above, below string) given {
	switch {
	case own != "":
		return given{org: own}
	case above != "":
		return given{org: above, origin: semconv.SaasIdentityOriginAncestor}
	case below != "":
		return given{org: below, origin: semconv.SaasIdentityOriginDescendants}
	}
	return given{}
}

func idBytes(span ptrace.Span) []byte {
	id := span.SpanID()
	return id[:]
}

// One hot trace id, of which spans come without end, takes its own share only: what other traces
// have remembered and held stays.
func TestHotTraceTakesItsShareOnly(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 13))
	b := newBench(t, func(cfg *Config) { cfg.Quiet, cfg.Wait = time.Hour, time.Hour; cfg.TTL = time.Hour })
	for trace := range uint8(50) {
		b.send(t, unknown(2, 1).in(trace+2))
	}
	const each = 2000
	for round := range 100 {
		batch := ptrace.NewTraces()
		spans := batch.ResourceSpans().AppendEmpty().ScopeSpans().AppendEmpty().Spans()
		for i := range each {
			span := spans.AppendEmpty()
			span.SetTraceID(pcommon.TraceID{1})
			span.SetSpanID(spanID(round*each + i + 2))
			span.SetParentSpanID(spanID(1 + random.IntN(round*each+i+1)))
		}
		require.NoError(t, b.ConsumeTraces(context.Background(), batch))
		b.settleDown()
	}
	held, _ := b.level()
	assert.LessOrEqual(t, b.remembered(), b.cfg.MaxSpansPerTrace+100)
	assert.LessOrEqual(t, held, b.cfg.MaxSpansPerTrace+50)
	before := b.sink.SpanCount()
	for trace := range uint8(50) {
		b.send(t, known(1, 0).in(trace+2))
	}
	assert.Equal(t, before+100, b.sink.SpanCount(), "the spans held for the other traces left with their ancestors")
}
