package main

import "fmt"

// rival is one pipeline to measure.
type rival struct {
	name       string
	processors string // YAML of the `processors` section
	pipeline   string // YAML list
}

// What a rival holds, it holds for as long as `identity` would at most.
var (
	nothing  = rival{"no processor", "{}", "[]"}
	identity = rival{"identity", "{identity: {}}", "[identity]"}
	sampling = rival{"tail_sampling", "{tail_sampling: {decision_wait: 10s, num_traces: 1000000, policies: [{name: all, type: always_sample}]}}", "[tail_sampling]"}
	grouping = rival{"groupbytrace + transform", groupingFor("10s"), "[groupbytrace, transform]"}
	hasty    = rival{"the same, 1 s wait", groupingFor("1s"), "[groupbytrace, transform]"}
)

// groupingFor takes the same five attributes from span to span as identity does with this traffic.
// It completes nothing: in this version of transform no statement sees another span. It is what
// grouping and the statements cost.
func groupingFor(wait string) string {
	statements := ""
	for _, name := range []string{attributeOrg, attributeUser, attributeActor, attributePlan, attributeReq} {
		statements += fmt.Sprintf(`
      - set(span.cache["%[1]s"], span.attributes["%[1]s"]) where span.attributes["%[1]s"] != nil
      - set(span.attributes["%[1]s"], span.cache["%[1]s"]) where span.attributes["%[1]s"] == nil`, name)
	}
	return `
  groupbytrace: {wait_duration: ` + wait + `, num_traces: 1000000}
  transform:
    error_mode: ignore
    trace_statements:` + statements + "\n"
}

const template = `
receivers: {otlp: {protocols: {grpc: {endpoint: "%[1]s"}}}}
processors: %[3]s
exporters:
  %[5]s: %[6]s
service:
  telemetry:
    logs: {level: error}
    metrics: {readers: [{pull: {exporter: {prometheus: {host: 127.0.0.1, port: %[2]s}}}}]}
  pipelines: {traces: {receivers: [otlp], processors: %[4]s, exporters: [%[5]s]}}
`

// exit is where a pipeline ends.
type exit struct {
	exporter string
	yaml     string // of the exporter; %s is the backend's address
}

// The end of a pipeline: the shipped exporter and queue; the same without a queue, so that delays
// are the processor's; and nowhere, so that the cost is the processor's and not that of encoding.
var (
	shipped  = exit{"otlp_grpc", exporting("{sizer: bytes, queue_size: 67108864, block_on_overflow: true, batch: {sizer: items, flush_timeout: 200ms, min_size: 512, max_size: 4096}}")}
	unqueued = exit{"otlp_grpc", exporting("{enabled: false}")}
	nowhere  = exit{"debug", "{verbosity: basic}"}
)

func exporting(queue string) string {
	return `
    endpoint: "%s"
    compression: none
    tls: {insecure: true}
    sending_queue: ` + queue
}
