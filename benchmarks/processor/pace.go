package main

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"
)

const (
	pacedSpans    = 100_000
	releaseMetric = "otelcol_processor_identity_release_duration_seconds"
)

// paces are the loads at which delays are measured, as shares of what the pipeline can take.
var paces = []float64{0.3, 1}

// delay is how long spans took, in milliseconds.
type delay struct {
	Rival     string  `json:"rival"`
	Pace      float64 `json:"share_of_saturation"`
	PerSecond float64 `json:"spans_per_second"`
	P50       float64 `json:"p50_ms"`                    // from the client to the backend
	P99       float64 `json:"p99_ms"`                    //
	Resolved  int     `json:"held_until_an_ancestor"`    //
	After50   float64 `json:"after_the_ancestor_p50_ms"` // from the client's sending of the ancestor to the backend
	After99   float64 `json:"after_the_ancestor_p99_ms"` //
	Release50 float64 `json:"release_p50_ms"`            // inside the shipped Collector: from the ancestor's arrival until the exporter's queue has it, at most
	Release99 float64 `json:"release_p99_ms"`            //
}

// pace sends as traffic arrives, and measures delays.
func pace(folder string, rounds int) (delays []delay) {
	traffic := makeTraffic(2, busy, pacedSpans, fivePercent)
	most := saturation(folder, traffic)
	fmt.Printf("\ndelays: to a backend without a queue, which takes %.0f spans a second\n%-14s %5s %9s %9s %9s %6s %22s %26s\n",
		most, "", "load", "spans/s", "p50", "p99", "held", "after ancestor p50 p99", "inside, at most p50 p99")
	for _, share := range paces {
		var measured [2][]delay
		for range rounds {
			for i, r := range []rival{nothing, identity} {
				measured[i] = append(measured[i], measureDelay(folder, r, traffic, share, share*most))
			}
		}
		for _, each := range measured {
			slices.SortFunc(each, func(a, b delay) int { return cmp.Compare(a.P99, b.P99) })
			delays = append(delays, each[len(each)/2])
			each[len(each)/2].show()
		}
	}
	return delays
}

func (d *delay) show() {
	fmt.Printf("%-14s %4.0f%% %9.0f %6.2f ms %6.2f ms %6d %8.2f ms %8.2f ms %10.2f ms %10.2f ms\n", d.Rival, 100*d.Pace, d.PerSecond,
		d.P50, d.P99, d.Resolved, d.After50, d.After99, d.Release50, d.Release99)
}

// saturation is how many spans a second are taken from clients that wait for nothing else.
func saturation(folder string, traffic *traffic) float64 {
	b := prepare(folder, identity, unqueued, traffic)
	defer b.end()
	start := time.Now()
	sendAll(traffic, []string{b.intake}, func() {})
	return float64(len(traffic.spans)) / time.Since(start).Seconds()
}

func measureDelay(folder string, r rival, traffic *traffic, share, perSecond float64) delay {
	b := prepare(folder, r, unqueued, traffic)
	sent := sendPaced(traffic, b.intake, perSecond)
	b.drain(len(traffic.spans))
	b.end()
	d := delaysOf(r, traffic, sent, b.tally.at)
	d.Pace, d.PerSecond = share, perSecond
	if r.name == identity.name {
		d.lookInside(folder, r, traffic)
	}
	return d
}

// lookInside asks a Collector with the shipped exporter how long its releases took.
func (d *delay) lookInside(folder string, r rival, traffic *traffic) {
	b := prepare(folder, r, shipped, traffic)
	defer b.end()
	sendPaced(traffic, b.intake, d.PerSecond)
	b.drain(len(traffic.spans))
	d.Release50, d.Release99 = 1000*quantile(b.metrics, releaseMetric, 0.5), 1000*quantile(b.metrics, releaseMetric, 0.99)
}

// sendPaced sends each batch when it is due at this rate, and returns when each span was sent.
func sendPaced(traffic *traffic, address string, perSecond float64) []time.Time {
	sent := make([]time.Time, len(traffic.spans))
	queue := make(chan *batch, len(traffic.batches))
	var workers sync.WaitGroup
	for range senders {
		workers.Go(func() {
			to := dial(address)
			defer to.connection.Close()
			for b := range queue {
				now := time.Now()
				for _, number := range b.numbers {
					sent[number] = now
				}
				to.exportUntilTaken(b.payload)
			}
		})
	}
	start, before := time.Now(), 0
	for i := range traffic.batches {
		time.Sleep(time.Until(start.Add(time.Duration(float64(before) / perSecond * float64(time.Second)))))
		queue <- &traffic.batches[i]
		before += len(traffic.batches[i].numbers)
	}
	close(queue)
	workers.Wait()
	return sent
}

func delaysOf(r rival, traffic *traffic, sent, out []time.Time) delay {
	var all, after []time.Duration
	for number := range traffic.spans {
		if out[number].IsZero() {
			continue
		}
		all = append(all, out[number].Sub(sent[number]))
		if ready := traffic.readyAt(number, sent); r.name == identity.name && ready.After(sent[number]) {
			after = append(after, out[number].Sub(ready))
		}
	}
	return delay{
		Rival: r.name, P50: percentile(all, 50), P99: percentile(all, 99),
		Resolved: len(after), After50: percentile(after, 50), After99: percentile(after, 99),
	}
}

// readyAt is when the last span was sent that tells whose a span is.
func (t *traffic) readyAt(number int, sent []time.Time) time.Time {
	ready := sent[number]
	for !t.spans[number].explicit {
		number = t.spans[number].parent
		if sent[number].After(ready) {
			ready = sent[number]
		}
	}
	return ready
}

func percentile(delays []time.Duration, p int) float64 {
	if len(delays) == 0 {
		return 0
	}
	slices.Sort(delays)
	return float64(delays[(len(delays)-1)*p/100].Microseconds()) / 1000
}
