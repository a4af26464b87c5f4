"""OpenTelemetry: spans and metrics of ADBC connections, and metrics of the pipeline itself. Needs the extra `[otel]`.

instrumentor       `ADBCInstrumentor`
spans              one span per operation, its events and its measurements
descriptions       a span's name and attributes, when it begins
attributes         the table of attributes, by the database conventions v1.44
systems            which database it is, and where
query_text         what may be told of a text, where the user has asked for it
errors, metrics
trace_parent       tells the driver which span its own spans belong to
sampling           asks the sampler before there is a span
collecting         spans that the garbage collector ends
other_spans        finds out that another instrumentation has a span of the statement
pipeline_metrics   `observe_pipeline`: the account of every client, as `otel.sdk.*` metrics
"""

from __future__ import annotations

from adbc_telemetry.otel.instrumentor import ADBCInstrumentor
from adbc_telemetry.otel.pipeline_metrics import observe_pipeline, stop_observing_pipeline

__all__ = ["ADBCInstrumentor", "observe_pipeline", "stop_observing_pipeline"]
