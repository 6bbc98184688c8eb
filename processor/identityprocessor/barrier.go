package identityprocessor

import (
	"encoding/binary"
	"hash/maphash"
	"slices"
	"strings"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"
)

// Bits of a span's flags, from the OTLP definition of SpanFlags: whether it is known that the
// parent is remote, and whether it is.
const (
	flagHasIsRemote = 0x100
	flagIsRemote    = 0x200
)

// marks are what a span says about the way to its parent, and what its trace notes about it.
type marks uint16

const (
	markEdge     marks = 1 << iota // its parent came from an untrusted peer
	markScope                      // work of none or of several organisations
	markFanIn                      // a consumer of several messages
	markRemote                     // its parent is in another process
	markLocal                      // its parent is in the same process
	markClient                     // it calls another process
	markReceived                   // it is more than another span's parent
	markTorn                       // it was received with different parents
	markDisputed                   // a torn span claims to be its child
)

// shut says whether identity never comes from the parent, whoever that is.
func (m marks) shut() bool { return m&(markEdge|markScope|markFanIn) != 0 }

// with merges the marks of two spans with one id; the stricter one wins.
func (m marks) with(other marks) marks {
	return (m|other)&^markLocal | m&other&markLocal
}

// marksOf reads a span's marks; r holds its attributes.
func (v *vocabulary) marksOf(span ptrace.Span, r *reading) (m marks) {
	if r.has(v.edge) && r.texts[v.edge] == "true" {
		m |= markEdge
	}
	if r.has(v.scope) {
		m |= markScope
	}
	if span.Kind() == ptrace.SpanKindConsumer && span.Links().Len() > 0 {
		m |= markFanIn
	}
	if span.Kind() == ptrace.SpanKindClient {
		m |= markClient
	}
	switch flags := span.Flags(); {
	case flags&flagHasIsRemote == 0:
		return m
	case flags&flagIsRemote != 0:
		return m | markRemote
	}
	return m | markLocal
}

// service is whose resource a span came with; it is interned. A nil service is
// several at once, or none that can be remembered: it shares with nobody.
type service struct {
	name, namespace string
	instance        string // its id, or a fingerprint
	lists           uint64 // lists of `remote_services` it is in
	counted         bool   // by a trace
}

// remoteRule says between which services identity is inherited.
type remoteRule struct {
	mode     string
	lists    [][]string
	services catalog[service]
	code     []byte // scratch
	seed     maphash.Seed
}

func (r *remoteRule) serviceOf(resource pcommon.Map) *service {
	s := service{
		name:      text(resource, string(semconv.ServiceNameKey)),
		namespace: text(resource, string(semconv.ServiceNamespaceKey)),
		instance:  text(resource, string(semconv.ServiceInstanceIDKey)),
	}
	if s.instance == "" {
		s.instance = r.fingerprint(resource)
	}
	r.code = appendText(appendText(appendText(r.code[:0], s.name), s.namespace), s.instance)
	if len(r.code) > maxIdentityBytes {
		return nil
	}
	if known := r.services.find(r.code); known != nil {
		return known
	}
	s.lists = r.listsWith(s.name)
	r.services.put(string(r.code), &s)
	return &s
}

// fingerprint tells a process that has no instance id from others by all that its resource says.
func (r *remoteRule) fingerprint(resource pcommon.Map) string {
	var sum uint64
	for name, value := range resource.All() {
		sum += maphash.Comparable(r.seed, [2]string{name, value.AsString()})
	}
	return string(binary.BigEndian.AppendUint64(nil, sum))
}

// listsWith is the set of lists that name a service, one bit each.
func (r *remoteRule) listsWith(name string) (set uint64) {
	for i, list := range r.lists {
		if slices.Contains(list, name) {
			set |= 1 << i
		}
	}
	return set
}

func text(attributes pcommon.Map, name string) string {
	value, ok := attributes.Get(name)
	if !ok {
		return ""
	}
	return value.AsString()
}

// share says whether two services may share identity. A service always may with itself.
func (r *remoteRule) share(a, b *service) bool {
	switch {
	case a == nil || b == nil:
		return false
	case a.named() && a.name == b.name && a.namespace == b.namespace:
		return true
	case r.mode == remoteSameNamespace:
		return a.namespace != "" && a.namespace == b.namespace
	}
	return a.lists&b.lists != 0
}

// equal says whether two resources are the same process, as far as they tell.
func equal(a, b *service) bool {
	if a == nil || b == nil {
		return false
	}
	return a == b || a.name == b.name && a.namespace == b.namespace && a.instance == b.instance
}

// named is false for the name that SDKs choose where none is configured.
func (s *service) named() bool {
	return s.name != "" && !strings.HasPrefix(s.name, "unknown_service")
}
