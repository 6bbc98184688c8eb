package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const impatient = "processors: {identity: {quiet: 2s, wait: 3s}}\n"

// gateway is one gateway of the shipped configuration on a volume of its own.
type gateway struct {
	*process
	address string
	metrics string
	start   func() *process
}

func newGateway(t *testing.T, folder, backend string, number int) *gateway {
	shipped, ports := shippedFolder(), freeAddresses(5)
	_, telemetry, _ := strings.Cut(ports[4], ":")
	environment := []string{
		"OTELCOL_SHIM_JAEGER=" + backend, "OTELCOL_SHIM_OTLP_GRPC=" + ports[0], "OTELCOL_SHIM_OTLP_HTTP=" + ports[1],
		"OTELCOL_SHIM_PROMETHEUS=" + ports[2], "OTELCOL_SHIM_HEALTH=" + ports[3], "OTELCOL_SHIM_TELEMETRY_PORT=" + telemetry,
		"OTELCOL_SHIM_QUEUE_STORAGE=file_storage", fmt.Sprintf("OTELCOL_SHIM_STORAGE=%s/volume-%d", folder, number),
	}
	more := writeFile(t, folder, "impatient.yaml", impatient)
	g := &gateway{address: ports[0], metrics: ports[4]}
	g.start = func() *process {
		return mustStart(t, fmt.Sprintf("%s/gateway-%d.log", folder, number), g.address, environment,
			filepath.Join(shipped, "gateway.yaml"), filepath.Join(shipped, "durable.yaml"), filepath.Join(shipped, "backends", "jaeger.yaml"), more)
	}
	g.process = g.start()
	t.Cleanup(func() { g.stop() })
	return g
}

// startBalancer runs the shipped balancer before these gateways, with their list in a file.
func startBalancer(t *testing.T, folder string, gateways []*gateway, more ...string) (p *process, intake string) {
	ports := freeAddresses(4)
	_, telemetry, _ := strings.Cut(ports[3], ":")
	environment := []string{
		"OTELCOL_SHIM_OTLP_GRPC=" + ports[0], "OTELCOL_SHIM_OTLP_HTTP=" + ports[1], "OTELCOL_SHIM_HEALTH=" + ports[2], "OTELCOL_SHIM_TELEMETRY_PORT=" + telemetry,
		"OTELCOL_SHIM_QUEUE_STORAGE=file_storage", "OTELCOL_SHIM_STORAGE=" + folder + "/balancer",
	}
	p = mustStart(t, folder+"/balancer.log", ports[0], append(environment, more...), filepath.Join(shippedFolder(), "balancer.yaml"),
		filepath.Join(shippedFolder(), "durable.yaml"), writeFile(t, folder, "gateways.yaml", listOf(gateways)))
	t.Cleanup(p.stop)
	return p, ports[0]
}

func listOf(gateways []*gateway) string {
	var addresses []string
	for _, g := range gateways {
		addresses = append(addresses, g.address)
	}
	return fmt.Sprintf("exporters: {loadbalancing: {resolver: {static: {hostnames: [%s]}}}}\n", strings.Join(addresses, ", "))
}

// What may come twice: a share of the spans, which a killed gateway had sent on but not deleted from its
// volume; and the requests that the balancer has under way when its list changes, or a gateway dies.
const doubledAtMost, underWay = 0.05, 100

// tier is a balancer with its gateways and their backend under load.
type tier struct {
	folder   string
	traffic  *traffic
	tally    *tally
	backend  *sink
	gateways []*gateway
	balancer *process
	intake   string
}

func newTier(t *testing.T, environment ...string) *tier {
	r := &tier{folder: t.TempDir(), traffic: makeTraffic(9, busy, sized(80_000), 0.3)}
	r.tally = newTally(r.traffic)
	r.backend = startSink(r.tally.look)
	t.Cleanup(r.backend.stop)
	for number := range 3 {
		r.gateways = append(r.gateways, newGateway(t, r.folder, r.backend.address, number))
	}
	r.balancer, r.intake = startBalancer(t, r.folder, r.gateways, environment...)
	return r
}

// send sends a part of the traffic; in the middle of it something happens.
func (r *tier) send(t *testing.T, from, to float64, during func()) {
	gate, part := &gate{}, r.traffic.part(from, to)
	gate.open(len(part.batches) / 2)
	var load sync.WaitGroup
	load.Go(func() { sendAll(part, []string{r.intake}, gate.pass) })
	waitUntil(t, gate.reached)
	during()
	gate.open(len(part.batches))
	load.Wait()
}

func (r *tier) out() int { return len(r.traffic.spans) - locked(r.backend, r.tally.lost) }

// check waits for all spans. All requests that are under way may have been sent again so often.
func (r *tier) check(t *testing.T, again int) {
	t.Cleanup(func() { t.Logf("%d spans: %s", len(r.traffic.spans), locked(r.backend, r.tally.String)) })
	waitUntil(t, func() bool { return r.out() == len(r.traffic.spans) })
	if wrong := locked(r.backend, func() int { return r.tally.wrong }); wrong > 0 {
		t.Errorf("%d spans have another organisation", wrong)
	}
	if doubled := locked(r.backend, func() int { return r.tally.doubled }); float64(doubled) > doubledAtMost*float64(len(r.traffic.spans))+float64(again*underWay*spansPerBatch) {
		t.Errorf("%d spans came twice", doubled)
	}
}

func nothingHappens() {}

// Three gateways behind the balancer. One is killed and stays away for some of the traffic; it comes
// back on its volume, and a fourth joins, all under load: no span is lost, few come twice, and none
// gets another organisation.
func TestGatewaysComeAndGoUnderLoad(t *testing.T) {
	r := newTier(t)
	r.send(t, 0, 0.3, func() { r.gateways[1].kill() })
	before := r.out()
	r.send(t, 0.3, 0.6, nothingHappens)
	waitUntil(t, func() bool { return r.out() > before+len(r.traffic.spans)/50 })
	t.Logf("%d spans of other traces went on while a gateway was away", r.out()-before)
	r.gateways[1].process = r.gateways[1].start()
	r.gateways = append(r.gateways, newGateway(t, r.folder, r.backend.address, 3))
	r.send(t, 0.6, 0.8, func() {
		writeFile(t, r.folder, "gateways.yaml", listOf(r.gateways))
		must(r.balancer.command.Process.Signal(syscall.SIGHUP))
		time.Sleep(2 * time.Second) // the list is read anew
	})
	r.send(t, 0.8, 1, nothingHappens)
	r.check(t, 2)
	if metrics(r.gateways[3].metrics)["otelcol_processor_identity_spans_seen_total"] == 0 {
		t.Error("the fourth gateway got nothing")
	}
}

// With OTELCOL_SHIM_GATEWAYS_WAIT=false a gateway that is away holds up nobody else's spans.
func TestGatewayThatIsAwayHoldsUpNobody(t *testing.T) {
	r := newTier(t, "OTELCOL_SHIM_GATEWAYS_WAIT=false")
	r.send(t, 0, 0.2, func() { r.gateways[1].kill() })
	r.send(t, 0.2, 1, nothingHappens)
	others := len(r.traffic.spans) / 3 // there are two of three gateways, of which one may have little
	waitUntil(t, func() bool { return r.out() > others })
	time.Sleep(3 * time.Second) // what is held has left
	t.Logf("%d of %d spans are out while a gateway is away", r.out(), len(r.traffic.spans))
	r.gateways[1].process = r.gateways[1].start()
	r.check(t, 0)
}
