package main

import (
	"bytes"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
)

// What comes from people that nobody trusts keeps nothing that it says about identity, audit or sampling,
// and neither takes identity from own spans of the same trace nor gives any.
func TestPublicSpansSayNothingAboutIdentity(t *testing.T) {
	s := &story{traffic: &traffic{}, marked: map[int]bool{}, early: map[int][]int{}}
	own := []int{s.add(1, noParent, false)}
	public := []int{s.add(1, 0, true), s.add(1, noParent, false), s.add(1, 1, true)}
	child := []int{s.add(1, public[1], false)}
	var told atomic.Int64
	seen := map[int]received{}
	backend := startSink(func(r received) { seen[r.number] = r; told.Add(1) })
	defer backend.stop()
	intake := freeAddresses(1)[0]
	collector, trusted := startGateway(t, backend.address, "public.yaml", "OTELCOL_SHIM_PUBLIC_HTTP="+intake)
	client := dial(trusted)
	defer client.connection.Close()
	s.send(client, own)
	response, err := http.Post("http://"+intake+"/v1/traces", "application/x-protobuf", bytes.NewReader(s.encode(newRandom(), 0, public)))
	must(err)
	must(response.Body.Close())
	if response.StatusCode != http.StatusOK {
		t.Fatal(response.Status)
	}
	s.send(client, child) // its parent is among the public ones: whoever that is, it says nothing
	waitUntil(t, func() bool { return int(told.Load()) >= len(s.spans)-len(child) })
	collector.stop()
	for _, number := range public {
		if r := seen[number]; r.org != "" || r.origin || r.kept || r.audited || r.namespace != "public" {
			t.Errorf("span %d came out as %+v", number, r)
		}
	}
	if r := seen[own[0]]; r.org != orgOf(1) {
		t.Errorf("the own span came out as %+v", r)
	}
	if r, ok := seen[child[0]]; !ok || r.org != "" || strings.Contains(r.namespace, "public") {
		t.Errorf("the span below a public one came out as %+v", r)
	}
}
