"""Applications to try otel-shim with."""
