package main

import (
	"sync/atomic"
	"testing"
	"time"
)

// One of two backends is away. While there is room in its queue, the other gets every span once. When it is
// full, held spans that are due wait for it, and the other does not get them again and again.
func TestBackendThatIsAwayCostsTheOthersLittle(t *testing.T) {
	for name, test := range map[string]struct {
		queue   string
		fits    bool
		seconds int
	}{"room in its queue": {"67108864", true, 2}, "its queue is full": {"200000", false, 8}} {
		t.Run(name, func(t *testing.T) {
			traffic := makeTraffic(13, rootLast, 3000, 1)
			tally := newTally(traffic)
			backend := startSink(tally.look)
			defer backend.stop()
			_, intake := startGateway(t, backend.address, "backends/tempo.yaml",
				"OTELCOL_SHIM_TEMPO="+freeAddresses(1)[0], "OTELCOL_SHIM_QUEUE_BYTES="+test.queue)
			var taken atomic.Int64
			go func() {
				client := dial(intake)
				defer client.connection.Close()
				for _, b := range traffic.batches {
					if client.export(b.payload) != nil {
						return // it waited for as long as clients do
					}
					taken.Add(1)
				}
			}()
			time.Sleep(time.Duration(test.seconds) * time.Second)
			lost, doubled := locked(backend, tally.lost), locked(backend, func() int { return tally.doubled })
			t.Logf("%d of %d batches taken; %d spans are out, %d came twice", taken.Load(), len(traffic.batches), len(traffic.spans)-lost, doubled)
			switch {
			case test.fits && (lost > 0 || doubled > 0):
				t.Error("it gets not all, or more")
			case !test.fits && lost == 0:
				t.Error("the queue is not full")
			case doubled > 1000:
				t.Error("what it has is sent again and again")
			}
		})
	}
}
