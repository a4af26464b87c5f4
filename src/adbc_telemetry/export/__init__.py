"""Where events go: each exporter in a module of its own, interchangeable and stackable.

    base               what an exporter is, what it answers, and how the client calls one
    abilities          what an exporter may be able to do beyond `export` and `close`
    circuit_breaker    an exporter before another one: while the circuit is open, it answers DROPPED
    breaker            the circuit breaker itself
    databricks, otlp   exporters over HTTP; delivery splits batches into requests, transport.retry makes them again
    jsonlines, memory  exporters into a file and into a list
    local              exporters into the user's own file and to stderr, if the user wants that: they replace any other

To add an exporter:

1. Write a module with a class that inherits from `base.AbleExporter` (over HTTP: `delivery.HttpTelemetryExporter`).
   Define `export` and `close`. Decorate `export` with `core.guard.never_raises(failed_export)`, and answer an empty
   batch with `NOTHING_EXPORTED`.
2. Override the abilities that it has.
3. If it has a lock, a thread or a connection, register with `core.fork.renew_in_child`, and define
   `after_fork_in_child`.
4. Add the class to the three lists of names in `adbc_telemetry/__init__.py`, and to the exporters that
   `tests/unit/export/test_exporters.py` tests.

A program selects it with `TelemetryClient(host, config, exporter=...)` or `instrument(connection, exporter=...)`.
"""
