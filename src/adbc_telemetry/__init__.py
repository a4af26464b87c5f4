"""adbc-telemetry: the telemetry pipeline for database drivers.

It records what a driver does with each statement, batches it per host, and delivers it behind a circuit breaker.
Only what is used is loaded: see each name's module.
"""

from __future__ import annotations

import importlib

from adbc_telemetry.core.version import __version__

TYPE_CHECKING = False  # type checkers know the name; `typing` takes longer to import than all of this
if TYPE_CHECKING:
    from adbc_telemetry.client import TelemetryClient
    from adbc_telemetry.config import TelemetryConfiguration
    from adbc_telemetry.connection import ConnectionTelemetry
    from adbc_telemetry.consent import Decision
    from adbc_telemetry.context import StatementTelemetryContext
    from adbc_telemetry.core.diagnostics import Failure
    from adbc_telemetry.core.hosts import normalize_host
    from adbc_telemetry.decision import explain
    from adbc_telemetry.events.session import TelemetrySessionContext
    from adbc_telemetry.export.base import ExportOutcome, ExportResult, TelemetryExporter
    from adbc_telemetry.export.breaker import CircuitBreaker, CircuitBreakerState
    from adbc_telemetry.export.circuit_breaker import CircuitBreakerManager, CircuitBreakerTelemetryExporter
    from adbc_telemetry.export.databricks import DatabricksTelemetryExporter
    from adbc_telemetry.export.jsonlines import JsonLinesTelemetryExporter
    from adbc_telemetry.export.memory import InMemoryTelemetryExporter
    from adbc_telemetry.export.otlp import OtlpTelemetryExporter
    from adbc_telemetry.instrumentation.installation import install, instrument, uninstall
    from adbc_telemetry.manager import TelemetryClientLease, TelemetryClientManager
    from adbc_telemetry.protocols import ClientStats, NoopTelemetryClient, TelemetryClientProtocol
    from adbc_telemetry.transport.errors import is_terminal_error

# A driver that imports this and never turns telemetry on has imported next to nothing.
_LAZY = {
    "CircuitBreaker": "export.breaker",
    "CircuitBreakerManager": "export.circuit_breaker",
    "CircuitBreakerState": "export.breaker",
    "CircuitBreakerTelemetryExporter": "export.circuit_breaker",
    "ClientStats": "protocols",
    "ConnectionTelemetry": "connection",
    "DatabricksTelemetryExporter": "export.databricks",
    "Decision": "consent",
    "ExportOutcome": "export.base",
    "ExportResult": "export.base",
    "Failure": "core.diagnostics",
    "InMemoryTelemetryExporter": "export.memory",
    "JsonLinesTelemetryExporter": "export.jsonlines",
    "NoopTelemetryClient": "protocols",
    "OtlpTelemetryExporter": "export.otlp",
    "StatementTelemetryContext": "context",
    "TelemetryClient": "client",
    "TelemetryClientLease": "manager",
    "TelemetryClientManager": "manager",
    "TelemetryClientProtocol": "protocols",
    "TelemetryConfiguration": "config",
    "TelemetryExporter": "export.base",
    "TelemetrySessionContext": "events.session",
    "explain": "decision",
    "install": "instrumentation.installation",
    "instrument": "instrumentation.installation",
    "is_terminal_error": "transport.errors",
    "normalize_host": "core.hosts",
    "uninstall": "instrumentation.installation",
}

__all__ = [
    "CircuitBreaker",
    "CircuitBreakerManager",
    "CircuitBreakerState",
    "CircuitBreakerTelemetryExporter",
    "ClientStats",
    "ConnectionTelemetry",
    "DatabricksTelemetryExporter",
    "Decision",
    "ExportOutcome",
    "ExportResult",
    "Failure",
    "InMemoryTelemetryExporter",
    "JsonLinesTelemetryExporter",
    "NoopTelemetryClient",
    "OtlpTelemetryExporter",
    "StatementTelemetryContext",
    "TelemetryClient",
    "TelemetryClientLease",
    "TelemetryClientManager",
    "TelemetryClientProtocol",
    "TelemetryConfiguration",
    "TelemetryExporter",
    "TelemetrySessionContext",
    "__version__",
    "explain",
    "install",
    "instrument",
    "is_terminal_error",
    "normalize_host",
    "uninstall",
]


def __getattr__(name: str) -> object:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
