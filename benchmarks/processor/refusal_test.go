package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const refusable = `
receivers: {otlp: {protocols: {grpc: {endpoint: "%s"}}}}
extensions: {file_storage: {directory: "%s", create_directory: true}}
processors: {identity: {%s}}
exporters: {nop: }
service:
  extensions: [file_storage]
  telemetry: {metrics: {level: none}}
  pipelines: {traces: {receivers: [otlp], processors: [identity], exporters: [nop]}}
`

// The binary does not start with a configuration that cannot work, and says which key is wrong,
// what it is, and what it may be.
func TestBadConfigurationsRefuseTheStart(t *testing.T) {
	for given, says := range map[string]string{
		"wait: -1s":                           "`wait` must be greater than zero, not -1s",
		"quiet: 0s":                           "`quiet` must be greater than zero, not 0s",
		"max_held_bytes: 0":                   "`max_held_bytes` must be greater than zero, not 0",
		"max_spans_per_trace: -3":             "`max_spans_per_trace` must be greater than zero, not -3",
		"max_traces: 99999999999":             "`max_traces` must be at most 10000000, not 99999999999",
		"wait: 2m":                            "`wait` is longer than `ttl`: lower `wait` or raise `ttl` (2m0s over 1m0s)",
		"quiet: 11s":                          "`quiet` is longer than `wait`: lower `quiet` or raise `wait` (11s over 10s)",
		"waits: 1s":                           "waits",
		"wait: soon":                          "'wait' time: invalid duration",
		"upward: always":                      "`upward` must be `off` or `local`, not \"always\"",
		"remote: none":                        "`remote` must be `all`, `same_namespace` or `list`, not \"none\"",
		"remote: list":                        "`remote: list` needs `remote_services`",
		"groups: []":                          "`groups` is empty",
		"keep_attribute: saas.identity.scope": "`keep_attribute` must not be \"saas.identity.scope\"",
		"storage: file_storage/other":         "`storage: file_storage/other` is not among `service::extensions`",
		"groups: [{name: a, key: k, hold: false}]": "",
	} {
		t.Run(given, func(t *testing.T) {
			folder := t.TempDir()
			log, err := startRefusable(t, folder, given)
			switch {
			case says == "" && err != nil:
				t.Errorf("it does not start with what is right: %s", log)
			case says != "" && err == nil:
				t.Error("it starts")
			case !strings.Contains(log, says):
				t.Errorf("it does not say %s\n%s", says, log)
			}
		})
	}
}

// startRefusable starts a Collector and returns what it says.
func startRefusable(t *testing.T, folder, processor string) (log string, err error) {
	address := freeAddresses(1)[0]
	config := writeFile(t, folder, "config.yaml", fmt.Sprintf(refusable, address, filepath.Join(folder, "storage"), processor))
	file := filepath.Join(folder, "collector.log")
	p, err := startCollector(file, address, nil, config)
	if err == nil {
		p.stop()
	}
	text, readErr := os.ReadFile(file)
	must(readErr)
	return string(text), err
}

// A storage that another program has spoilt refuses the start: what was held is not overwritten.
func TestUnreadableStorageRefusesTheStart(t *testing.T) {
	folder := t.TempDir()
	if log, err := startRefusable(t, folder, "storage: file_storage"); err != nil {
		t.Fatal(log)
	}
	files, err := filepath.Glob(filepath.Join(folder, "storage", "processor_identity*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v", files, err)
	}
	spoilt := strings.Repeat("no database", 10_000)
	writeFile(t, filepath.Dir(files[0]), filepath.Base(files[0]), spoilt)
	log, err := startRefusable(t, folder, "storage: file_storage")
	if err == nil || !strings.Contains(log, "`storage: file_storage` cannot be opened") {
		t.Errorf("%v\n%s", err, log)
	}
	if text, err := os.ReadFile(files[0]); err != nil || string(text) != spoilt {
		t.Error("the file was changed")
	}
}

// Two pipelines with one processor cannot share what it stores: the second one does not start, and
// each has its own where they are named apart.
func TestTwoPipelinesDoNotShareAStorage(t *testing.T) {
	for name, test := range map[string]struct {
		second string
		starts bool
	}{"the same": {"identity", false}, "another": {"identity/second", true}} {
		t.Run(name, func(t *testing.T) {
			folder, address := t.TempDir(), freeAddresses(1)[0]
			text := fmt.Sprintf(refusable, address, filepath.Join(folder, "storage"), "storage: file_storage")
			text = strings.Replace(text, "pipelines: {", "pipelines: {traces/second: {receivers: [otlp], processors: ["+test.second+"], exporters: [nop]}, ", 1)
			text = strings.Replace(text, "processors: {", "processors: {identity/second: {storage: file_storage}, ", 1)
			file := filepath.Join(folder, "collector.log")
			p, err := startCollector(file, address, nil, writeFile(t, folder, "config.yaml", text))
			if err == nil {
				p.stop()
			}
			log, readErr := os.ReadFile(file)
			must(readErr)
			if (err == nil) != test.starts || err != nil && !strings.Contains(string(log), "`storage: file_storage` cannot be opened") {
				t.Errorf("%v\n%s", err, log)
			}
		})
	}
}
