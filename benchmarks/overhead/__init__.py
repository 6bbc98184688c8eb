"""What telemetry adds to a request: bare, official packages, shim."""
