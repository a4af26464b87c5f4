"""OpenTelemetry: spans and metrics of ADBC connections and of the pipeline itself. Needs `adbc-telemetry[otel]`."""
