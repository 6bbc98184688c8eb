"""An application that adds an exporter of its own, as a guide without auto-instrumentation shows it."""

from fastapi import FastAPI
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

provider = trace.get_tracer_provider()
assert isinstance(provider, TracerProvider)
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
app = FastAPI()
