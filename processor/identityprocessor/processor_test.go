package identityprocessor

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/open-telemetry/opentelemetry-collector-contrib/pkg/golden"
	"github.com/open-telemetry/opentelemetry-collector-contrib/pkg/pdatatest/ptracetest"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/confmap/confmaptest"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/processor/processortest"

	"github.com/otel-shim/otel-shim/processor/identityprocessor/internal/metadata"
)

var update = flag.Bool("update", false, "write the outputs of testdata anew")

// Every case is a folder: input-1.yaml, input-2.yaml, … arrive in this order, then the processor is
// shut down; output.yaml is everything that came out, in order. config.yaml is optional; without it
// only the downward rule is at work.
func TestCases(t *testing.T) {
	for _, name := range []string{
		"anonymous",
		"child_before_parent",
		"conflicting_duplicates",
		"consumer_with_links",
		"cycle",
		"edge",
		"explicit_wins",
		"missing_ids",
		"missing_parent",
		"other_trace",
		"parent_before_child",
		"partly_filled",
		"remote_all",
		"remote_list",
		"remote_no_namespace",
		"remote_same_namespace",
		"request_is_not_held",
		"resource_identity",
		"same_batch",
		"scope_multi",
		"structure_kept",
		"unidentified_root",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testCase(t, filepath.Join("testdata", name)) })
		})
	}
}

func testCase(t *testing.T, folder string) {
	sink := new(consumertest.TracesSink)
	cfg := loadConfig(t, folder)
	p := start(t, cfg, sink)
	time.Sleep(cfg.Wait) // nothing can have been missed
	for i := 1; ; i++ {
		file := filepath.Join(folder, fmt.Sprintf("input-%d.yaml", i))
		if _, err := os.Stat(file); err != nil {
			require.ErrorIs(t, err, os.ErrNotExist)
			require.Greater(t, i, 1, "no input-1.yaml")
			break
		}
		input, err := golden.ReadTraces(file)
		require.NoError(t, err)
		require.NoError(t, p.ConsumeTraces(context.Background(), input))
	}
	if cfg.Upward == upwardLocal {
		time.Sleep(cfg.Wait + time.Second)
	}
	require.NoError(t, p.Shutdown(context.Background()))
	compare(t, filepath.Join(folder, "output.yaml"), joinedTraces(sink.AllTraces()))
}

func compare(t *testing.T, file string, actual ptrace.Traces) {
	if *update {
		require.NoError(t, golden.WriteTracesToFile(file, actual))
	}
	expected, err := golden.ReadTraces(file)
	require.NoError(t, err)
	require.NoError(t, ptracetest.CompareTraces(expected, actual))
}

func loadConfig(t *testing.T, folder string) *Config {
	cfg := createDefaultConfig().(*Config)
	file := filepath.Join(folder, "config.yaml")
	cfg.Upward = upwardOff
	if _, err := os.Stat(file); err != nil {
		return cfg
	}
	conf, err := confmaptest.LoadConf(file)
	require.NoError(t, err)
	require.NoError(t, conf.Unmarshal(cfg))
	require.NoError(t, cfg.Validate())
	return cfg
}

// start returns a started processor that is shut down with the test.
func start(t testing.TB, cfg *Config, next consumer.Traces) *identityProcessor {
	p, err := newProcessor(processortest.NewNopSettings(metadata.Type), cfg, next)
	require.NoError(t, err)
	require.NoError(t, p.Start(context.Background(), componenttest.NewNopHost()))
	t.Cleanup(func() { _ = p.Shutdown(context.Background()) })
	return p
}

func joinedTraces(batches []ptrace.Traces) ptrace.Traces {
	all := ptrace.NewTraces()
	for _, batch := range batches {
		for _, rs := range batch.ResourceSpans().All() {
			rs.CopyTo(all.ResourceSpans().AppendEmpty())
		}
	}
	return all
}
