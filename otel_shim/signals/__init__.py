"""Nouns to OpenTelemetry's signals."""
