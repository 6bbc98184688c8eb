package main

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/encoding/gzip" // what the exporter of the shipped configuration sends
)

const (
	exportMethod   = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
	exportTimeout  = 10 * time.Second
	senders        = 4
	largestMessage = 64 << 20
)

// raw is an OTLP message that was encoded before, so that sending costs the generator little.
type raw []byte

type rawCodec struct{}

func (rawCodec) Name() string                  { return "proto" }
func (rawCodec) Marshal(v any) ([]byte, error) { return *v.(*raw), nil }
func (rawCodec) Unmarshal(data []byte, v any) error {
	*v.(*raw) = append((*v.(*raw))[:0], data...)
	return nil
}

// sender exports to one collector.
type sender struct{ connection *grpc.ClientConn }

func dial(address string) *sender {
	connection, err := grpc.NewClient(address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(rawCodec{})),
	)
	must(err)
	return &sender{connection}
}

func (s *sender) export(payload []byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), exportTimeout)
	defer cancel()
	request, response := raw(payload), raw{}
	return s.connection.Invoke(ctx, exportMethod, &request, &response)
}

// exportUntilTaken does what an OTLP client does: it sends again until it is acknowledged. It returns
// how often it did; to refuse a batch for minutes is a fault.
func (s *sender) exportUntilTaken(payload []byte) (again int) {
	for began := time.Now(); s.export(payload) != nil; again++ {
		if time.Since(began) > 10*giveUpAfter {
			panic("a batch is refused for too long")
		}
		time.Sleep(20 * time.Millisecond)
	}
	return again
}

// received is one span as it came out.
type received struct {
	number  int
	at      time.Time
	org     string
	origin  bool
	kept    bool
	audited bool

	namespace string // of its service
}

// sink is the backend: it hands every span to look.
type sink struct {
	ptraceotlp.UnimplementedGRPCServer
	address string
	server  *grpc.Server
	spans   atomic.Int64
	mu      sync.Mutex
	look    func(r received) // one call at a time
	served  sync.WaitGroup
}

func startSink(look func(r received)) *sink {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	s := &sink{address: listener.Addr().String(), server: grpc.NewServer(grpc.MaxRecvMsgSize(largestMessage)), look: look}
	ptraceotlp.RegisterGRPCServer(s.server, s)
	s.served.Go(func() { must(s.server.Serve(listener)) })
	return s
}

func (s *sink) stop() {
	s.server.Stop()
	s.served.Wait()
}

// Export takes what the collector sends.
func (s *sink) Export(_ context.Context, request ptraceotlp.ExportRequest) (ptraceotlp.ExportResponse, error) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, rs := range request.Traces().ResourceSpans().All() {
		namespace := ""
		if value, ok := rs.Resource().Attributes().Get("service.namespace"); ok {
			namespace = value.AsString()
		}
		for _, ss := range rs.ScopeSpans().All() {
			for _, span := range ss.Spans().All() {
				r := read(span, now)
				r.namespace = namespace
				s.look(r)
			}
		}
	}
	s.spans.Add(int64(request.Traces().SpanCount()))
	return ptraceotlp.NewExportResponse(), nil
}

func read(span ptrace.Span, now time.Time) received {
	r := received{number: numberOf(span.SpanID()), at: now}
	for name, value := range span.Attributes().All() {
		switch name {
		case attributeOrg:
			r.org = value.Str()
		case "saas.identity.origin":
			r.origin = true
		case attributeKeep:
			r.kept = value.Bool()
		case attributeAudit:
			r.audited = true
		}
	}
	return r
}

// tally counts what came out, by number of span.
type tally struct {
	traffic   *traffic
	times     []uint8
	at        []time.Time // when first
	wrong     int
	unstamped int
	doubled   int
	kept      int
}

func newTally(t *traffic) *tally {
	return &tally{traffic: t, times: make([]uint8, len(t.spans)), at: make([]time.Time, len(t.spans))}
}

func (y *tally) look(r received) {
	of := orgOf(y.traffic.spans[r.number].trace)
	if r.org != "" && r.org != of {
		y.wrong++
	}
	if y.times[r.number] > 0 {
		y.doubled++
		return
	}
	y.times[r.number]++
	y.at[r.number] = r.at
	if r.org == "" {
		y.unstamped++
	}
	if r.kept {
		y.kept++
	}
}

func (y *tally) lost() (lost int) {
	for _, n := range y.times {
		if n == 0 {
			lost++
		}
	}
	return lost
}

func (y *tally) String() string {
	return fmt.Sprintf("lost %d, doubled %d, wrong %d, without identity %d", y.lost(), y.doubled, y.wrong, y.unstamped)
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
