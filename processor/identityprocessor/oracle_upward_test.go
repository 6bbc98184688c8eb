package identityprocessor

import (
	"time"

	"github.com/otel-shim/otel-shim/processor/identityprocessor/internal/semconv"
)

// coveredFor is how long a span may have lasted so that memory covers it: spans come at least 11 s
// after the start, and may be late by 6.
const coveredFor = 5 * time.Second

// wantQuiet is the final identity of a span that was left alone long enough: what want says, or
// else what everything below it agrees on.
func (o oracle) wantQuiet(s plain) given {
	w := o.want(s)
	_, path := o.source(s, plain.identified)
	if s.identified() || path != nil || s.scope != "" || s.fanIn {
		return w // it was not held
	}
	if s.lasted < 0 || s.lasted > int64(coveredFor) {
		return w // what was below it may have been missed
	}
	if source, ok := o.fromBelow(s, plain.identified); ok && agree(o.descendants(s), source) && agree([]plain{s}, source) {
		w.take(source, semconv.SaasIdentityOriginDescendants)
	}
	if source, ok := o.fromBelow(s, plain.requested); ok && w.request == "" {
		w.request, w.origin = source.request, semconv.SaasIdentityOriginDescendants
	}
	return w
}

// fromBelow is the one identity of all explicit spans below, if one of them reaches the span.
func (o oracle) fromBelow(s plain, explicit func(plain) bool) (source plain, ok bool) {
	found := map[plain]bool{}
	for _, below := range o.descendants(s) {
		if below.scope != "" || below.is(s) {
			return plain{}, false
		}
		if explicit(below) {
			source = effective(below)
			found[said(source, explicit)] = true
		}
	}
	return source, len(found) == 1 && o.reached(s, explicit)
}

func (s plain) is(other plain) bool { return s.trace == other.trace && s.id == other.id }

// said is what a span says in the group that is asked for.
func said(s plain, explicit func(plain) bool) plain {
	if explicit(plain{request: "any"}) {
		return plain{request: s.request}
	}
	return plain{org: s.org, user: s.user, plan: s.plan, anonymous: s.anonymous}
}

// reached says whether an explicit span below reaches this one: within its process, or from the
// process that it called.
func (o oracle) reached(s plain, explicit func(plain) bool) bool {
	return o.reachedFrom(s, explicit, s.client, 0)
}

func (o oracle) reachedFrom(s plain, explicit func(plain) bool, client bool, depth int) bool {
	for _, child := range o.children(s) {
		local := child.flags == 0x100 || child.flags == 0 && child.service == s.service
		switch {
		case child.edge || child.scope != "" || child.fanIn && !explicit(child) || depth > 300:
		case !local && (!client || remote(child, s)):
		case explicit(child) || o.reachedFrom(child, explicit, false, depth+1):
			return true
		}
	}
	return false
}

func (o oracle) children(s plain) (found []plain) {
	for _, other := range o {
		if other.trace == s.trace && other.parent == s.id {
			found = append(found, other)
		}
	}
	return found
}

// descendants are all spans below, the span itself included where it is on a cycle.
func (o oracle) descendants(s plain) (found []plain) {
	seen := map[uint8]bool{}
	for next := o.children(s); len(next) > 0; next = next[1:] {
		if below := next[0]; !seen[below.id] {
			seen[below.id] = true
			found = append(found, below)
			next = append(next, o.children(below)...)
		}
	}
	return found
}
