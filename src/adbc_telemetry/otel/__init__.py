"""OpenTelemetry: spans and metrics of ADBC connections, by the database conventions v1.44. The extra `[otel]`.

instrumentor     `ADBCInstrumentor`
spans            one span per operation, its events and its measurements
descriptions     a span's name and attributes, when it begins
attributes       the table of attributes
systems          which database it is, and where
query_text       what may be told of a text, where the user has asked for it
errors, metrics
trace_parent     tells the driver which span its own spans belong to
sampling         asks the sampler before there is a span
collecting       spans that the garbage collector ends
other_spans      finds out that another instrumentation has a span of the statement
"""

from __future__ import annotations

from adbc_telemetry.otel.instrumentor import ADBCInstrumentor

__all__ = ["ADBCInstrumentor"]
