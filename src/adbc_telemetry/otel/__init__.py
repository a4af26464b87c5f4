"""OpenTelemetry: spans and metrics of instrumented connections, and of the pipeline itself. Needs `adbc-telemetry[otel]`."""
