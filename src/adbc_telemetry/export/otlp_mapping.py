"""Events as OpenTelemetry log records: which field of the wire model becomes which attribute.

An attribute has the name that OpenTelemetry's semantic conventions give it, else `adbc.telemetry.` and the field's
name. Fields that are in none of the tables are not sent: paths, stack traces and whatever else belongs to the user.

Names and severities are those of the semantic conventions, v1.44:

    an operation that has failed    `db.client.operation.exception`, WARN: "Database client operation exception"
    a session's beginning or end    `adbc.session`, INFO: the conventions have no event for it
    any other operation             `adbc.statement`, INFO: nor for this one
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Any, Final

from google.protobuf import json_format
from google.protobuf.message import DecodeError
from msgspec import Struct
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import (
    SEVERITY_NUMBER_INFO,
    SEVERITY_NUMBER_WARN,
    LogRecord,
    ResourceLogs,
    ScopeLogs,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from adbc_telemetry.core.version import __version__
from adbc_telemetry.schema import (
    DriverSystemConfiguration,
    OperationType,
    OssSqlDriverTelemetryLog,
    TelemetryFrontendLog,
)

if "event_name" not in LogRecord.DESCRIPTOR.fields_by_name:
    raise ImportError("opentelemetry-proto is older than 1.35: its log records have no event name")

STATEMENT_EVENT: Final = "adbc.statement"
SESSION_EVENT: Final = "adbc.session"
FAILURE_EVENT: Final = "db.client.operation.exception"
PREFIX: Final = "adbc.telemetry."
_UNKNOWN_SERVICE: Final = "unknown_service"  # the conventions demand this name for a service without one

_SESSION_OPERATIONS: Final = frozenset({OperationType.CREATE_SESSION, OperationType.DELETE_SESSION})

_OPERATION = "sql_operation.operation_detail."
_LATENCY = "sql_operation.result_latency."
_CHUNKS = "sql_operation.chunk_details."
_CONNECTION = "driver_connection_params."

LOG_ATTRIBUTES: Final[Mapping[str, str]] = {
    "frontend_log_event_id": "log.record.uid",
    "workspace_id": PREFIX + "workspace_id",
    "context.client_context.user_agent": "user_agent.original",
}
"""Attributes of a record, by the path of a field in `TelemetryFrontendLog`."""

DRIVER_LOG_ATTRIBUTES: Final[Mapping[str, str]] = {
    _OPERATION + "operation_type": "db.operation.name",
    "error_info.error_name": "error.type",
    "session_id": PREFIX + "session_id",
    "sql_statement_id": PREFIX + "statement_id",
    "auth_type": PREFIX + "auth_type",
    "operation_latency_ms": PREFIX + "latency_ms",
    "sql_operation.statement_type": PREFIX + "statement_type",
    "sql_operation.execution_result": PREFIX + "result_format",
    "sql_operation.is_compressed": PREFIX + "is_compressed",
    "sql_operation.chunk_id": PREFIX + "chunk_id",
    "sql_operation.retry_count": PREFIX + "retry_count",
    _OPERATION + "is_internal_call": PREFIX + "is_internal_call",
    _OPERATION + "n_operation_status_calls": PREFIX + "poll.count",
    _OPERATION + "operation_status_latency_millis": PREFIX + "poll.latency_ms",
    _LATENCY + "result_set_ready_latency_millis": PREFIX + "result.ready_latency_ms",
    _LATENCY + "result_set_consumption_latency_millis": PREFIX + "result.consumption_latency_ms",
    _CHUNKS + "total_chunks_present": PREFIX + "chunks.present",
    _CHUNKS + "total_chunks_iterated": PREFIX + "chunks.iterated",
    _CHUNKS + "initial_chunk_latency_millis": PREFIX + "chunks.initial_latency_ms",
    _CHUNKS + "slowest_chunk_latency_millis": PREFIX + "chunks.slowest_latency_ms",
    _CHUNKS + "sum_chunks_download_time_millis": PREFIX + "chunks.sum_download_time_ms",
    "vol_operation.volume_operation_type": PREFIX + "volume_operation_type",
    **{
        _CONNECTION + name: f"{PREFIX}connection.{name}"
        for name in (
            "mode",
            "use_proxy",
            "auth_mech",
            "auth_flow",
            "use_system_proxy",
            "use_cf_proxy",
            "discovery_mode_enabled",
            "use_empty_metadata",
            "support_many_parameters",
            "check_certificate_revocation",
            "accept_undetermined_certificate_revocation",
            "http_connection_pool_size",
            "enable_sea_hybrid_results",
            "enable_complex_datatype_support",
            "allow_self_signed_support",
            "use_system_trust_store",
            "rows_fetched_per_block",
            "string_column_length",
            "enable_token_cache",
            "enable_arrow",
            "enable_direct_results",
            "enable_jwt_assertion",
            "jwt_algorithm",
            "socket_timeout",
            "async_poll_interval_millis",
            "enable_metric_view_metadata",
            "auto_commit",
            "fetch_auto_commit_from_server",
            "enable_geospatial_support",
        )
    },
}
"""Attributes of a record, by the path of a field in `OssSqlDriverTelemetryLog`."""

RESOURCE_ATTRIBUTES: Final[Mapping[str, str]] = {
    "runtime_name": "process.runtime.name",
    "runtime_version": "process.runtime.version",
    "runtime_vendor": "process.runtime.description",
    "os_name": "os.name",
    "os_version": "os.version",
    "os_arch": "host.arch",
    "driver_name": PREFIX + "driver_name",
    "driver_version": PREFIX + "driver_version",
    "client_app_name": PREFIX + "client_app_name",
    "process_name": PREFIX + "process_name",
    "locale_name": PREFIX + "locale_name",
    "char_set_encoding": PREFIX + "char_set_encoding",
}
"""Attributes of the resource, by the field in `DriverSystemConfiguration`. `service.name` is the environment's,
else the name of the application, or of the process."""

_SDK: Final = (
    ("telemetry.sdk.name", "adbc-telemetry"),
    ("telemetry.sdk.version", __version__),
    ("telemetry.sdk.language", "python"),
)
# The conventions have their own spelling of these names, and require it.
_OS_TYPES: Final = frozenset({"windows", "linux", "darwin", "freebsd", "netbsd", "openbsd", "aix"})
_ARCHITECTURES: Final = {
    "x86_64": "amd64",
    "AMD64": "amd64",
    "aarch64": "arm64",
    "i386": "x86",
    "i686": "x86",
}


class EncodedRecord(Struct, frozen=True):
    """A log as a record, and the system that it describes."""

    system: DriverSystemConfiguration
    record: LogRecord


def encode_record(log: TelemetryFrontendLog) -> EncodedRecord:
    """The record of one log.

    Raises:
        TypeError, AttributeError, ValueError: `log` is no log, or one of its values is not of the wire's type.
    """
    if not isinstance(log, TelemetryFrontendLog):
        raise TypeError(f"expected a TelemetryFrontendLog, not {type(log).__name__}")
    driver_log = None if log.entry is None else log.entry.sql_driver_log
    failed = driver_log is not None and driver_log.error_info is not None
    error_name = _value_at(driver_log, "error_info.error_name")
    timestamp_ms = _value_at(log, "context.client_context.timestamp_millis")
    record = LogRecord(
        time_unix_nano=0 if timestamp_ms is None else timestamp_ms * 1_000_000,
        observed_time_unix_nano=time.time_ns(),
        event_name=_event_name(driver_log, failed=failed),
        severity_number=SEVERITY_NUMBER_WARN if failed else SEVERITY_NUMBER_INFO,
        severity_text="WARN" if failed else "INFO",
        attributes=[*_attributes(log, LOG_ATTRIBUTES), *_attributes(driver_log, DRIVER_LOG_ATTRIBUTES)],
    )
    if error_name is not None:  # an event of an exception has to name its type so, besides `error.type`
        record.attributes.append(_attribute("exception.type", error_name))
    system = (driver_log and driver_log.system_configuration) or DriverSystemConfiguration()
    _resource(system, ())  # if it cannot be encoded, it fails here, and costs no other log of the request
    return EncodedRecord(system, record)


def _event_name(driver_log: OssSqlDriverTelemetryLog | None, *, failed: bool) -> str:
    if failed:
        return FAILURE_EVENT
    operation = _value_at(driver_log, _OPERATION + "operation_type")
    return SESSION_EVENT if operation in _SESSION_OPERATIONS else STATEMENT_EVENT


def request_body(records: Sequence[EncodedRecord], own_resource: tuple[tuple[str, str], ...] = ()) -> bytes:
    """The body of a request: an `ExportLogsServiceRequest` with one resource per system.

    Args:
        records: what it carries.
        own_resource: attributes of every resource. They beat those of the system, but not `telemetry.sdk.*`.
    """
    by_system: dict[DriverSystemConfiguration, list[LogRecord]] = {}
    for record in records:
        by_system.setdefault(record.system, []).append(record.record)
    scope = InstrumentationScope(name="adbc_telemetry", version=__version__)
    request = ExportLogsServiceRequest(
        resource_logs=[
            ResourceLogs(
                resource=_resource(system, own_resource),
                scope_logs=[ScopeLogs(scope=scope, log_records=logs)],
            )
            for system, logs in by_system.items()
        ]
    )
    body: bytes = request.SerializeToString()
    return body


def accepted(answer: bytes | None, count: int) -> int:
    """How many of `count` records were accepted, by the body of an answer; an empty body accepts all.

    An answer that is neither protobuf nor JSON comes from something in between that knows nothing of logs. It accepts
    none, nor does one that is too long (None).
    """
    if answer is None:
        return 0
    response = ExportLogsServiceResponse()
    try:
        response.ParseFromString(answer)
    except DecodeError:
        try:  # some collectors always answer in JSON
            json_format.Parse(answer, response, ignore_unknown_fields=True)
        except (json_format.ParseError, UnicodeDecodeError):
            return 0
    return max(0, min(count, count - int(response.partial_success.rejected_log_records)))


@functools.lru_cache(maxsize=512)  # all logs of a session share one
def _resource(system: DriverSystemConfiguration, own: tuple[tuple[str, str], ...]) -> Resource:
    service = system.client_app_name or system.process_name or _UNKNOWN_SERVICE
    attributes = {"service.name": _attribute("service.name", service)}
    attributes.update((each.key, each) for each in _attributes(system, RESOURCE_ATTRIBUTES))
    if system.os_name is not None and system.os_name.lower() in _OS_TYPES:
        attributes["os.type"] = _attribute("os.type", system.os_name.lower())
    attributes.update((name, _attribute(name, value)) for name, value in own)
    for name, value in _SDK:
        attributes[name] = _attribute(name, value)
    return Resource(attributes=attributes.values())


def _attributes(message: Struct | None, names: Mapping[str, str]) -> Iterator[KeyValue]:
    """The attributes of the fields that are set."""
    for path, name in names.items():
        value = _value_at(message, path)
        if value is not None:
            yield _attribute(name, _ARCHITECTURES.get(value, value) if name == "host.arch" else value)


def _value_at(message: Struct | None, path: str) -> Any:
    value: Any = message
    for name in path.split("."):
        if value is None:
            return None
        value = getattr(value, name)
    return value


def _attribute(name: str, value: object) -> KeyValue:
    return KeyValue(key=name, value=_any_value(value))


def _any_value(value: object) -> AnyValue:
    if isinstance(value, Enum):
        return AnyValue(string_value=value.name)
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, str):
        # UTF-8 cannot carry lone surrogates: they become U+FFFD.
        return AnyValue(string_value=value.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    raise TypeError(f"no attribute can be a {type(value).__name__}")
