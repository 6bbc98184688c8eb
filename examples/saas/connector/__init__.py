"""The partner: calendars and payments. A service of somebody else, without otel-shim."""
