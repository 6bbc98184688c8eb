"""The partner: calendars, deliveries and payments. A service of somebody else, without otel-shim."""
