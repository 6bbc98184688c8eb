package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const durable = `
receivers: {otlp: {protocols: {grpc: {endpoint: "%[1]s"}}}}
extensions: {file_storage: {directory: "%[3]s", create_directory: true}}
processors: {identity: {storage: file_storage, quiet: 1s, wait: 2s}}
exporters:
  otlp_grpc:
    endpoint: "%[2]s"
    tls: {insecure: true}
    sending_queue: {storage: file_storage, queue_size: 100000, block_on_overflow: true, num_consumers: 2}
    retry_on_failure: {initial_interval: 100ms, max_elapsed_time: 0}
service:
  extensions: [file_storage]
  telemetry: {logs: {level: warn}, metrics: {readers: [{pull: {exporter: {prometheus: {host: 127.0.0.1, port: %[4]s}}}}]}}
  pipelines: {traces: {receivers: [otlp], processors: [identity], exporters: [otlp_grpc]}}
`

const (
	heldMetric     = "otelcol_processor_identity_spans_held"
	restoredMetric = "otelcol_processor_identity_spans_restored_total"
)

// A Collector that is killed three times under load, while it holds spans, and started again on its
// directory: every span that a client was told is taken comes out, and none with another organisation.
func TestEveryAcknowledgedSpanSurvivesSIGKILL(t *testing.T) {
	folder := t.TempDir()
	traffic := makeTraffic(7, busy, sized(60_000), 0.3)
	tally := newTally(traffic)
	backend := startSink(tally.look)
	defer backend.stop()
	addresses := freeAddresses(2)
	_, port, _ := strings.Cut(addresses[1], ":")
	config := writeFile(t, folder, "config.yaml", fmt.Sprintf(durable, addresses[0], backend.address, filepath.Join(folder, "storage"), port))
	restored := 0.0
	start := func() *process {
		p := mustStart(t, filepath.Join(folder, "collector.log"), addresses[0], nil, config)
		restored += metrics(addresses[1])[restoredMetric]
		return p
	}
	collector := start()
	gate := &gate{}
	var load sync.WaitGroup
	load.Go(func() { sendAll(traffic, addresses[:1], gate.pass) })
	for kill := 1; kill <= 3; kill++ {
		gate.open(kill * len(traffic.batches) / 4)
		waitUntil(t, gate.reached)
		waitUntil(t, func() bool { return metrics(addresses[1])[heldMetric] > 0 || !gate.more(traffic) })
		collector.kill()
		collector = start()
	}
	gate.open(len(traffic.batches))
	load.Wait()
	collector.kill() // with all acknowledged, and much of it not out yet
	collector = start()
	defer collector.stop()
	waitUntil(t, func() bool { return locked(backend, tally.lost) == 0 })
	t.Logf("%d spans, 4 kills, %.0f held spans restored: %s", len(traffic.spans), restored, locked(backend, tally.String))
	if wrong := locked(backend, func() int { return tally.wrong }); wrong > 0 {
		t.Errorf("%d spans have another organisation", wrong)
	}
	if restored == 0 {
		t.Error("nothing was held when it was killed: the storage was not needed")
	}
}

// gate lets senders go on until so many batches have been taken; with it a test acts in the middle of
// the load, however fast that is.
type gate struct{ taken, until atomic.Int64 }

func (g *gate) open(until int) { g.until.Store(int64(until)) }
func (g *gate) reached() bool  { return g.taken.Load() >= g.until.Load() }

func (g *gate) more(t *traffic) bool { return g.taken.Load() < int64(len(t.batches)) }

func (g *gate) pass() {
	for n := g.taken.Add(1); n > g.until.Load(); {
		time.Sleep(time.Millisecond)
	}
}

// Told to stop while it holds spans, a Collector sends them on before it ends.
func TestSIGTERMReleasesWhatIsHeld(t *testing.T) {
	folder := t.TempDir()
	traffic := makeTraffic(11, rootLast, 3000, 1)
	tally := newTally(traffic)
	backend := startSink(tally.look)
	defer backend.stop()
	addresses := freeAddresses(2)
	_, port, _ := strings.Cut(addresses[1], ":")
	config := writeFile(t, folder, "config.yaml", fmt.Sprintf(template, addresses[0], port,
		"{identity: {quiet: 50s, wait: 50s}}", "[identity]", shipped.exporter, strings.ReplaceAll(shipped.yaml, "%s", backend.address)))
	collector := mustStart(t, filepath.Join(folder, "collector.log"), addresses[0], nil, config)
	defer collector.stop()
	children := traffic.part(0, 0.5)
	sent := 0
	for _, batch := range children.batches {
		sent += len(batch.numbers)
	}
	sendAll(children, addresses[:1], func() {})
	held := int(metrics(addresses[1])[heldMetric])
	began := time.Now()
	collector.stop()
	t.Logf("%d of %d spans were held; it took %v", held, sent, time.Since(began).Round(time.Millisecond))
	if out := int(backend.spans.Load()); out != sent || held == 0 || time.Since(began) > 20*time.Second {
		t.Errorf("%d are out", out)
	}
}

// sized is how large a test is: a tenth with `go test -short`.
func sized(full int) int {
	if testing.Short() {
		return full / 10
	}
	return full
}

// locked asks while nothing is being received.
func locked[T any](s *sink, ask func() T) T {
	s.mu.Lock()
	defer s.mu.Unlock()
	return ask()
}

func waitUntil(t *testing.T, met func() bool) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !met(); time.Sleep(pollEvery) {
		if time.Now().After(deadline) {
			t.Fatal("not in time")
		}
	}
}

func writeFile(t *testing.T, folder, name, text string) string {
	file := filepath.Join(folder, name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
