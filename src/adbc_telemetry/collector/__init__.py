"""A collector of one's own: takes telemetry in over HTTP, keeps it in DuckDB and reports on it.

Needs the extra `adbc-telemetry[collector]`.
"""

from adbc_telemetry.collector.report import ErrorRow, OperationRow, Report, build_report, render_report
from adbc_telemetry.collector.server import Collector
from adbc_telemetry.collector.store import Store, StoreError, open_database

__all__ = [
    "Collector",
    "ErrorRow",
    "OperationRow",
    "Report",
    "Store",
    "StoreError",
    "build_report",
    "open_database",
    "render_report",
]
