package identityprocessor

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/otel-shim/otel-shim/processor/identityprocessor/internal/semconv"
)

// rounds is how many random forests each property is tried on: 1500, fewer where a test is to be short,
// as with the race detector; `make soak` sets more.
func rounds() int {
	switch {
	case soaking:
		return soakRounds
	case testing.Short():
		return 100
	}
	return 1500
}

var soakRounds, soaking = func() (int, bool) {
	set, err := strconv.Atoi(os.Getenv("IDENTITY_TEST_ROUNDS"))
	return set, err == nil
}()

// Whatever the order of arrival and the cut into batches, the organisation is the oracle's, the
// request is the oracle's or not there, and every span comes out as often as it went in.
func TestAnyOrderGivesTheOraclesResult(t *testing.T) {
	counted := census{}
	defer counted.log(t)
	for seed := range uint64(rounds()) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			spans := forest(random, 3, 1+random.IntN(60))
			sink := new(consumertest.TracesSink)
			p := start(t, sharing(t, random), sink)
			arrived := repeatSome(random, shuffled(random, spans))
			for _, batch := range cut(random, arrived) {
				require.NoError(t, p.ConsumeTraces(context.Background(), batchOf(batch)))
			}
			require.NoError(t, p.Shutdown(context.Background()))
			counted.check(t, seed, arrived, sink.AllTraces(), sameAs(oracleOf(spans)))
		})
	}
}

// sharing is a configuration in which some services share identity, and so does the oracle's.
func sharing(t *testing.T, random *rand.Rand) *Config {
	cfg := createDefaultConfig().(*Config)
	switch random.IntN(3) {
	case 0:
		cfg.Remote = remoteAll
	case 1:
		cfg.Remote, cfg.RemoteServices = remoteList, [][]string{{"api", "partner"}, {"connector", "tool", "partner"}}
	}
	oracleSharing = cfg
	t.Cleanup(func() { oracleSharing = createDefaultConfig().(*Config) })
	return cfg
}

// Spans of one id contradict each other, in any order: whatever is taken is what some variant of an
// ancestor says, or some span of the trace below, and nothing is lost or doubled.
func TestContradictingDuplicates(t *testing.T) {
	counted := census{}
	defer counted.log(t)
	for seed := range uint64(rounds()) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 9))
			size := 1 + random.IntN(30)
			spans := forest(random, 2, size)
			for range 1 + len(spans)/4 {
				of := spans[random.IntN(len(spans))]
				again := grow(random, of.trace, of.id, size)
				again.name = fmt.Sprintf("%s again %d", again.name, len(spans))
				spans = append(spans, again)
			}
			sink := new(consumertest.TracesSink)
			cfg := createDefaultConfig().(*Config)
			cfg.Upward = []string{upwardOff, upwardLocal}[random.IntN(2)]
			p := start(t, cfg, sink)
			time.Sleep(11 * time.Second)
			for _, batch := range cut(random, shuffled(random, spans)) {
				require.NoError(t, p.ConsumeTraces(context.Background(), batchOf(batch)))
			}
			time.Sleep(11 * time.Second)
			require.NoError(t, p.Shutdown(context.Background()))
			counted.check(t, seed, spans, sink.AllTraces(), func(s plain, got given) bool {
				switch got.origin {
				case semconv.SaasIdentityOriginAncestor:
					return slices.ContainsFunc(variantsAbove(spans, s), func(above plain) bool {
						e := effective(above)
						return above.identified() && e.org == got.org && e.user == got.user && e.plan == got.plan && e.anonymous == got.anonymous
					})
				case semconv.SaasIdentityOriginDescendants:
					return cfg.Upward == upwardLocal && somebodySays(slices.Values(spans), s.trace, got)
				}
				return got.org == s.org && got.user == s.user
			})
		})
	}
}

// variantsAbove are all spans that some way of parents leads to.
func variantsAbove(spans []plain, s plain) (above []plain) {
	seen := map[uint8]bool{}
	for next := []uint8{s.parent}; len(next) > 0; next = next[1:] {
		if seen[next[0]] {
			continue
		}
		seen[next[0]] = true
		for _, other := range spans {
			if other.trace == s.trace && other.id == next[0] {
				above, next = append(above, other), append(next, other.parent)
			}
		}
	}
	return above
}

// Left alone until it is quiet, a span gets what the oracle infers from the spans received by then.
// The spans come in two waves, the second after the first was let go.
func TestQuietGivesTheOraclesResult(t *testing.T) {
	counted := census{}
	defer counted.log(t)
	for seed := range uint64(rounds()) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 5))
			spans := shuffled(random, forest(random, 3, 1+random.IntN(40)))
			first := spans[:random.IntN(len(spans)+1)]
			sink := new(consumertest.TracesSink)
			p := start(t, createDefaultConfig().(*Config), sink)
			for _, wave := range [][]plain{first, spans[len(first):]} {
				time.Sleep(11 * time.Second) // nothing can have been missed, and nothing is held
				for _, batch := range cut(random, wave) {
					require.NoError(t, p.ConsumeTraces(context.Background(), batchOf(batch)))
				}
			}
			time.Sleep(11 * time.Second)
			early, all := oracleOf(first), oracleOf(spans)
			counted.check(t, seed, spans, sink.AllTraces(), func(s plain, got given) bool {
				if _, ok := early[[2]uint8{s.trace, s.id}]; ok {
					return sameQuiet(early)(s, got)
				}
				return sameQuiet(all)(s, got)
			})
		})
	}
}

// Under endless traffic nothing grows, and after ttl nothing is left.
func TestNothingIsLeftAfterTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		random := rand.New(rand.NewPCG(1, 8))
		p := start(t, createDefaultConfig().(*Config), consumertest.NewNop())
		most := 0
		var heaps []uint64
		for round := range min(8*rounds(), 20_000) {
			if soaking && round%2500 == 2499 {
				heaps = append(heaps, liveHeap().HeapAlloc)
			}
			batch := batchOf(forest(random, 3, 1+random.IntN(60)))
			batch.ResourceSpans().At(0).ScopeSpans().At(0).Spans().At(0).Attributes().PutStr(semconv.AuditRecordID, "a")
			retraceAll(batch, random.Uint64())
			require.NoError(t, p.ConsumeTraces(context.Background(), batch))
			time.Sleep(time.Second)
			p.mu.Lock()
			most = max(most, p.memory.spans)
			p.mu.Unlock()
		}
		if soaking {
			t.Logf("live heap over time: %d", heaps)
			if half := len(heaps) / 2; half > 0 {
				require.Less(t, float64(slices.Max(heaps[half:])), 1.2*float64(slices.Max(heaps[:half])), "it grows")
			}
		}
		require.Less(t, most, 2*61*3*62, "more is remembered than what came within ttl, and within its renewal")
		time.Sleep(4 * time.Minute)
		p.mu.Lock()
		defer p.mu.Unlock()
		require.Zero(t, p.memory.spans)
		require.Zero(t, p.memory.traces.count)
		require.Zero(t, p.memory.byAge.count)
		require.Zero(t, p.memory.holding.count)
		require.Zero(t, p.memory.holding.bytes())
		require.Empty(t, p.memory.kept.recent)
		require.Empty(t, p.memory.kept.older)
	})
}

func retraceAll(batch ptrace.Traces, n uint64) {
	for _, rs := range batch.ResourceSpans().All() {
		for _, span := range rs.ScopeSpans().At(0).Spans().All() {
			id := span.TraceID()
			binary.BigEndian.PutUint64(id[:8], n)
			span.SetTraceID(id)
		}
	}
}

// However small the limits, identity is the oracle's or not there, and nothing is lost or doubled.
func TestTightLimitsNeverGiveAnotherIdentity(t *testing.T) {
	counted := census{}
	defer counted.log(t)
	for seed := range uint64(rounds()) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 2))
			spans := forest(random, 5, 1+random.IntN(40))
			sink := new(consumertest.TracesSink)
			p := start(t, tight(random), sink)
			for _, batch := range cut(random, shuffled(random, spans)) {
				send(t, p, batch)
			}
			require.NoError(t, p.Shutdown(context.Background()))
			counted.check(t, seed, spans, sink.AllTraces(), sameOrNothing(oracleOf(spans)))
		})
	}
}

// A next consumer that refuses at random, and senders that send again, in several goroutines with
// the ticker running: nothing is lost, doubled or wrong.
func TestRefusalsLoseAndDoubleNothing(t *testing.T) {
	counted := census{}
	defer counted.log(t)
	for seed := range uint64(rounds()) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 3))
			spans := forest(random, 4, 1+random.IntN(60))
			moody := &moodySink{random: rand.New(rand.NewPCG(seed, 4)), spoils: seed%2 == 0}
			p := start(t, createDefaultConfig().(*Config), moody)
			var senders sync.WaitGroup
			for _, batch := range cut(random, shuffled(random, spans)) {
				pause := time.Duration(random.IntN(12)) * time.Second
				senders.Go(func() {
					time.Sleep(pause)
					send(t, p, batch)
				})
			}
			senders.Wait()
			time.Sleep(3 * time.Minute) // also what was refused often has left
			require.NoError(t, p.Shutdown(context.Background()))
			counted.check(t, seed, spans, moody.AllTraces(), sameOrNothing(oracleOf(spans)))
		})
	}
}

// send repeats a batch until it is accepted, as an OTLP client does, or only the part that an error
// names.
func send(t *testing.T, p consumer.Traces, spans []plain) {
	for left := batchOf(spans); ; {
		attempt := ptrace.NewTraces()
		left.CopyTo(attempt)
		err := p.ConsumeTraces(context.Background(), attempt)
		if err == nil {
			return
		}
		require.False(t, consumererror.IsPermanent(err))
		time.Sleep(time.Millisecond)
		var partial consumererror.Traces
		if errors.As(err, &partial) {
			left = partial.Data()
		}
	}
}

// moodySink refuses some calls, and of some takes the first resource only and says so.
type moodySink struct {
	consumertest.TracesSink
	mu     sync.Mutex
	random *rand.Rand
	spoils bool // it says that it changes batches, and does
}

func (m *moodySink) Capabilities() consumer.Capabilities {
	return consumer.Capabilities{MutatesData: m.spoils}
}

var errMood = errors.New("not now")

func (m *moodySink) ConsumeTraces(ctx context.Context, batch ptrace.Traces) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch m.random.IntN(6) {
	case 0:
		if m.spoils {
			batch.ResourceSpans().RemoveIf(func(ptrace.ResourceSpans) bool { return true })
		}
		return errMood
	case 1:
		return m.takeFirst(ctx, batch)
	}
	return m.TracesSink.ConsumeTraces(ctx, batch)
}

func (m *moodySink) takeFirst(ctx context.Context, batch ptrace.Traces) error {
	first, rest := ptrace.NewTraces(), ptrace.NewTraces()
	for i, rs := range batch.ResourceSpans().All() {
		into := rest
		if i == 0 {
			into = first
		}
		rs.CopyTo(into.ResourceSpans().AppendEmpty())
	}
	if err := m.TracesSink.ConsumeTraces(ctx, first); err != nil || rest.SpanCount() == 0 {
		return err
	}
	return consumererror.NewTraces(errMood, rest)
}

func tight(random *rand.Rand) *Config {
	cfg := createDefaultConfig().(*Config)
	cfg.MaxTraces = 1 + random.IntN(4)
	cfg.MaxSpansPerTrace = 1 + random.IntN(30)
	cfg.MaxSpans = cfg.MaxSpansPerTrace + random.IntN(100)
	cfg.MaxHeldBytes = int64(1 + random.IntN(20_000))
	return cfg
}

func shuffled(random *rand.Rand, spans []plain) []plain {
	mixed := append([]plain(nil), spans...)
	random.Shuffle(len(mixed), func(i, j int) { mixed[i], mixed[j] = mixed[j], mixed[i] })
	return mixed
}

// repeatSome sends some spans twice, unchanged, as a sender does that missed an answer.
func repeatSome(random *rand.Rand, spans []plain) []plain {
	for range len(spans) / 10 {
		spans = append(spans, spans[random.IntN(len(spans))])
	}
	return spans
}

func cut(random *rand.Rand, spans []plain) (batches [][]plain) {
	for len(spans) > 0 {
		n := 1 + random.IntN(min(len(spans), 20))
		batches, spans = append(batches, spans[:n]), spans[n:]
	}
	return batches
}

func oracleOf(spans []plain) oracle {
	o := oracle{}
	for _, s := range spans {
		o[[2]uint8{s.trace, s.id}] = s
	}
	return o
}

// verdictOn judges what came out for a span.
type verdictOn func(s plain, got given) bool

func sameAs(o oracle) verdictOn {
	return func(s plain, got given) bool {
		want := o.want(s)
		if got.request == s.request {
			want.request = s.request // it is not waited for
		}
		return got == want
	}
}

func sameQuiet(o oracle) verdictOn {
	return func(s plain, got given) bool {
		want := o.wantQuiet(s)
		if got.request == s.request && want.origin != semconv.SaasIdentityOriginDescendants {
			want.request = s.request // it is not waited for
		}
		return got == want
	}
}

func sameOrNothing(o oracle) verdictOn {
	return func(s plain, got given) bool {
		want := o.want(s)
		switch got.origin {
		case semconv.SaasIdentityOriginDescendants:
			return somebodySays(maps.Values(o), s.trace, got)
		case semconv.SaasIdentityOriginAncestor:
			want.request = got.request
			return got == want
		}
		request := got.request == s.request || got.request == o.want(s).request
		return request && got == given{org: s.org, user: s.user, plan: s.plan, anonymous: s.anonymous, request: got.request}
	}
}

// somebodySays says whether some span of the trace says so.
func somebodySays(spans iter.Seq[plain], trace uint8, got given) bool {
	org, request := got.org == "", got.request == ""
	for s := range spans {
		org = org || s.trace == trace && effective(s).org == got.org
		request = request || s.trace == trace && s.request == got.request
	}
	return org && request
}

// census counts the spans that were checked, by the origin of what they got.
type census map[string]int

func (c census) log(t *testing.T) {
	if t.Failed() {
		return
	}
	spans := 0
	for _, n := range c {
		spans += n
	}
	t.Logf("%d spans, none wrong, lost or doubled: %d completed from an ancestor, %d from descendants",
		spans, c[semconv.SaasIdentityOriginAncestor], c[semconv.SaasIdentityOriginDescendants])
}

func (c census) check(t *testing.T, seed uint64, arrived []plain, out []ptrace.Traces, right verdictOn) {
	missing, byName := map[string]int{}, map[string]plain{}
	for _, s := range arrived {
		missing[s.name]++
		byName[s.name] = s
	}
	for span := range spansOf(out) {
		missing[span.Name()]--
		s := byName[span.Name()]
		got := read(span)
		require.Truef(t, right(s, got), "seed %d: span %+v came out as %+v", seed, s, got)
		c[got.origin]++
	}
	for name, n := range missing {
		require.Zerof(t, n, "seed %d: span %s is missing (or doubled, if negative)", seed, name)
	}
}

func spansOf(batches []ptrace.Traces) func(func(ptrace.Span) bool) {
	return func(yield func(ptrace.Span) bool) {
		for _, rs := range joinedTraces(batches).ResourceSpans().All() {
			for _, ss := range rs.ScopeSpans().All() {
				for _, span := range ss.Spans().All() {
					if !yield(span) {
						return
					}
				}
			}
		}
	}
}
