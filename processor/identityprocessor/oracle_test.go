package identityprocessor

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
	otelsemconv "go.opentelemetry.io/otel/semconv/v1.37.0"

	"github.com/otel-shim/otel-shim/processor/identityprocessor/internal/semconv"
)

// plain is a span as the oracle sees it: everything is known and nothing is clever.
type plain struct {
	trace, id, parent uint8 // id 0 is no span
	name              string
	org, user, plan   string
	request           string
	anonymous         bool
	edge              bool
	scope             string
	fanIn             bool
	client            bool
	flags             uint32
	service           uint8 // index of plainServices
	began             int64 // nanoseconds, by whatever clock
	lasted            int64 // nanoseconds; negative where a clock was set back
}

var plainServices = []struct{ name, namespace, org string }{
	{"api", "shop", ""}, {"connector", "shop", ""}, {"partner", "elsewhere", ""}, {"tool", "", ""}, {"script", "", ""}, {"dedicated", "shop", "org-d"},
}

func (s plain) build(span ptrace.Span) {
	span.SetTraceID(pcommon.TraceID{15: s.trace})
	span.SetSpanID(pcommon.SpanID{7: s.id})
	span.SetParentSpanID(pcommon.SpanID{7: s.parent})
	span.SetName(s.name)
	span.SetFlags(s.flags)
	span.SetStartTimestamp(pcommon.Timestamp(s.began))
	span.SetEndTimestamp(pcommon.Timestamp(s.began + s.lasted))
	for key, value := range map[string]string{
		semconv.SaasOrgID: s.org, string(otelsemconv.UserHashKey): s.user, semconv.SaasPlan: s.plan,
		semconv.SaasRequestID: s.request, semconv.SaasIdentityScope: s.scope,
	} {
		if value != "" {
			span.Attributes().PutStr(key, value)
		}
	}
	if s.anonymous {
		span.Attributes().PutStr(semconv.SaasActorType, semconv.SaasActorTypeAnonymous)
	}
	if s.edge {
		span.Attributes().PutBool(semconv.SaasIdentityEdge, true)
	}
	if s.fanIn {
		span.SetKind(ptrace.SpanKindConsumer)
		span.Links().AppendEmpty()
	}
	if s.client {
		span.SetKind(ptrace.SpanKindClient)
	}
}

// given is what the oracle, or the processor, says a span ends up with.
type given struct {
	org, user, plan string
	anonymous       bool
	request         string
	origin          string
}

func read(span ptrace.Span) given {
	get := func(name string) string {
		if value, ok := span.Attributes().Get(name); ok {
			return value.AsString()
		}
		return ""
	}
	return given{
		org: get(semconv.SaasOrgID), user: get(string(otelsemconv.UserHashKey)), plan: get(semconv.SaasPlan),
		anonymous: get(semconv.SaasActorType) == semconv.SaasActorTypeAnonymous,
		request:   get(semconv.SaasRequestID), origin: get(semconv.SaasIdentityOrigin),
	}
}

// oracle knows all spans of all traces and applies the downward rule by walking up, span by span.
type oracle map[[2]uint8]plain

// want is the final identity of a span.
func (o oracle) want(s plain) given {
	w := given{org: s.org, user: s.user, plan: s.plan, anonymous: s.anonymous, request: s.request}
	if source, path := o.source(s, plain.identified); path != nil && !s.identified() && agree(path, source) {
		w.take(source, semconv.SaasIdentityOriginAncestor)
	}
	if source, path := o.source(s, plain.requested); path != nil && s.request == "" {
		w.request = source.request
	}
	return w
}

func (w *given) take(source plain, origin string) {
	w.org, w.user, w.plan, w.anonymous, w.origin = source.org, source.user, source.plan, source.anonymous, origin
}

func (s plain) requested() bool { return s.request != "" }

// identified says whether a span has an organisation group of its own, or through its resource.
func (s plain) identified() bool {
	return s.org != "" || s.anonymous || plainServices[s.service].org != ""
}

// source walks up from a span to the nearest explicit one and returns the way to it, or no way.
func (o oracle) source(s plain, explicit func(plain) bool) (source plain, path []plain) {
	path = []plain{s}
	for len(path) < 300 {
		child := path[len(path)-1]
		parent, received := o[[2]uint8{child.trace, child.parent}]
		if child.edge || child.scope != "" || child.fanIn || child.parent == 0 || !received || remote(child, parent) {
			return plain{}, nil
		}
		if parent.scope != "" {
			return plain{}, nil
		}
		if explicit(parent) {
			return effective(parent), path
		}
		path = append(path, parent)
	}
	return plain{}, nil
}

// effective is what a span says together with its resource.
func effective(s plain) plain {
	if s.org == "" {
		s.org = plainServices[s.service].org
	}
	return s
}

// agree says whether nobody on the way contradicts the source.
func agree(path []plain, source plain) bool {
	for _, s := range path {
		if s.user != "" && s.user != source.user || s.plan != "" && s.plan != source.plan {
			return false
		}
	}
	return true
}

func remote(child, parent plain) bool {
	a, b := plainServices[child.service], plainServices[parent.service]
	switch {
	case child.flags == 0x100:
		return false
	case child.flags == 0 && child.service == parent.service:
		return false
	}
	switch oracleSharing.Remote {
	case remoteAll:
		return false
	case remoteList:
		return a.name != b.name && !slices.ContainsFunc(oracleSharing.RemoteServices, func(list []string) bool {
			return slices.Contains(list, a.name) && slices.Contains(list, b.name)
		})
	}
	return a.name != b.name && (a.namespace == "" || a.namespace != b.namespace)
}

// oracleSharing says which services share.
var oracleSharing = createDefaultConfig().(*Config)

// forest grows random traces that use the same span ids. The rates are high, so that every rule
// meets every other one.
func forest(random *rand.Rand, traces, spans int) []plain {
	var all []plain
	for t := range traces {
		for id := range spans {
			all = append(all, grow(random, uint8(t+1), uint8(id+1), spans))
		}
	}
	return all
}

func grow(random *rand.Rand, trace, id uint8, spans int) plain {
	s := plain{trace: trace, id: id, name: fmt.Sprintf("%d/%d", trace, id)}
	switch random.IntN(20) {
	case 0: // a root
	case 1: // anything: a later span, itself, or one that never comes
		s.parent = uint8(1 + random.IntN(spans+3))
	default:
		s.parent = uint8(random.IntN(int(id)))
	}
	s.service = uint8(random.IntN(3))
	if random.IntN(5) == 0 {
		s.service = uint8(random.IntN(len(plainServices)))
	}
	s.flags = []uint32{0, 0, 0x100, 0x100, 0x300}[random.IntN(5)]
	identify(random, &s)
	s.began, s.lasted = clock(random)
	s.edge, s.fanIn = random.IntN(20) == 0, random.IntN(20) == 0
	s.client = !s.fanIn && random.IntN(3) == 0
	if random.IntN(20) == 0 {
		s.scope = []string{semconv.SaasIdentityScopeNone, semconv.SaasIdentityScopeMulti}[random.IntN(2)]
	}
	return s
}

// clock is when a span began and how long it lasted, as its own clock has it: each is wrong by as
// much as it likes, some go backwards, and some spans are older than any memory.
func clock(random *rand.Rand) (began, lasted int64) {
	began = int64(time.Hour) + random.Int64N(int64(50*365*24*time.Hour))
	switch random.IntN(12) {
	case 0:
		return began, -1 - random.Int64N(int64(time.Hour))
	case 1:
		return began, int64(time.Hour)
	case 2:
		return 0, 0
	}
	return began, random.Int64N(int64(coveredFor))
}

func identify(random *rand.Rand, s *plain) {
	pick := func(values ...string) string { return values[random.IntN(len(values))] }
	switch random.IntN(8) {
	case 0, 1:
		s.org, s.user, s.plan = fmt.Sprintf("org-%d-%d", s.trace, random.IntN(3)), pick("", "u1", "u2"), pick("", "pro", "free")
	case 2:
		s.user, s.plan = pick("", "u1", "u2"), pick("", "pro")
	case 3:
		s.anonymous = random.IntN(4) == 0
	}
	if random.IntN(4) == 0 {
		s.request = fmt.Sprintf("req-%d-%d", s.trace, s.id)
	}
}

// batchOf builds a batch in which spans keep their order and neighbours share their resource.
func batchOf(spans []plain) ptrace.Traces {
	batch := ptrace.NewTraces()
	var into ptrace.SpanSlice
	for i, s := range spans {
		if i == 0 || spans[i-1].service != s.service {
			rs := batch.ResourceSpans().AppendEmpty()
			resource := plainServices[s.service]
			rs.Resource().Attributes().PutStr(string(otelsemconv.ServiceNameKey), resource.name)
			rs.Resource().Attributes().PutStr(string(otelsemconv.ServiceNamespaceKey), resource.namespace)
			if resource.org != "" {
				rs.Resource().Attributes().PutStr(semconv.SaasOrgID, resource.org)
			}
			into = rs.ScopeSpans().AppendEmpty().Spans()
		}
		s.build(into.AppendEmpty())
	}
	return batch
}
