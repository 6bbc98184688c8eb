package main

import (
	"cmp"
	"fmt"
	"slices"
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
	PeakRSS      int64   `json:"peak_rss_bytes"`
	Heap         int64   `json:"live_heap_bytes"`
	Allocated    float64 `json:"allocated_bytes_per_span"`
	Held         int     `json:"held"`
	Outcome      string  `json:"outcome"`
}

func (s *scene) play(folder string, spans, rounds int) (results []result) {
	fmt.Printf("\n%s: %s\n%-26s %6s %10s %11s %15s %11s %9s %9s %8s\n", s.name, s.about,
		"", "unid.", "CPU/span", "more", "least, more", "peak RSS", "heap", "B/span", "held")
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
	if s.shape.star {
		showHeld(results)
	}
	return results
}

// showHeld shows what a held span costs, everything that the processor does for it included: what
// identity costs more than nothing, less what it costs where nothing is held.
func showHeld(results []result) {
	passing := results[1].More
	for _, r := range results {
		if r.Held > 0 {
			held := float64(r.Held) / float64(r.Spans)
			fmt.Printf("  %2.0f %% held: %.2f µs for each held span\n", 100*held, (r.More-passing*(1-held))/held)
		}
	}
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
	fmt.Printf("%-26s %5.0f%% %7.2f µs %+5.2f %+4.0f%% %7.2f µs %+4.0f%% %7d MB %6d MB %9.0f %8d  %s\n", r.Rival, 100*r.Unidentified,
		r.Microseconds, r.More, 100*r.More/none.Microseconds, r.Least, 100*(r.Least-none.Least)/none.Least, r.PeakRSS>>20, r.Heap>>20, r.Allocated, r.Held, r.Outcome)
}

func (s *scene) run(folder string, r rival, traffic *traffic, share float64) result {
	b := prepare(folder, r, s.exit, traffic)
	defer b.end()
	before := b.process.cpu()
	sendAll(traffic, []string{b.intake}, func() {})
	b.drain(len(traffic.spans))
	cpu := b.process.cpu() - before
	own := metrics(b.metrics)
	spans := float64(len(traffic.spans))
	return result{
		Rival: r.name, Unidentified: share, Spans: len(traffic.spans),
		Microseconds: float64(cpu.Microseconds()) / spans,
		PeakRSS:      b.process.peakRSS(),
		Heap:         int64(own["otelcol_process_runtime_heap_alloc_bytes"]),
		Allocated:    own["otelcol_process_runtime_total_alloc_bytes_total"] / spans,
		Held:         int(own["otelcol_processor_identity_hold_duration_seconds_count"]),
		Outcome:      b.outcome(),
	}
}
