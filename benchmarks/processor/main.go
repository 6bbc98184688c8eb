// Command processor measures what completing identity costs a Collector, beside doing nothing,
// beside groupbytrace with transform, and beside tail_sampling: the real binary, the same traffic,
// one run.
package main

import (
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// rival is one pipeline to measure.
type rival struct {
	name       string
	processors string // YAML of the `processors` section
	pipeline   string // YAML list
}

var (
	nothing  = rival{"no processor", "{}", "[]"}
	identity = rival{"identity", "{identity: {}}", "[identity]"}
	grouping = rival{"groupbytrace + transform", groupingProcessors, "[groupbytrace, transform]"}
	sampling = rival{"tail_sampling", "{tail_sampling: {decision_wait: 10s, num_traces: 1000000, policies: [{name: all, type: always_sample}]}}", "[tail_sampling]"}
)

// In this version of transform no statement sees another span, so this completes nothing. It is
// what the statements cost.
const groupingProcessors = `
  groupbytrace: {wait_duration: 10s, num_traces: 1000000}
  transform:
    error_mode: ignore
    trace_statements:
      - set(span.cache["org"], span.attributes["saas.org.id"]) where span.attributes["saas.org.id"] != nil
      - set(span.attributes["saas.org.id"], span.cache["org"]) where span.attributes["saas.org.id"] == nil
`

const template = `
receivers: {otlp: {protocols: {grpc: {endpoint: "%[1]s"}}}}
processors: %[4]s
exporters:
  otlp_grpc:
    endpoint: "%[2]s"
    compression: none
    tls: {insecure: true}
    sending_queue: %[6]s
service:
  telemetry:
    logs: {level: error}
    metrics: {readers: [{pull: {exporter: {prometheus: {host: 127.0.0.1, port: %[3]s}}}}]}
  pipelines: {traces: {receivers: [otlp], processors: %[5]s, exporters: [otlp_grpc]}}
`

// The queue of the exporter: as shipped, and none, so that delays are those of the processor.
const (
	shippedQueue = "{sizer: bytes, queue_size: 67108864, block_on_overflow: true, batch: {sizer: items, flush_timeout: 200ms, min_size: 512, max_size: 4096}}"
	noQueue      = "{enabled: false}"
)

// result is what one run of one rival showed.
type result struct {
	Rival        string  `json:"rival"`
	Unidentified float64 `json:"unidentified"`
	Spans        int     `json:"spans"`
	Microseconds float64 `json:"cpu_microseconds_per_span"`
	PerCore      float64 `json:"spans_per_second_and_core"`
	PeakRSS      int64   `json:"peak_rss_bytes"`
	Heap         int64   `json:"live_heap_bytes"`
	Allocated    float64 `json:"allocated_bytes_per_span"`
	Held         int     `json:"held"`
	Lacking      int     `json:"lacking"`
	Outcome      string  `json:"outcome"`
}

func main() {
	spans := flag.Int("spans", 300_000, "spans for each run at saturation")
	out := flag.String("out", "../../.build/bench/processor.json", "where the figures go")
	rounds := flag.Int("rounds", 3, "runs of each; the median by CPU counts")
	flag.Parse()
	folder, err := os.MkdirTemp("", "bench-processor")
	must(err)
	defer os.RemoveAll(folder)
	results := saturate(folder, *spans, *rounds)
	fmt.Println()
	delays := pace(folder)
	text, err := json.MarshalIndent(map[string]any{"saturation": results, "delays": delays}, "", "  ")
	must(err)
	must(os.MkdirAll(filepath.Dir(*out), 0o755))
	must(os.WriteFile(*out, text, 0o644))
}

// saturate sends as fast as it is taken.
func saturate(folder string, spans, rounds int) (results []result) {
	var base costs
	fmt.Printf("%-26s %6s %10s %10s %9s %9s %9s %8s  %s\n", "", "unid.", "CPU/span", "spans/s/c", "peak RSS", "heap", "B/span", "held", "outcome")
	for _, unidentified := range []float64{0, 0.05, 0.3, 0.7} {
		rivals := []rival{nothing, identity}
		if unidentified == 0.05 {
			rivals = append(rivals, sampling, grouping)
		}
		traffic := makeTraffic(1, spans, unidentified)
		measured := make([][]result, len(rivals))
		for range rounds {
			for i, r := range rivals {
				measured[i] = append(measured[i], run(folder, r, traffic, unidentified))
			}
		}
		for _, each := range measured {
			slices.SortFunc(each, func(a, b result) int { return cmp.Compare(a.Microseconds, b.Microseconds) })
			show(each[len(each)/2], &base)
			results = append(results, each[len(each)/2])
		}
	}
	return results
}

// costs are what to compare with, in microseconds for each span.
type costs struct {
	nothing float64 // without a processor, at the same share
	passing float64 // of identity over that, where nothing is held
}

func show(r result, base *costs) {
	note, more := r.Outcome, r.Microseconds-base.nothing
	switch {
	case r.Rival == nothing.name:
		base.nothing = r.Microseconds
	case r.Rival == identity.name && r.Unidentified == 0:
		base.passing = more
		fallthrough
	default:
		note += fmt.Sprintf("; %+.0f %%", 100*more/base.nothing)
	}
	if r.Held > 0 {
		note += fmt.Sprintf("; %.1f µs for each completed span", (more-base.passing)*float64(r.Spans)/float64(r.Lacking))
	}
	fmt.Printf("%-26s %5.0f%% %7.2f µs %10.0f %6d MB %6d MB %9.0f %8d  %s\n", r.Rival, 100*r.Unidentified,
		r.Microseconds, r.PerCore, r.PeakRSS>>20, r.Heap>>20, r.Allocated, r.Held, note)
}

// bench is a rival under test, with its backend.
type bench struct {
	backend *sink
	tally   *tally
	process *process
	intake  string
	metrics string
}

func prepare(folder string, r rival, queue string, traffic *traffic) *bench {
	b := &bench{tally: newTally(traffic)}
	b.backend = startSink(b.tally.look)
	addresses := freeAddresses(2)
	b.intake, b.metrics = addresses[0], addresses[1]
	config := filepath.Join(folder, "config.yaml")
	text := fmt.Sprintf(template, b.intake, b.backend.address, b.metrics[len("127.0.0.1:"):], r.processors, r.pipeline, queue)
	must(os.WriteFile(config, []byte(text), 0o600))
	var err error
	b.process, err = startCollector(filepath.Join(folder, "collector.log"), b.intake, nil, config)
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(folder, "collector.log"))
		panic(fmt.Sprintf("%s: %v\n%s", r.name, err, log))
	}
	return b
}

func (b *bench) end() {
	b.process.stop()
	b.backend.stop()
}

// drain waits until everything is out, or nothing comes any more.
func (b *bench) drain(spans int) {
	quiet := time.Now()
	for last := int64(0); time.Since(quiet) < 20*time.Second; time.Sleep(pollEvery) {
		now := b.backend.spans.Load()
		if now >= int64(spans) {
			return
		}
		if now != last {
			last, quiet = now, time.Now()
		}
	}
}

func run(folder string, r rival, traffic *traffic, unidentified float64) result {
	b := prepare(folder, r, shippedQueue, traffic)
	defer b.end()
	before := b.process.cpu()
	sendAll(traffic, []string{b.intake}, func() {})
	b.drain(len(traffic.spans))
	cpu := b.process.cpu() - before
	own := metrics(b.metrics)
	spans := len(traffic.spans)
	return result{
		Rival: r.name, Unidentified: unidentified, Spans: spans,
		Microseconds: float64(cpu.Microseconds()) / float64(spans),
		PerCore:      float64(spans) / cpu.Seconds(),
		PeakRSS:      b.process.peakRSS(),
		Heap:         int64(own["otelcol_process_runtime_heap_alloc_bytes"]),
		Allocated:    own["otelcol_process_runtime_total_alloc_bytes_total"] / float64(spans),
		Held:         int(own["otelcol_processor_identity_hold_duration_seconds_count"]),
		Lacking:      traffic.lacking(),
		Outcome:      b.tally.String(),
	}
}

// sendAll sends all batches in order from several connections, each until it is acknowledged.
func sendAll(traffic *traffic, addresses []string, taken func()) {
	queue := make(chan []byte)
	var workers sync.WaitGroup
	for n := range senders {
		workers.Go(func() {
			to := dial(addresses[n%len(addresses)])
			defer to.connection.Close()
			for payload := range queue {
				to.exportUntilTaken(payload)
				taken()
			}
		})
	}
	for _, b := range traffic.batches {
		queue <- b.payload
	}
	close(queue)
	workers.Wait()
}
