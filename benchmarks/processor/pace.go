package main

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

const pacedSpans = 100_000 // about 14 000 a second, as traceEvery says

// delay is how long spans took from the client to the backend, in milliseconds.
type delay struct {
	Rival    string  `json:"rival"`
	P50      float64 `json:"p50_ms"`
	P99      float64 `json:"p99_ms"`
	Resolved int     `json:"held_until_an_ancestor"`
	After50  float64 `json:"after_the_ancestor_p50_ms"`
	After99  float64 `json:"after_the_ancestor_p99_ms"`
}

// pace sends as traffic arrives, and measures delays.
func pace(folder string) (delays []delay) {
	traffic := makeTraffic(2, pacedSpans, 0.05)
	for _, r := range []rival{nothing, identity} {
		b := prepare(folder, r, noQueue, traffic)
		sent := sendPaced(traffic, b.intake)
		b.drain(len(traffic.spans))
		b.end()
		d := delaysOf(r, traffic, sent, b.tally.at)
		delays = append(delays, d)
		fmt.Printf("%-26s all spans: p50 %.2f ms, p99 %.2f ms; %d held until an ancestor came, out after it: p50 %.2f ms, p99 %.2f ms\n",
			d.Rival, d.P50, d.P99, d.Resolved, d.After50, d.After99)
	}
	return delays
}

// sendPaced sends each batch when it is due and returns when each span was sent.
func sendPaced(traffic *traffic, address string) []time.Time {
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
	start := time.Now()
	for i := range traffic.batches {
		time.Sleep(time.Until(start.Add(traffic.batches[i].at)))
		queue <- &traffic.batches[i]
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
	return delay{r.name, percentile(all, 50), percentile(all, 99), len(after), percentile(after, 50), percentile(after, 99)}
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
