package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
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
func startBalancer(t *testing.T, folder string, gateways []*gateway) (p *process, intake string) {
	ports := freeAddresses(4)
	_, telemetry, _ := strings.Cut(ports[3], ":")
	environment := []string{
		"OTELCOL_SHIM_OTLP_GRPC=" + ports[0], "OTELCOL_SHIM_OTLP_HTTP=" + ports[1], "OTELCOL_SHIM_HEALTH=" + ports[2], "OTELCOL_SHIM_TELEMETRY_PORT=" + telemetry,
		"OTELCOL_SHIM_QUEUE_STORAGE=file_storage", "OTELCOL_SHIM_STORAGE=" + folder + "/balancer",
	}
	p = mustStart(t, folder+"/balancer.log", ports[0], environment, filepath.Join(shippedFolder(), "balancer.yaml"),
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

// Three gateways behind the balancer; one is killed and started again on its volume, a fourth joins,
// all under load: no span is lost, and none gets another organisation.
func TestGatewaysComeAndGoUnderLoad(t *testing.T) {
	folder := t.TempDir()
	traffic := makeTraffic(9, busy, sized(80_000), 0.3)
	tally := newTally(traffic)
	backend := startSink(tally.look)
	t.Cleanup(backend.stop)
	gateways := []*gateway{}
	for number := range 3 {
		gateways = append(gateways, newGateway(t, folder, backend.address, number))
	}
	balancer, intake := startBalancer(t, folder, gateways)
	var taken atomic.Int64
	var load sync.WaitGroup
	load.Go(func() { sendAll(traffic, []string{intake}, func() { taken.Add(1) }) })
	reached := func(share float64) func() bool {
		return func() bool { return float64(taken.Load()) >= share*float64(len(traffic.batches)) }
	}
	waitUntil(t, reached(0.25))
	gateways[1].kill()
	gateways[1].process = gateways[1].start()
	waitUntil(t, reached(0.6))
	gateways = append(gateways, newGateway(t, folder, backend.address, 3))
	writeFile(t, folder, "gateways.yaml", listOf(gateways))
	if err := balancer.command.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	load.Wait()
	waitUntil(t, func() bool { return locked(backend, tally.lost) == 0 })
	t.Logf("%d spans: %s", len(traffic.spans), locked(backend, tally.String))
	if wrong := locked(backend, func() int { return tally.wrong }); wrong > 0 {
		t.Errorf("%d spans have another organisation", wrong)
	}
	if metrics(gateways[3].metrics)["otelcol_processor_identity_spans_seen_total"] == 0 {
		t.Error("the fourth gateway got nothing")
	}
}
