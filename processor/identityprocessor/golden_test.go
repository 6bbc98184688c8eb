package identityprocessor

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/otel-shim/otel-shim/processor/identityprocessor/internal/semconv"
)

var goldenFolder = filepath.Join("..", "..", "tests", "golden")

// The Python SDK writes these files, and the processor must find identity in them by the Go
// constants: the two sides cannot drift apart alone. The folder comes with the whole repository;
// this module alone has none.
func TestGoldenFilesOfThePythonSDK(t *testing.T) {
	if _, err := os.Stat(goldenFolder); os.IsNotExist(err) {
		t.Skipf("%s is not here: this is not the whole repository", goldenFolder)
	}
	files, err := filepath.Glob(filepath.Join(goldenFolder, "*.otlp.json"))
	require.NoError(t, err)
	require.NotEmptyf(t, files, "%s has no *.otlp.json: write them with the Python tests", goldenFolder)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) { testGolden(t, file) })
	}
}

// goldenOrgs is how many spans of a file end up with which organisation, for the files that are
// known here; a new one needs no entry.
var goldenOrgs = map[string]map[string]int{
	"anonymous_request.otlp.json":     {"": 2},
	"authenticated_request.otlp.json": {"org_7": 5},
	"edge_request.otlp.json":          {"org_7": 2},
	"job_over_tenants.otlp.json":      {"": 2, "org_1": 1, "org_2": 1, "org_3": 1},
}

func testGolden(t *testing.T, file string) {
	input, err := os.ReadFile(file)
	require.NoError(t, err)
	batch, err := decode(input, true)
	require.NoError(t, err)
	spans := batch.SpanCount()
	require.Positive(t, spans, "no spans: is this OTLP JSON?")
	sink := new(consumertest.TracesSink)
	p := start(t, createDefaultConfig().(*Config), sink)
	require.NoError(t, p.ConsumeTraces(context.Background(), batch))
	require.NoError(t, p.Shutdown(context.Background()))
	require.Equal(t, spans, sink.SpanCount())
	found, orgs := map[string]int{}, map[string]int{}
	for span := range spansOf(sink.AllTraces()) {
		count(span, found)
		orgs[read(span).org]++
	}
	if want, ok := goldenOrgs[filepath.Base(file)]; ok {
		require.Equal(t, want, orgs)
	}
	require.Positivef(t, found[semconv.SaasOrgID]+found[semconv.SaasActorTypeAnonymous],
		"no span has %s, nor %s=%s", semconv.SaasOrgID, semconv.SaasActorType, semconv.SaasActorTypeAnonymous)
	require.Positivef(t, found[semconv.SaasRequestID]+found[semconv.SaasActorTypeJob],
		"no span has %s, and none is a job's", semconv.SaasRequestID)
}

func count(span ptrace.Span, found map[string]int) {
	for name, value := range span.Attributes().All() {
		found[name]++
		if name == semconv.SaasActorType {
			found[value.AsString()]++
		}
	}
}
