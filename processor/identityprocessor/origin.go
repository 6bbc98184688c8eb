package identityprocessor

import (
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// How many origins are known, and how large they are at most: a service sends the same resource and scope
// with each batch, so one copy is enough.
const knownOrigins, knownOriginBytes = 8, 8192

// newestOrigins are those that may come again.
type newestOrigins struct {
	known [knownOrigins]*origin
	next  int // to make room
}

func (k *newestOrigins) find(rs ptrace.ResourceSpans, ss ptrace.ScopeSpans) *origin {
	for _, o := range k.known {
		if o != nil && o.is(rs, ss) {
			return o
		}
	}
	return nil
}

func (k *newestOrigins) add(o *origin) {
	if o.size <= knownOriginBytes {
		k.known[k.next] = o
		k.next = (k.next + 1) % knownOrigins
	}
}

// is says whether spans come with just this resource and scope.
func (o *origin) is(rs ptrace.ResourceSpans, ss ptrace.ScopeSpans) bool {
	return o.resourceSchema == rs.SchemaUrl() && o.scopeSchema == ss.SchemaUrl() &&
		sameResource(o.resource, rs.Resource()) && sameScope(o.scope, ss.Scope())
}

// again is the same for the spans of another batch. Nothing ever changes the resource and the scope.
func (o *origin) again() *origin {
	return &origin{
		resource: o.resource, resourceSchema: o.resourceSchema,
		scope: o.scope, scopeSchema: o.scopeSchema, size: o.size,
	}
}

func sameResource(a, b pcommon.Resource) bool {
	return a.DroppedAttributesCount() == b.DroppedAttributesCount() && sameAttributes(a.Attributes(), b.Attributes())
}

func sameScope(a, b pcommon.InstrumentationScope) bool {
	return a.Name() == b.Name() && a.Version() == b.Version() &&
		a.DroppedAttributesCount() == b.DroppedAttributesCount() && sameAttributes(a.Attributes(), b.Attributes())
}

// sameAttributes asks both ways: one may have a name twice.
func sameAttributes(a, b pcommon.Map) bool {
	return a.Len() == b.Len() && a.Equal(b) && b.Equal(a)
}
