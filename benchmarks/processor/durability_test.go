package main

import (
	"fmt"
	"os"
	"path/filepath"
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
  telemetry: {logs: {level: warn}, metrics: {level: none}}
  pipelines: {traces: {receivers: [otlp], processors: [identity], exporters: [otlp_grpc]}}
`

// A Collector that is killed three times under load and started again on its directory: every span
// that a client was told is taken comes out, and none with another organisation.
func TestEveryAcknowledgedSpanSurvivesSIGKILL(t *testing.T) {
	folder := t.TempDir()
	traffic := makeTraffic(7, busy, sized(60_000), 0.3)
	tally := newTally(traffic)
	backend := startSink(tally.look)
	defer backend.stop()
	address := freeAddresses(1)[0]
	config := writeFile(t, folder, "config.yaml", fmt.Sprintf(durable, address, backend.address, filepath.Join(folder, "storage")))
	start := func() *process {
		return mustStart(t, filepath.Join(folder, "collector.log"), address, nil, config)
	}
	collector := start()
	var taken atomic.Int64
	var load sync.WaitGroup
	load.Go(func() { sendAll(traffic, []string{address}, func() { taken.Add(1) }) })
	for kill := 1; kill <= 3; kill++ {
		waitUntil(t, func() bool { return int(taken.Load()) >= kill*len(traffic.batches)/4 })
		collector.kill()
		collector = start()
	}
	load.Wait()
	collector.kill() // with all acknowledged, and much of it not out yet
	collector = start()
	defer collector.stop()
	waitUntil(t, func() bool { return locked(backend, tally.lost) == 0 })
	t.Logf("%d spans, 4 kills: %s", len(traffic.spans), locked(backend, tally.String))
	if wrong := locked(backend, func() int { return tally.wrong }); wrong > 0 {
		t.Errorf("%d spans have another organisation", wrong)
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
	for deadline := time.Now().Add(40 * time.Second); !met(); time.Sleep(pollEvery) {
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
