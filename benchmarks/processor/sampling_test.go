package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const (
	sampledTraces = 100_000 // a tenth where the test is to be short
	segment       = 2_500   // traces that are under way together
	auditEvery    = 100     // traces
	decisionWait  = 4 * time.Second
	inTime        = decisionWait / 2       // after the first span of a trace the sampler cannot have decided yet
	segmentEvery  = 500 * time.Millisecond // so that not more traces are undecided than the shipped sampler remembers
)

// The moments at which a trace is audited, and the trace id that a client uses again and again.
const (
	auditEarly = iota
	auditLate
	auditAfterDecision
	auditReused
	auditKinds
)

// story is the spans of all traces, as they are sent.
type story struct {
	*traffic
	must     []int        // numbers of the spans that may not be sampled out
	marked   map[int]bool // traces with an audited span so far
	early    map[int][]int
	reusedID int
	saved    int // spans from before the mark that the sampler has to let through
	again    int // batches that were sent again
}

// add appends one span, and notes that it has to arrive if its trace is marked.
func (s *story) add(trace, parent int, audited bool) int {
	number := len(s.spans)
	s.spans = append(s.spans, span{trace: trace, parent: parent, explicit: parent == noParent, audited: audited})
	if audited {
		s.marked[trace] = true
	}
	if s.marked[trace] {
		s.must = append(s.must, number)
	} else {
		s.early[trace] = append(s.early[trace], number)
	}
	return number
}

// audits says when a trace is audited, if at all, and under which trace id it runs.
func (s *story) audits(trace int) (kind, id int) {
	if trace%auditEvery != 0 {
		return auditKinds, trace
	}
	if kind = trace / auditEvery % auditKinds; kind == auditReused {
		return kind, s.reusedID
	}
	return kind, trace
}

// A policy of 1 % over 100 000 traces in the shipped configuration: every audited span, and every
// later one of its trace, arrives once, whenever the audit comes; and every earlier one too, if the
// audit came before the decision.
func TestSamplingKeepsWhatIsAudited(t *testing.T) {
	traces := sized(sampledTraces)
	s := &story{traffic: &traffic{}, marked: map[int]bool{}, early: map[int][]int{}, reusedID: traces}
	all := make([]span, 0, 3*traces)
	s.spans = all
	tally := newTally(&traffic{spans: all[:cap(all)]})
	tally.traffic = s.traffic
	backend := startSink(tally.look)
	defer backend.stop()
	collector, intake := startGateway(t, backend.address, "sampling.yaml",
		"OTELCOL_SHIM_SAMPLING_PERCENT=1", "OTELCOL_SHIM_SAMPLING_WAIT="+decisionWait.String())
	client := dial(intake)
	defer client.connection.Close()
	for first := 0; first < traces; first += segment {
		s.play(client, backend, first)
	}
	time.Sleep(decisionWait + 3*time.Second) // every decision is made
	s.end(client, backend, traces)
	collector.stop() // releases all that is still under way
	missing := 0
	for _, number := range s.must {
		if tally.times[number] == 0 {
			missing++
		}
	}
	t.Logf("%d traces, %d spans; %d had to arrive, %d of them from before the mark; %d missing; %d arrived, %d doubled, %d wrong",
		traces, len(s.spans), len(s.must), s.saved, missing, backend.spans.Load(), tally.doubled, tally.wrong)
	if missing > 0 || tally.wrong > 0 || int(backend.spans.Load()) > len(s.spans)/10 {
		t.Error("an audited span is missing, one has another organisation, or the sampler let everything through")
	}
	if tally.doubled > s.again*spansPerBatch {
		t.Error("spans are doubled that were not sent again")
	}
	if s.saved == 0 {
		t.Error("no trace was audited between its first span and the decision")
	}
}

// play sends the children of some traces, which are held until their roots follow, and then a third
// span of some. What came before a mark must arrive if the mark came in time.
func (s *story) play(client *sender, backend *sink, first int) {
	began := time.Now()
	var children, roots, late []int
	backend.mu.Lock()
	for trace := first; trace < first+segment; trace++ {
		_, id := s.audits(trace)
		children = append(children, s.add(id, len(s.spans)+segment, false))
	}
	for trace := first; trace < first+segment; trace++ {
		kind, id := s.audits(trace)
		roots = append(roots, s.add(id, noParent, kind == auditEarly))
	}
	for trace := first; trace < first+segment; trace += auditEvery / 10 {
		kind, id := s.audits(trace)
		late = append(late, s.add(id, noParent, kind == auditLate || kind == auditReused))
	}
	backend.mu.Unlock()
	s.send(client, children)
	s.send(client, roots)
	s.send(client, late)
	defer func() { time.Sleep(time.Until(began.Add(segmentEvery))) }()
	for trace := first; trace < first+segment; trace += auditEvery {
		if kind, id := s.audits(trace); s.marked[id] && kind != auditReused && time.Since(began) < inTime {
			s.must = append(s.must, s.early[id]...)
			s.saved += len(s.early[id])
		}
	}
}

// end adds two more spans of the audited traces, after the sampler has decided.
func (s *story) end(client *sender, backend *sink, traces int) {
	var after []int
	backend.mu.Lock()
	for trace := 0; trace < traces; trace += auditEvery {
		kind, id := s.audits(trace)
		after = append(after, s.add(id, noParent, kind == auditAfterDecision), s.add(id, noParent, false))
	}
	backend.mu.Unlock()
	s.send(client, after)
}

func (s *story) send(client *sender, numbers []int) {
	for ; len(numbers) > 0; numbers = numbers[min(len(numbers), spansPerBatch):] {
		s.again += client.exportUntilTaken(s.encode(newRandom(), 0, numbers[:min(len(numbers), spansPerBatch)]))
	}
}

// startGateway runs the shipped configuration with more of it, on free ports, before this backend.
func startGateway(t *testing.T, backend, more string, environment ...string) (p *process, intake string) {
	t.Helper()
	folder := shippedFolder()
	ports := freeAddresses(5)
	_, telemetry, _ := strings.Cut(ports[4], ":")
	environment = append(environment, "OTELCOL_SHIM_JAEGER="+backend, "OTELCOL_SHIM_OTLP_GRPC="+ports[0], "OTELCOL_SHIM_OTLP_HTTP="+ports[1],
		"OTELCOL_SHIM_PROMETHEUS="+ports[2], "OTELCOL_SHIM_HEALTH="+ports[3], "OTELCOL_SHIM_TELEMETRY_PORT="+telemetry)
	p = mustStart(t, filepath.Join(t.TempDir(), "collector.log"), ports[0], environment,
		filepath.Join(folder, "gateway.yaml"), filepath.Join(folder, more), filepath.Join(folder, "backends", "jaeger.yaml"))
	t.Cleanup(p.stop)
	return p, ports[0]
}

// shippedFolder has the configuration that users get.
func shippedFolder() string {
	folder, err := filepath.Abs(filepath.Join("..", "..", "collector-config"))
	must(err)
	return folder
}

// mustStart shows the end of the log where the test fails.
func mustStart(t *testing.T, log, address string, environment []string, configs ...string) *process {
	t.Helper()
	p, err := startCollector(log, address, environment, configs...)
	t.Cleanup(func() {
		if t.Failed() {
			text, _ := os.ReadFile(log)
			t.Logf("%s\n%s", log, text[max(0, len(text)-4000):])
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}
