"""Each field of the wire's messages: who fills it and from what, or why nothing does.

`docs/fields.md` shows this table. Tests compare the two, miss a field without a row, and see each field that is filled
on the wire.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any, Final, NamedTuple

from adbc_telemetry.driver_facts.connection_parameters import HOSTS, NEVER_TOLD, SOURCES


class Filler(str, Enum):
    """Who fills a field."""

    INSTRUMENT = "instrument"
    CONNECTION = "ConnectionTelemetry"
    DRIVER = "the driver"


_I, _C, _D = Filler.INSTRUMENT, Filler.CONNECTION, Filler.DRIVER


class Row(NamedTuple):
    """What is known of a field.

    Attributes:
        source: what it is filled from; or, where nothing fills it, why.
        example: a value as on the wire; None for a message, and where nothing fills the field.
        by: who fills it; empty where nothing does.
    """

    source: str
    example: Any = None
    by: tuple[Filler, ...] = ()


_LOG: Final[Mapping[str, Row]] = {
    "session_id": Row("the driver's id of the session, or a new UUID", "01ef-5b7c", (_I, _C)),
    "sql_statement_id": Row(
        "a new UUID, or the server's id (`statement_id`); none in events of a session",
        "01ef-5b7d",
        (_I, _C, _D),
    ),
    "system_configuration": Row("see the message", None, (_I, _C)),
    "driver_connection_params": Row("see the message", None, (_I, _C)),
    "auth_type": Row(
        "the same decision as `auth_mech`, unless the author says it (`auth_type`)",
        "oauth-access_token",
        (_I, _C),
    ),
    "vol_operation": Row("see the message", None, (_D,)),
    "sql_operation": Row("see the message", None, (_I, _C, _D)),
    "error_info": Row("see the message", None, (_I, _C, _D)),
    "operation_latency_ms": Row(
        "the monotonic clock: from the start to the last row, else to the event", 27, (_I, _C, _D)
    ),
}

_SYSTEM: Final[Mapping[str, Row]] = {
    "driver_version": Row("ADBC's driver info, the package, or the driver's author", "1.13.0", (_I, _C)),
    "runtime_name": Row("Python's implementation and version", "CPython 3.11.9", (_I, _C)),
    "runtime_version": Row("Python's version", "3.11.9", (_I, _C)),
    "runtime_vendor": Row("Python's implementation", "CPython", (_I, _C)),
    "os_name": Row("`platform.system()`", "Linux", (_I, _C)),
    "os_version": Row("the distribution's name, else the kernel's version", "Debian GNU/Linux 12", (_I, _C)),
    "os_arch": Row("`platform.machine()`", "x86_64", (_I, _C)),
    "driver_name": Row(
        "ADBC's driver info, the package, or the driver's author", "ADBC SQLite Driver", (_I, _C)
    ),
    "client_app_name": Row("the argument `client_app_name`; nothing is guessed", "nightly-report", (_I, _C)),
    "locale_name": Row("the process's locale, else what its environment asks for", "en_US", (_I, _C)),
    "char_set_encoding": Row("the preferred encoding", "UTF-8", (_I, _C)),
    "process_name": Row("the program's name, without its path and its arguments", "app.py", (_I, _C)),
}

_PARAMETER_EXAMPLES: Final[Mapping[str, Any]] = {
    "http_path": "/sql/1.0/warehouses/abc",
    "mode": "THRIFT",
    "auth_scope": "all-apis",
    "non_proxy_hosts": ["localhost"],
    "discovery_url": "https://idp.example/.well-known",
    "ssl_trust_store_type": "JKS",
    "http_connection_pool_size": 10,
    "rows_fetched_per_block": 50_000,
    "azure_workspace_resource_id": "0123",
    "azure_tenant_id": "4567",
    "string_column_length": 255,
    "token_endpoint": "https://idp.example/token",
    "auth_endpoint": "https://idp.example/auth",
    "jwt_algorithm": "RS256",
    "socket_timeout": 900,
    "async_poll_interval_millis": 100,
    "query_tags": "team:data",
}
"""All others are yes or no."""

_BY_INSTRUMENT: Final[Mapping[str, str]] = {
    "enable_arrow": "whether the connection is ADBC's",
    "auto_commit": "the driver manager, or `autocommit` of a PEP 249 connection",
    "rows_fetched_per_block": "the batch size of ADBC's SQLite driver",
    "allow_self_signed_support": "`tls_skip_verify` of Flight SQL's and Snowflake's drivers",
    "auth_mech": "the authentication of Snowflake's driver",
    "auth_flow": "the authentication of Snowflake's driver",
}
"""What `instrument` reads of a connection's own options; see `instrumentation/driver_info.py`."""

_WHY_NEVER: Final[Mapping[str, str]] = {
    "google_service_account": "names an account",
    "google_credential_file_path": "a path in the file system",
    "jwt_key_file": "a path in the file system",
    "allowed_volume_ingestion_paths": "paths in the file system",
}


def _parameters() -> Iterator[tuple[str, Row]]:
    for field in ("auth_mech", "auth_flow"):
        source = f"one decision on the properties of authentication; {_BY_INSTRUMENT[field]}"
        example = "OAUTH" if field == "auth_mech" else "CLIENT_CREDENTIALS"
        yield field, Row(source, example, (_I, _C))
    for field in NEVER_TOLD:
        yield field, Row(f"never: {_WHY_NEVER[field]}")
    for field, hosts in HOSTS.items():
        names = ", ".join(
            f"`{name}`" for name in dict.fromkeys((*hosts.hosts, *hosts.ports, *hosts.auth, field))
        )
        yield field, Row(f"{names}; see the message", None, (_C,))
    for field, each in SOURCES.items():
        names = ", ".join(f"`{name}`" for name in (*each.properties, field))
        source = f"{names}; where allowed by name" if each.by_name else names
        example = _PARAMETER_EXAMPLES.get(field, True)
        if field in _BY_INSTRUMENT:
            yield field, Row(f"{source}; {_BY_INSTRUMENT[field]}", example, (_I, _C))
        else:
            yield field, Row(source, example, (_C,))


_ERROR: Final[Mapping[str, Row]] = {
    "error_name": Row("the name of the exception's class", "TimeoutError", (_I, _C, _D)),
    "stack_trace": Row(
        "never a stack: the word of the error's category, where the session says `error_categories=True`",
        "timeout",
        (_C, _D),
    ),
}

_VOLUME: Final[Mapping[str, Row]] = {
    "volume_operation_type": Row("`statement.volume_operation`", "PUT", (_D,)),
    "volume_path": Row("never: a path of the user's"),
    "local_file": Row("never: a path in the file system"),
}

_EXECUTION: Final[Mapping[str, Row]] = {
    "statement_type": Row("the first word of the SQL; the argument `statement_type`", "QUERY", (_I, _C, _D)),
    "is_compressed": Row("`record_reader`, `is_compressed`, or the session's default", True, (_C, _D)),
    "execution_result": Row(
        "ADBC gives Arrow; `record_reader`, `result_format`, or the session's default",
        "INLINE_ARROW",
        (_I, _C, _D),
    ),
    "chunk_id": Row("`statement.chunk_id`, of a failed download", 3, (_D,)),
    "retry_count": Row("`record_retry`, `retry_count`", 2, (_D,)),
    "chunk_details": Row("see the message", None, (_D,)),
    "result_latency": Row("see the message", None, (_I, _C, _D)),
    "operation_detail": Row("see the message", None, (_I, _C, _D)),
    "java_uses_patched_arrow": Row("never: of Java alone"),
}

_HOST: Final[Mapping[str, Row]] = {
    "host_url": Row("the bare name of the host; where the host is allowed by name", "host.example", (_C,)),
    "port": Row("its own property, or the port of the URI; where the host is allowed by name", 443, (_C,)),
    "proxy_auth_type": Row("`adbc.proxy_options.proxy_auth`: a mere yes means Basic", "BASIC", (_C,)),
}

_DETAIL: Final[Mapping[str, Row]] = {
    "n_operation_status_calls": Row("`record_poll`: how often it was called", 3, (_D,)),
    "operation_status_latency_millis": Row("`record_poll`: the sum", 41, (_D,)),
    "operation_type": Row(
        "the method that was called; the argument `operation_type`", "EXECUTE_STATEMENT", (_I, _C, _D)
    ),
    "is_internal_call": Row(
        "`is_internal_call`, or the block `internal_calls()`; `instrument` sees no call of the driver's own",
        False,
        (_I, _C, _D),
    ),
}

_LATENCY: Final[Mapping[str, Row]] = {
    "result_set_ready_latency_millis": Row(
        "the first rows (`record_first_batch_ready`), else the answer (`record_execute_complete`)",
        14,
        (_I, _C, _D),
    ),
    "result_set_consumption_latency_millis": Row(
        "the last row (`record_results_consumed`), since the start", 27, (_I, _C, _D)
    ),
}

_CHUNKS: Final[Mapping[str, Row]] = {
    "initial_chunk_latency_millis": Row("`record_chunk`: the first; `set_chunk_details`", 12, (_D,)),
    "slowest_chunk_latency_millis": Row("`record_chunk`: the slowest; `set_chunk_details`", 80, (_D,)),
    "total_chunks_present": Row("`record_reader`, `set_chunk_details`: what the server said", 3, (_D,)),
    "total_chunks_iterated": Row("`record_chunk`: how often it was called; `set_chunk_details`", 3, (_D,)),
    "sum_chunks_download_time_millis": Row("`record_chunk`: the sum; `set_chunk_details`", 120, (_D,)),
}

FIELD_TABLE: Final[Mapping[str, Mapping[str, Row]]] = {
    "OssSqlDriverTelemetryLog": _LOG,
    "DriverSystemConfiguration": _SYSTEM,
    "DriverConnectionParameters": dict(_parameters()),
    "DriverErrorInfo": _ERROR,
    "VolumeOperationEvent": _VOLUME,
    "SqlExecutionEvent": _EXECUTION,
    "HostDetails": _HOST,
    "OperationDetail": _DETAIL,
    "ResultLatency": _LATENCY,
    "ChunkDetails": _CHUNKS,
}
"""By message and field."""
