package main

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// scene is one kind of traffic, sent as fast as it is taken through some pipelines.
type scene struct {
	name   string
	about  string
	shape  shape
	exit   exit
	shares []float64 // of spans that do not say whose they are
	rivals []rival   // beside doing nothing and identity, at fivePercent
}

const fivePercent = 0.05

var scenes = []scene{
	{
		name: "alone", about: "15 spans a trace, 15 attributes, to nowhere: what is between receiving and exporting",
		shape: even, exit: nowhere, shares: []float64{0, fivePercent, 0.3, 0.7}, rivals: []rival{sampling, grouping, hasty},
	},
	{
		name: "held", about: "the same, each root after its trace, so that all that lacks identity is held",
		shape: rootLast, exit: nowhere, shares: []float64{0, fivePercent, 0.3, 0.7},
	},
	{
		name: "whole", about: "5 to 50 spans a trace, 15 to 25 attributes, to a backend: a whole gateway",
		shape: busy, exit: shipped, shares: []float64{0, fivePercent}, rivals: []rival{sampling, grouping},
	},
}

// result is what one run of one rival showed.
type result struct {
	Rival        string  `json:"rival"`
	Unidentified float64 `json:"unidentified"`
	Spans        int     `json:"spans"`
	Microseconds float64 `json:"cpu_microseconds_per_span"`
	More         float64 `json:"microseconds_more_than_no_processor"`
	Least        float64 `json:"least_cpu_microseconds_per_span"` // of all runs: what else the machine does only adds
	PerCore      float64 `json:"spans_per_second_and_core"`
	PeakRSS      int64   `json:"peak_rss_bytes"`
	Heap         int64   `json:"most_heap_bytes"` // while under load, garbage included
	Allocated    float64 `json:"allocated_bytes_per_span"`
	Held         int     `json:"held"`
	Hold50       float64 `json:"hold_p50_seconds"` // upper bounds of buckets
	Hold99       float64 `json:"hold_p99_seconds"`
	Outcome      string  `json:"outcome"`
}

func (s *scene) play(folder string, spans, rounds int) (results []result) {
	fmt.Printf("\n%s: %s\n%-26s %6s %10s %11s %15s %9s %10s %9s %9s %8s %12s\n", s.name, s.about,
		"", "unid.", "CPU/span", "more", "least, more", "/s/core", "peak RSS", "heap", "B/span", "held", "for p50 p99")
	for _, share := range s.shares {
		rivals := []rival{nothing, identity}
		if share == fivePercent {
			rivals = append(rivals, s.rivals...)
		}
		measured := s.measure(folder, rivals, makeTraffic(1, s.shape, spans, share), share, rounds)
		for _, r := range measured {
			r.show(&measured[0])
		}
		results = append(results, measured...)
	}
	return results
}

// measure runs the rivals in turn, so that what else the machine does meets all of them.
func (s *scene) measure(folder string, rivals []rival, traffic *traffic, share float64, rounds int) []result {
	measured := make([][]result, len(rivals))
	for range rounds {
		for i, r := range rivals {
			measured[i] = append(measured[i], s.run(folder, r, traffic, share))
		}
	}
	var medians []result
	for _, each := range measured {
		slices.SortFunc(each, func(a, b result) int { return cmp.Compare(a.Microseconds, b.Microseconds) })
		each[len(each)/2].Least = each[0].Microseconds
		medians = append(medians, each[len(each)/2])
	}
	for i := range medians {
		medians[i].More = medians[i].Microseconds - medians[0].Microseconds
	}
	return medians
}

func (r *result) show(none *result) {
	fmt.Printf("%-26s %5.0f%% %7.2f µs %+5.2f %+4.0f%% %7.2f µs %+4.0f%% %9.0f %7d MB %6d MB %9.0f %8d %5.2f %5.2f s  %s\n", r.Rival, 100*r.Unidentified,
		r.Microseconds, r.More, 100*r.More/none.Microseconds, r.Least, 100*(r.Least-none.Least)/none.Least, r.PerCore, r.PeakRSS>>20, r.Heap>>20, r.Allocated, r.Held, r.Hold50, r.Hold99, r.Outcome)
}

func (s *scene) run(folder string, r rival, traffic *traffic, share float64) result {
	b := prepare(folder, r, s.exit, traffic)
	defer b.end()
	before := b.process.cpu()
	heap := b.watchHeap()
	sendAll(traffic, []string{b.intake}, func() {})
	b.drain(len(traffic.spans))
	cpu := b.process.cpu() - before
	own := metrics(b.metrics)
	spans := float64(len(traffic.spans))
	return result{
		Rival: r.name, Unidentified: share, Spans: len(traffic.spans),
		Microseconds: float64(cpu.Microseconds()) / spans,
		PerCore:      spans / cpu.Seconds(),
		PeakRSS:      b.process.peakRSS(),
		Heap:         heap(),
		Allocated:    own["otelcol_process_runtime_total_alloc_bytes_total"] / spans,
		Held:         int(own["otelcol_processor_identity_hold_duration_seconds_count"]),
		Hold50:       quantile(b.metrics, holdMetric, 0.5),
		Hold99:       quantile(b.metrics, holdMetric, 0.99),
		Outcome:      b.outcome(),
	}
}

const holdMetric = "otelcol_processor_identity_hold_duration_seconds"

// watchHeap looks at the heap every second, until it is asked for the most.
func (b *bench) watchHeap() (most func() int64) {
	look := func() int64 { return int64(metrics(b.metrics)["otelcol_process_runtime_heap_alloc_bytes"]) }
	stop, found := make(chan struct{}), make(chan int64, 1)
	go func() {
		largest := int64(0)
		for {
			select {
			case <-time.After(time.Second):
				largest = max(largest, look())
			case <-stop:
				found <- max(largest, look())
				return
			}
		}
	}()
	return func() int64 { close(stop); return <-found }
}
