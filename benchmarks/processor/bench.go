package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const (
	giveUpAfter = 20 * time.Second // without any span
	askEvery    = 200 * time.Millisecond
	sentSpans   = "otelcol_exporter_sent_spans_total"
)

// bench is a rival under test, with its backend where spans go there.
type bench struct {
	backend *sink
	tally   *tally
	process *process
	exit    exit
	intake  string
	metrics string
}

func prepare(folder string, r rival, to exit, traffic *traffic) *bench {
	b := &bench{tally: newTally(traffic), exit: to}
	b.backend = startSink(b.tally.look)
	addresses := freeAddresses(2)
	b.intake, b.metrics = addresses[0], addresses[1]
	_, port, _ := strings.Cut(b.metrics, ":")
	exporter := strings.ReplaceAll(to.yaml, "%s", b.backend.address)
	config, log := filepath.Join(folder, "config.yaml"), filepath.Join(folder, "collector.log")
	must(os.WriteFile(config, fmt.Appendf(nil, template, b.intake, port, r.processors, r.pipeline, to.exporter, exporter), 0o600))
	var err error
	if b.process, err = startCollector(log, b.intake, nil, config); err != nil {
		text, _ := os.ReadFile(log)
		panic(fmt.Sprintf("%s: %v\n%s", r.name, err, text))
	}
	return b
}

func (b *bench) end() {
	b.process.stop()
	b.backend.stop()
}

// out is how many spans have left the Collector.
func (b *bench) out() int64 {
	if b.exit == nowhere {
		return int64(metrics(b.metrics)[sentSpans])
	}
	return b.backend.spans.Load()
}

// drain waits until everything is out, or nothing comes any more.
func (b *bench) drain(spans int) {
	changed := time.Now()
	for last := int64(-1); time.Since(changed) < giveUpAfter; time.Sleep(askEvery) {
		now := b.out()
		if now >= int64(spans) {
			return
		}
		if now != last {
			last, changed = now, time.Now()
		}
	}
}

func (b *bench) outcome() string {
	if b.exit == nowhere {
		return fmt.Sprintf("%d out", b.out())
	}
	return b.tally.String()
}

// part is the batches from one share of all to another.
func (t *traffic) part(from, to float64) *traffic {
	n := float64(len(t.batches))
	return &traffic{shape: t.shape, spans: t.spans, batches: t.batches[int(from*n):int(to*n)]}
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
