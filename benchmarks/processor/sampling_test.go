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
	segment       = 5_000   // traces that are under way together
	auditEvery    = 100     // traces
	decisionWait  = 2 * time.Second
)

// The moments at which a trace is audited, and the trace id that a client uses again and again.
const (
	auditEarly = iota
	auditLate
	auditAfterDecision
	auditReused
	auditKinds
)

// story is the spans of all traces, in the order in which they are sent.
type story struct {
	*traffic
	before   []int // what is sent while the sampler has not decided
	after    []int
	must     []int        // numbers of the spans that may not be sampled out
	marked   map[int]bool // traces with an audited span so far
	traces   int
	reusedID int
}

// add appends one span, and notes that it has to arrive if its trace is marked.
func (s *story) add(trace int, audited bool) int {
	number := len(s.spans)
	s.spans = append(s.spans, span{trace: trace, parent: noParent, explicit: true, audited: audited})
	if audited {
		s.marked[trace] = true
	}
	if s.marked[trace] {
		s.must = append(s.must, number)
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
// later one of its trace, arrives once, whenever the audit comes.
func TestSamplingKeepsWhatIsAudited(t *testing.T) {
	traces := sized(sampledTraces)
	s := &story{traffic: &traffic{}, marked: map[int]bool{}, traces: traces, reusedID: traces}
	for first := 0; first < traces; first += segment {
		s.begin(first)
	}
	s.end()
	tally := newTally(s.traffic)
	backend := startSink(tally.look)
	defer backend.stop()
	collector, intake := startGateway(t, backend.address, "sampling.yaml",
		"OTELCOL_SHIM_SAMPLING_PERCENT=1", "OTELCOL_SHIM_SAMPLING_TRACES=200000", "OTELCOL_SHIM_SAMPLING_WAIT="+decisionWait.String())
	client := dial(intake)
	defer client.connection.Close()
	s.send(client, s.before)
	time.Sleep(decisionWait + 3*time.Second) // every decision is made
	s.send(client, s.after)
	collector.stop() // releases all that is still under way
	missing := 0
	for _, number := range s.must {
		if tally.times[number] == 0 {
			missing++
		}
	}
	t.Logf("%d traces, %d spans; %d had to arrive, %d missing; %d arrived, %d doubled",
		traces, len(s.spans), len(s.must), missing, backend.spans.Load(), tally.doubled)
	if missing > 0 || tally.doubled > 0 || int(backend.spans.Load()) > len(s.spans)/10 {
		t.Error("an audited span is missing, one is doubled, or the sampler let everything through")
	}
}

// begin adds two spans of each trace, then a third one of some.
func (s *story) begin(first int) {
	for trace := first; trace < first+segment; trace++ {
		kind, id := s.audits(trace)
		s.before = append(s.before, s.add(id, kind == auditEarly), s.add(id, false))
	}
	for trace := first; trace < first+segment; trace += auditEvery / 10 {
		kind, id := s.audits(trace)
		s.before = append(s.before, s.add(id, kind == auditLate || kind == auditReused))
	}
}

// end adds two more spans of the audited traces, after the sampler has decided.
func (s *story) end() {
	for trace := 0; trace < s.traces; trace += auditEvery {
		kind, id := s.audits(trace)
		s.after = append(s.after, s.add(id, kind == auditAfterDecision), s.add(id, false))
	}
}

func (s *story) send(client *sender, numbers []int) {
	for ; len(numbers) > 0; numbers = numbers[min(len(numbers), spansPerBatch):] {
		client.exportUntilTaken(s.encode(newRandom(), 0, numbers[:min(len(numbers), spansPerBatch)]))
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
