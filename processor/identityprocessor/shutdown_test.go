package identityprocessor

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/processor"
	"go.opentelemetry.io/collector/processor/processortest"

	"github.com/otel-shim/otel-shim/processor/identityprocessor/internal/metadata"
)

func TestVerifyShutdown(t *testing.T) {
	processortest.VerifyShutdown(t, NewFactory(), createDefaultConfig())
}

// The verifier's spans have no ids and pass. As children whose parent never comes they are all held
// when the processor is shut down: in memory, or in a storage, which is empty afterwards.
func TestVerifyShutdownWithEverySpanHeld(t *testing.T) {
	memoryOnly := &orphaning{host: componenttest.NewNopHost()}
	processortest.VerifyShutdown(t, memoryOnly.factory(), createDefaultConfig())
	require.Equal(t, memoryOnly.spans, memoryOnly.heldAtShutdown)
	require.NotZero(t, memoryOnly.spans)

	stored, cfg := newDisk(), createDefaultConfig().(*Config)
	cfg.Storage = &storageID
	withStorage := &orphaning{host: stored}
	processortest.VerifyShutdown(t, withStorage.factory(), cfg)
	assert.Equal(t, withStorage.spans, withStorage.heldAtShutdown)
	assert.Zero(t, stored.entries())
}

// orphaning is a processor to which every span comes as a child without a parent.
type orphaning struct {
	*identityProcessor
	host           component.Host
	spans          int
	heldAtShutdown int
}

func (o *orphaning) factory() processor.Factory {
	create := func(ctx context.Context, set processor.Settings, cfg component.Config, next consumer.Traces) (processor.Traces, error) {
		p, err := NewFactory().CreateTraces(ctx, set, cfg, next)
		if err == nil {
			o.identityProcessor = p.(*identityProcessor)
		}
		return o, err
	}
	return processor.NewFactory(metadata.Type, createDefaultConfig, processor.WithTraces(create, metadata.TracesStability))
}

func (o *orphaning) Start(ctx context.Context, _ component.Host) error {
	return o.identityProcessor.Start(ctx, o.host)
}

func (o *orphaning) ConsumeTraces(ctx context.Context, batch ptrace.Traces) error {
	for _, span := range batch.ResourceSpans().At(0).ScopeSpans().At(0).Spans().All() {
		o.spans++
		span.SetTraceID(pcommon.TraceID{1})
		span.SetSpanID(spanID(o.spans))
		span.SetParentSpanID(spanID(1000))
	}
	return o.identityProcessor.ConsumeTraces(ctx, batch)
}

func (o *orphaning) Shutdown(ctx context.Context) error {
	o.mu.Lock()
	o.heldAtShutdown = o.memory.holding.count
	o.mu.Unlock()
	return o.identityProcessor.Shutdown(ctx)
}
