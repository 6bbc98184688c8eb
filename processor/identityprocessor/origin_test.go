package identityprocessor

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// Only what is the same in all that leaves with a span is known again.
func TestOriginIsKnownAgain(t *testing.T) {
	batch := func(change func(rs ptrace.ResourceSpans, ss ptrace.ScopeSpans)) (ptrace.ResourceSpans, ptrace.ScopeSpans) {
		rs := ptrace.NewTraces().ResourceSpans().AppendEmpty()
		ss := rs.ScopeSpans().AppendEmpty()
		rs.Resource().Attributes().PutStr("service.name", "api")
		rs.Resource().Attributes().PutInt("process.pid", 1)
		rs.SetSchemaUrl("r")
		ss.Scope().SetName("library")
		ss.Scope().Attributes().PutStr("a", "1")
		ss.SetSchemaUrl("s")
		change(rs, ss)
		return rs, ss
	}
	same := func(ptrace.ResourceSpans, ptrace.ScopeSpans) {}
	x := extractor{origins: &newestOrigins{}}
	first := x.originOf(batch(same))
	again := x.originOf(batch(same))
	assert.Equal(t, first.resource, again.resource)
	assert.NotSame(t, first, again, "each batch has its own, and leaves below its own")
	assert.Equal(t, first.size, again.size)
	for name, change := range map[string]func(rs ptrace.ResourceSpans, ss ptrace.ScopeSpans){
		"value": func(rs ptrace.ResourceSpans, _ ptrace.ScopeSpans) {
			rs.Resource().Attributes().PutInt("process.pid", 2)
		},
		"type": func(rs ptrace.ResourceSpans, _ ptrace.ScopeSpans) {
			rs.Resource().Attributes().PutStr("process.pid", "1")
		},
		"one more":        func(rs ptrace.ResourceSpans, _ ptrace.ScopeSpans) { rs.Resource().Attributes().PutStr("b", "2") },
		"one less":        func(rs ptrace.ResourceSpans, _ ptrace.ScopeSpans) { rs.Resource().Attributes().Remove("process.pid") },
		"dropped":         func(rs ptrace.ResourceSpans, _ ptrace.ScopeSpans) { rs.Resource().SetDroppedAttributesCount(1) },
		"schema":          func(rs ptrace.ResourceSpans, _ ptrace.ScopeSpans) { rs.SetSchemaUrl("") },
		"scope":           func(_ ptrace.ResourceSpans, ss ptrace.ScopeSpans) { ss.Scope().SetName("other") },
		"version":         func(_ ptrace.ResourceSpans, ss ptrace.ScopeSpans) { ss.Scope().SetVersion("2") },
		"scope attribute": func(_ ptrace.ResourceSpans, ss ptrace.ScopeSpans) { ss.Scope().Attributes().PutStr("a", "2") },
		"scope dropped":   func(_ ptrace.ResourceSpans, ss ptrace.ScopeSpans) { ss.Scope().SetDroppedAttributesCount(1) },
		"scope schema":    func(_ ptrace.ResourceSpans, ss ptrace.ScopeSpans) { ss.SetSchemaUrl("") },
	} {
		t.Run(name, func(t *testing.T) {
			other := x.originOf(batch(change))
			assert.False(t, first.resource == other.resource && first.scope == other.scope)
		})
	}
}
