package identityprocessor

import (
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/processor"
)

type identityProcessor struct {
	component.StartFunc
	component.ShutdownFunc
	consumer.Traces
}

func newProcessor(_ processor.Settings, _ *Config, next consumer.Traces) (*identityProcessor, error) {
	return &identityProcessor{Traces: next}, nil
}
