"""The wire model: every message, field and enum that the telemetry service accepts.

Names and types are those of the service's proto2 package `logging`, as listed in `wire-schema.json` of this
project's design. Every field is a keyword argument and optional; an absent one is left out of the JSON,
never null. Enums travel by name, 64-bit integers as numbers. Messages are immutable: one that sits in a queue
cannot change under the sender, and parts that all events of a session share can be encoded once.

Since 0.1.
"""

from __future__ import annotations

from enum import Enum

from msgspec import Struct


class _Message(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, gc=False, weakref=False):
    """What all messages of the log have in common. They never form cycles, so the collector may skip them."""


class DriverMode(str, Enum):
    """`DriverMode.Type` of the wire; members travel by their names."""

    TYPE_UNSPECIFIED = "TYPE_UNSPECIFIED"
    THRIFT = "THRIFT"
    SEA = "SEA"


class StatementType(str, Enum):
    """`Statement.Type` of the wire; members travel by their names."""

    TYPE_UNSPECIFIED = "TYPE_UNSPECIFIED"
    QUERY = "QUERY"
    SQL = "SQL"
    UPDATE = "UPDATE"
    METADATA = "METADATA"
    VOLUME = "VOLUME"


class OperationType(str, Enum):
    """`Operation.Type` of the wire; members travel by their names."""

    TYPE_UNSPECIFIED = "TYPE_UNSPECIFIED"
    CREATE_SESSION = "CREATE_SESSION"
    DELETE_SESSION = "DELETE_SESSION"
    EXECUTE_STATEMENT = "EXECUTE_STATEMENT"
    EXECUTE_STATEMENT_ASYNC = "EXECUTE_STATEMENT_ASYNC"
    CLOSE_STATEMENT = "CLOSE_STATEMENT"
    CANCEL_STATEMENT = "CANCEL_STATEMENT"
    LIST_TYPE_INFO = "LIST_TYPE_INFO"
    LIST_CATALOGS = "LIST_CATALOGS"
    LIST_SCHEMAS = "LIST_SCHEMAS"
    LIST_TABLES = "LIST_TABLES"
    LIST_TABLE_TYPES = "LIST_TABLE_TYPES"
    LIST_COLUMNS = "LIST_COLUMNS"
    LIST_FUNCTIONS = "LIST_FUNCTIONS"
    LIST_PRIMARY_KEYS = "LIST_PRIMARY_KEYS"
    LIST_IMPORTED_KEYS = "LIST_IMPORTED_KEYS"
    LIST_EXPORTED_KEYS = "LIST_EXPORTED_KEYS"
    LIST_CROSS_REFERENCES = "LIST_CROSS_REFERENCES"


class ExecutionResultFormat(str, Enum):
    """`ExecutionResult.Format` of the wire; members travel by their names."""

    FORMAT_UNSPECIFIED = "FORMAT_UNSPECIFIED"
    INLINE_ARROW = "INLINE_ARROW"
    INLINE_JSON = "INLINE_JSON"
    EXTERNAL_LINKS = "EXTERNAL_LINKS"
    COLUMNAR_INLINE = "COLUMNAR_INLINE"


class VolumeOperationType(str, Enum):
    """`VolumeOperation.Type` of the wire; members travel by their names."""

    TYPE_UNSPECIFIED = "TYPE_UNSPECIFIED"
    PUT = "PUT"
    GET = "GET"
    DELETE = "DELETE"
    LIST = "LIST"
    QUERY = "QUERY"


class DriverProxyAuth(str, Enum):
    """`DriverProxy.Auth` of the wire; members travel by their names."""

    AUTH_UNSPECIFIED = "AUTH_UNSPECIFIED"
    NONE = "NONE"
    BASIC = "BASIC"
    SPNEGO = "SPNEGO"


class DriverAuthMech(str, Enum):
    """`DriverAuthMech.Type` of the wire; members travel by their names."""

    TYPE_UNSPECIFIED = "TYPE_UNSPECIFIED"
    OTHER = "OTHER"
    PAT = "PAT"
    OAUTH = "OAUTH"


class DriverAuthFlow(str, Enum):
    """`DriverAuthFlow.Type` of the wire; members travel by their names."""

    TYPE_UNSPECIFIED = "TYPE_UNSPECIFIED"
    TOKEN_PASSTHROUGH = "TOKEN_PASSTHROUGH"
    CLIENT_CREDENTIALS = "CLIENT_CREDENTIALS"
    BROWSER_BASED_AUTHENTICATION = "BROWSER_BASED_AUTHENTICATION"


class DriverSystemConfiguration(_Message, frozen=True):
    """`DriverSystemConfiguration` of the wire."""

    driver_version: str | None = None
    runtime_name: str | None = None
    runtime_version: str | None = None
    runtime_vendor: str | None = None
    os_name: str | None = None
    os_version: str | None = None
    os_arch: str | None = None
    driver_name: str | None = None
    client_app_name: str | None = None
    locale_name: str | None = None
    char_set_encoding: str | None = None
    process_name: str | None = None


class HostDetails(_Message, frozen=True):
    """`HostDetails` of the wire."""

    host_url: str | None = None
    port: int | None = None
    proxy_auth_type: DriverProxyAuth | None = None


class DriverConnectionParameters(_Message, frozen=True):
    """`DriverConnectionParameters` of the wire."""

    http_path: str | None = None
    mode: DriverMode | None = None
    host_info: HostDetails | None = None
    use_proxy: bool | None = None
    auth_mech: DriverAuthMech | None = None
    auth_flow: DriverAuthFlow | None = None
    auth_scope: str | None = None
    use_system_proxy: bool | None = None
    non_proxy_hosts: list[str] | None = None
    use_cf_proxy: bool | None = None
    proxy_host_info: HostDetails | None = None
    cf_proxy_host_info: HostDetails | None = None
    discovery_mode_enabled: bool | None = None
    discovery_url: str | None = None
    use_empty_metadata: bool | None = None
    support_many_parameters: bool | None = None
    ssl_trust_store_type: str | None = None
    check_certificate_revocation: bool | None = None
    accept_undetermined_certificate_revocation: bool | None = None
    google_service_account: str | None = None
    google_credential_file_path: str | None = None
    http_connection_pool_size: int | None = None
    enable_sea_hybrid_results: bool | None = None
    enable_complex_datatype_support: bool | None = None
    allow_self_signed_support: bool | None = None
    use_system_trust_store: bool | None = None
    rows_fetched_per_block: int | None = None
    azure_workspace_resource_id: str | None = None
    azure_tenant_id: str | None = None
    string_column_length: int | None = None
    enable_token_cache: bool | None = None
    token_endpoint: str | None = None
    auth_endpoint: str | None = None
    enable_arrow: bool | None = None
    enable_direct_results: bool | None = None
    enable_jwt_assertion: bool | None = None
    jwt_key_file: str | None = None
    jwt_algorithm: str | None = None
    socket_timeout: int | None = None
    allowed_volume_ingestion_paths: str | None = None
    async_poll_interval_millis: int | None = None
    query_tags: str | None = None
    enable_metric_view_metadata: bool | None = None
    auto_commit: bool | None = None
    fetch_auto_commit_from_server: bool | None = None
    enable_geospatial_support: bool | None = None


class VolumeOperationEvent(_Message, frozen=True):
    """`VolumeOperationEvent` of the wire."""

    volume_operation_type: VolumeOperationType | None = None
    volume_path: str | None = None
    local_file: str | None = None


class ChunkDetails(_Message, frozen=True):
    """`ChunkDetails` of the wire."""

    initial_chunk_latency_millis: int | None = None
    slowest_chunk_latency_millis: int | None = None
    total_chunks_present: int | None = None
    total_chunks_iterated: int | None = None
    sum_chunks_download_time_millis: int | None = None


class ResultLatency(_Message, frozen=True):
    """`ResultLatency` of the wire."""

    result_set_ready_latency_millis: int | None = None
    result_set_consumption_latency_millis: int | None = None


class OperationDetail(_Message, frozen=True):
    """`OperationDetail` of the wire."""

    n_operation_status_calls: int | None = None
    operation_status_latency_millis: int | None = None
    operation_type: OperationType | None = None
    is_internal_call: bool | None = None


class SqlExecutionEvent(_Message, frozen=True):
    """`SqlExecutionEvent` of the wire."""

    statement_type: StatementType | None = None
    is_compressed: bool | None = None
    execution_result: ExecutionResultFormat | None = None
    chunk_id: int | None = None
    retry_count: int | None = None
    chunk_details: ChunkDetails | None = None
    result_latency: ResultLatency | None = None
    operation_detail: OperationDetail | None = None
    java_uses_patched_arrow: bool | None = None


class DriverErrorInfo(_Message, frozen=True):
    """`DriverErrorInfo` of the wire."""

    error_name: str | None = None
    stack_trace: str | None = None


class OssSqlDriverTelemetryLog(_Message, frozen=True):
    """`OssSqlDriverTelemetryLog` of the wire."""

    session_id: str | None = None
    sql_statement_id: str | None = None
    system_configuration: DriverSystemConfiguration | None = None
    driver_connection_params: DriverConnectionParameters | None = None
    auth_type: str | None = None
    vol_operation: VolumeOperationEvent | None = None
    sql_operation: SqlExecutionEvent | None = None
    error_info: DriverErrorInfo | None = None
    operation_latency_ms: int | None = None


class TelemetryClientContext(_Message, frozen=True):
    """When the event was recorded (Unix time in milliseconds), and by which client."""

    timestamp_millis: int | None = None
    user_agent: str | None = None


class FrontendLogContext(_Message, frozen=True):
    """The context of a log: so far the client's alone."""

    client_context: TelemetryClientContext | None = None


class FrontendLogEntry(_Message, frozen=True):
    """The entry of a log: so far the SQL driver's alone."""

    sql_driver_log: OssSqlDriverTelemetryLog | None = None


class TelemetryFrontendLog(_Message, frozen=True):
    """One event as it is queued and sent: the driver's log, its id, and when and where it came from."""

    workspace_id: int | None = None
    frontend_log_event_id: str | None = None
    context: FrontendLogContext | None = None
    entry: FrontendLogEntry | None = None


class TelemetryRequest(Struct, kw_only=True):
    """The body of a request. `protoLogs` holds each `TelemetryFrontendLog` as a string of JSON.

    `uploadTime` is Unix time in milliseconds; `items` is always empty.
    """

    uploadTime: int = 0
    items: list[str] = []
    protoLogs: list[str] = []


class TelemetryResponse(Struct, kw_only=True):
    """The answer: events beyond `numProtoSuccess` were rejected."""

    errors: list[str] = []
    numSuccess: int = 0
    numProtoSuccess: int = 0
    numRealtimeSuccess: int = 0


class FeatureFlag(Struct, kw_only=True):
    """A server's flag; both its name and its value are strings."""

    name: str = ""
    value: str = ""


class FeatureFlagsResponse(Struct, kw_only=True):
    """The answer to a request for feature flags, and for how many seconds it holds."""

    flags: list[FeatureFlag] = []
    ttl_seconds: int = 900
