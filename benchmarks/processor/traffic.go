package main

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// The traffic is that of a small SaaS backend whose services export by themselves.
const (
	services       = 4
	mostOthers     = 20
	spansPerBatch  = 100
	traceEvery     = 2 * time.Millisecond
	latestArrival  = 2 * time.Second // after the start of the trace
	organisations  = 500
	leaveProcess   = 0.2 // of the children
	noParent       = -1
	flagsLocal     = 0x100
	flagsRemote    = 0x300
	attributeOrg   = "saas.org.id"
	attributeUser  = "user.hash"
	attributeActor = "saas.actor.type"
	attributePlan  = "saas.plan"
	attributeReq   = "saas.request.id"
	attributeAudit = "audit.record.id"
	attributeKeep  = "saas.sampling.keep"
)

// shape is what differs between kinds of traffic.
type shape struct {
	spans  [2]int // in a trace: fewest, most
	others [2]int // attributes besides identity: fewest, most
	star   bool   // one service; all spans are children of the root, which comes rootAfter them
}

const rootAfter = 500 * time.Millisecond

var (
	busy     = shape{spans: [2]int{5, 50}, others: [2]int{10, mostOthers}}
	even     = shape{spans: [2]int{15, 15}, others: [2]int{10, 10}}
	rootLast = shape{spans: [2]int{15, 15}, others: [2]int{10, 10}, star: true}
)

func between(random *rand.Rand, bounds [2]int) int {
	return bounds[0] + random.IntN(bounds[1]-bounds[0]+1)
}

// span is one span of the traffic; its index is its number, and its span id is one more.
type span struct {
	trace    int
	parent   int // number, or noParent
	service  int
	explicit bool // carries its identity
	audited  bool
}

// batch is what one service exports at once.
type batch struct {
	at      time.Duration
	numbers []int
	payload []byte // OTLP
}

// traffic is all spans, and the order in which they arrive.
type traffic struct {
	shape   shape
	spans   []span
	batches []batch
}

// arrival is the spans of one trace that one service exports together.
type arrival struct {
	at      time.Duration
	service int
	numbers []int
}

// makeTraffic makes about so many spans, of which this share does not say whose they are.
func makeTraffic(seed uint64, of shape, spans int, unidentified float64) *traffic {
	random := rand.New(rand.NewPCG(seed, 1))
	t := &traffic{shape: of}
	var arrivals []arrival
	for trace := 0; len(t.spans) < spans; trace++ {
		arrivals = append(arrivals, t.addTrace(random, trace, unidentified)...)
	}
	slices.SortStableFunc(arrivals, func(a, b arrival) int { return cmp.Compare(a.at, b.at) })
	t.export(random, arrivals)
	return t
}

// addTrace grows a random tree. Its root always says whose it is.
func (t *traffic) addTrace(random *rand.Rand, trace int, unidentified float64) []arrival {
	first, spans := len(t.spans), between(random, t.shape.spans)
	t.spans = append(t.spans, span{trace: trace, parent: noParent, explicit: true})
	for i := 1; i < spans; i++ {
		s := span{trace: trace, parent: first, explicit: random.Float64() >= unidentified}
		if !t.shape.star {
			s.parent = first + random.IntN(i)
			s.service = t.spans[s.parent].service
		}
		if !t.shape.star && random.Float64() < leaveProcess {
			s.service = (s.service + 1) % services
		}
		t.spans = append(t.spans, s)
	}
	return t.arrivals(random, first)
}

// arrivals are the parts of a new trace, when they come.
func (t *traffic) arrivals(random *rand.Rand, first int) (arrivals []arrival) {
	start := time.Duration(t.spans[first].trace) * traceEvery
	numbers := make([]int, 0, len(t.spans)-first)
	for number := first; number < len(t.spans); number++ {
		numbers = append(numbers, number)
	}
	if t.shape.star {
		return []arrival{{start, 0, numbers[1:]}, {start + rootAfter, 0, numbers[:1]}}
	}
	var byService [services][]int
	for _, number := range numbers {
		byService[t.spans[number].service] = append(byService[t.spans[number].service], number)
	}
	for service, numbers := range byService {
		if len(numbers) > 0 {
			arrivals = append(arrivals, arrival{start + time.Duration(random.Int64N(int64(latestArrival))), service, numbers})
		}
	}
	return arrivals
}

// export cuts what arrives into batches of one service each.
func (t *traffic) export(random *rand.Rand, arrivals []arrival) {
	var pending [services][]int
	for _, a := range arrivals {
		pending[a.service] = append(pending[a.service], a.numbers...)
		if len(pending[a.service]) >= spansPerBatch {
			t.add(random, a.at, a.service, pending[a.service])
			pending[a.service] = nil
		}
	}
	for service, numbers := range pending {
		if len(numbers) > 0 {
			t.add(random, arrivals[len(arrivals)-1].at, service, numbers)
		}
	}
}

func (t *traffic) add(random *rand.Rand, at time.Duration, service int, numbers []int) {
	payload := t.encode(random, service, numbers)
	t.batches = append(t.batches, batch{at, numbers, payload})
}

func (t *traffic) encode(random *rand.Rand, service int, numbers []int) []byte {
	traces := ptrace.NewTraces()
	rs := traces.ResourceSpans().AppendEmpty()
	rs.Resource().Attributes().PutStr("service.name", fmt.Sprintf("service-%d", service))
	rs.Resource().Attributes().PutStr("service.namespace", "shop")
	rs.Resource().Attributes().PutStr("service.instance.id", fmt.Sprintf("instance-%d", service))
	into := rs.ScopeSpans().AppendEmpty()
	into.Scope().SetName("benchmark")
	for _, number := range numbers {
		t.fill(random, into.Spans().AppendEmpty(), number)
	}
	payload, err := (&ptrace.ProtoMarshaler{}).MarshalTraces(traces)
	if err != nil {
		panic(err)
	}
	return payload
}

func (t *traffic) fill(random *rand.Rand, to ptrace.Span, number int) {
	s := t.spans[number]
	to.SetTraceID(traceID(s.trace))
	to.SetSpanID(spanID(number))
	to.SetName("SELECT orders")
	to.SetFlags(flagsLocal)
	if s.parent != noParent {
		to.SetParentSpanID(spanID(s.parent))
		if t.spans[s.parent].service != s.service {
			to.SetFlags(flagsRemote)
			to.SetKind(ptrace.SpanKindServer)
		}
	}
	attributes := to.Attributes()
	for i := range between(random, t.shape.others) {
		attributes.PutStr(otherNames[i], "some value of the usual length")
	}
	if s.explicit {
		identify(attributes, s.trace)
	}
	if s.audited {
		attributes.PutStr(attributeAudit, fmt.Sprint(number))
	}
}

var otherNames = func() (names [mostOthers]string) {
	for i := range names {
		names[i] = fmt.Sprintf("http.some.attribute.%d", i)
	}
	return names
}()

func identify(attributes pcommon.Map, trace int) {
	attributes.PutStr(attributeOrg, orgOf(trace))
	attributes.PutStr(attributeUser, fmt.Sprintf("k3Jd9w.2Q0pGJ0bJm3u0zP5l9oTt8r1m4Zq7yXc2nVb6a%04d", trace%(10*organisations)))
	attributes.PutStr(attributeActor, "user")
	attributes.PutStr(attributePlan, "pro")
	attributes.PutStr(attributeReq, fmt.Sprintf("0199f0a2-6a3c-7bd2-9f0e-%012d", trace))
}

func orgOf(trace int) string { return fmt.Sprintf("org-%04d", trace%organisations) }

// newRandom is the same each time.
func newRandom() *rand.Rand { return rand.New(rand.NewPCG(1, 1)) }

func traceID(trace int) (id pcommon.TraceID) {
	binary.BigEndian.PutUint64(id[:8], uint64(trace+1))
	binary.BigEndian.PutUint64(id[8:], uint64(trace+1)*0x9e3779b97f4a7c15)
	return id
}

func spanID(number int) (id pcommon.SpanID) {
	binary.BigEndian.PutUint64(id[:], uint64(number+1))
	return id
}

func numberOf(id pcommon.SpanID) int { return int(binary.BigEndian.Uint64(id[:])) - 1 }
