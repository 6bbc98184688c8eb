package identityprocessor

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/open-telemetry/opentelemetry-collector-contrib/pkg/golden"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// Whatever OTLP comes, as protobuf or JSON: no panic, no loop, and as many spans out as in. The
// input arrives twice, so that every span is also a duplicate.
func FuzzConsumeTraces(f *testing.F) {
	files, err := filepath.Glob(filepath.Join("testdata", "*", "input-*.yaml"))
	require.NoError(f, err)
	require.NotEmpty(f, files)
	for _, file := range files {
		seed, err := golden.ReadTraces(file)
		require.NoError(f, err)
		proto, err := (&ptrace.ProtoMarshaler{}).MarshalTraces(seed)
		require.NoError(f, err)
		json, err := (&ptrace.JSONMarshaler{}).MarshalTraces(seed)
		require.NoError(f, err)
		f.Add(proto, false)
		f.Add(json, true)
	}
	f.Fuzz(func(t *testing.T, input []byte, json bool) {
		sink := new(consumertest.TracesSink)
		p := start(t, createDefaultConfig().(*Config), sink)
		spans := 0
		for range 2 {
			batch, err := decode(input, json)
			if err != nil {
				return
			}
			spans += batch.SpanCount()
			require.NoError(t, p.ConsumeTraces(context.Background(), batch))
		}
		require.NoError(t, p.Shutdown(context.Background()))
		require.Equal(t, spans, sink.SpanCount())
	})
}

func decode(input []byte, json bool) (ptrace.Traces, error) {
	if json {
		return (&ptrace.JSONUnmarshaler{}).UnmarshalTraces(input)
	}
	return (&ptrace.ProtoUnmarshaler{}).UnmarshalTraces(input)
}

// The operator's file is input too.
func FuzzConfigValidate(f *testing.F) {
	f.Add("org", "saas.org.id", "user.hash", "off", "list", int64(1))
	f.Add("", "", "", "local", "", int64(-1))
	f.Fuzz(func(t *testing.T, name, key, member, upward, remote string, bound int64) {
		cfg := createDefaultConfig().(*Config)
		cfg.Groups = append(cfg.Groups, GroupConfig{Name: name, Key: key, Members: []string{member}})
		cfg.Upward, cfg.Remote, cfg.MaxHeldBytes = upward, remote, bound
		if cfg.Validate() != nil {
			return
		}
		p := start(t, cfg, consumertest.NewNop())
		require.NoError(t, p.Shutdown(context.Background()))
	})
}
