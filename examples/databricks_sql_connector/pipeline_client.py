"""The telemetry of `databricks-sql-connector`, delivered by this package's pipeline. The connector stays as it is.

    import databricks.sql
    from pipeline_client import attach

    attach()
    connection = databricks.sql.connect(...)

The connector asks `TelemetryClientFactory` for the client of a host, and tells it of a session's beginning, of each
call's latency and of each failure. `attach` puts functions of the same signatures in the factory's place. What the
connector decides stays its decision: whether telemetry is on, and how many events make a batch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Collection
from enum import Enum
from typing import Any, Final
from urllib.parse import urlsplit

from databricks.sql import __version__, exc
from databricks.sql.telemetry.models.enums import ExecutionResultFormat as TheirFormat
from databricks.sql.telemetry.models.enums import StatementType as TheirType
from databricks.sql.telemetry.telemetry_client import NoopTelemetryClient, TelemetryClientFactory
from databricks.sql.telemetry.utils import BaseTelemetryClient

from adbc_telemetry import (
    ClientStats,
    StatementTelemetryContext,
    TelemetryClientLease,
    TelemetryClientManager,
    TelemetryConfiguration,
    TelemetrySessionContext,
)
from adbc_telemetry.driver_facts.authentication import authentication
from adbc_telemetry.driver_facts.connection_parameters import AllowedField, connection_parameters
from adbc_telemetry.schema import ExecutionResultFormat, HostDetails, OperationType, StatementType
from adbc_telemetry.system import detect_system_configuration

_TYPES: Final = {each: StatementType.__members__.get(each.name) for each in TheirType}
_FORMATS: Final = {each: ExecutionResultFormat[each.name] for each in TheirFormat}
# Of what the connector times, a query is always an `execute`; its interface tells no more of the others.
_OPERATIONS: Final = {TheirType.QUERY: OperationType.EXECUTE_STATEMENT}
_NO_SESSION: Final = TelemetrySessionContext()
_MOST_SESSIONS: Final = 1_000


class PipelineTelemetryClient(BaseTelemetryClient):  # type: ignore[misc]  # the connector brings no types
    """The client of a host, by the connector's interface: one lease per connection, one context per session.

    The connector's own client keeps the parameters of the newest connection for all events. Here each event has those
    of the session that it names.
    """

    def __init__(self, allowed: Collection[AllowedField]) -> None:
        self.leases: list[TelemetryClientLease] = []
        self._allowed = allowed
        self._sessions: dict[str | None, TelemetrySessionContext] = {}
        self._newest = _NO_SESSION
        self._system = detect_system_configuration(
            driver_name="Databricks SQL Python Connector", driver_version=__version__
        )

    def begin_session(self, session_id: str | None, told: dict[str, Any], user_agent: str | None) -> None:
        """Remember what the events of a session share."""
        leases = tuple(self.leases)
        self._newest = self._sessions[session_id] = TelemetrySessionContext(
            session_id=session_id,
            auth_type=authentication(told).auth_type,
            system_configuration=self._system,
            driver_connection_params=connection_parameters(told, allowed=self._allowed),
            client=leases[-1].client if leases else None,
            user_agent=user_agent,
            error_categories=True,
        )
        # The interface does not say which session ends. A pool may open any number of them.
        while len(self._sessions) > _MOST_SESSIONS:
            self._sessions.pop(next(iter(self._sessions)), None)

    def export_initial_telemetry_log(
        self, driver_connection_params: Any, user_agent: str | None, session_id: str | None = None
    ) -> None:
        """A session is open."""
        self.begin_session(session_id, _settings(driver_connection_params), user_agent)
        StatementTelemetryContext(self._newest, operation_type=OperationType.CREATE_SESSION).emit()

    def export_latency_log(
        self,
        latency_ms: int,
        sql_execution_event: Any,
        sql_statement_id: str | None,
        session_id: str | None = None,
    ) -> None:
        """A call is over. Everything but these few lines is done by the sender, on a thread of its own."""
        event, kind = sql_execution_event, sql_execution_event.statement_type
        statement = StatementTelemetryContext(
            self._sessions.get(session_id, self._newest),
            statement_type=_TYPES.get(kind),
            operation_type=_OPERATIONS.get(kind),
            result_format=_FORMATS.get(event.execution_result),
        )
        statement.statement_id = sql_statement_id  # None says that there is none
        statement.is_compressed = event.is_compressed
        statement.retry_count = event.retry_count
        statement.chunk_id = event.chunk_id
        if event.chunk_details is not None:
            told = dataclasses.asdict(event.chunk_details)
            statement.set_chunk_details(**{name.replace("_millis", "_ms"): told[name] for name in told})
        statement.began_before(latency_ms)
        statement.emit()

    def export_failure_log(self, error_name: str, error_message: str, session_id: str | None = None) -> None:
        """An error was made. Its message stays here; its class tells its category."""
        kind: Any = getattr(exc, error_name, None) or type(error_name, (Exception,), {})
        statement = StatementTelemetryContext(self._sessions.get(session_id, self._newest))
        statement.statement_id = None
        statement.record_error(kind.__new__(kind))  # `__init__` would report the error once more
        statement.emit()

    def stats(self) -> ClientStats | None:
        """Where each event of the host has got to; None before its first session."""
        client = self._newest.client
        return None if client is None else client.stats()

    def close(self) -> None:
        """A connection is closed. The last one of the host waits for delivery, within `close_timeout_ms`."""
        with contextlib.suppress(IndexError):
            self.leases.pop().release()


def _settings(parameters: Any) -> dict[str, Any]:
    """The connector's dataclass as properties by the wire's names."""
    names = (field.name for field in dataclasses.fields(parameters))
    values = {name: value for name in names if (value := getattr(parameters, name)) is not None}
    for name, value in values.items():
        if dataclasses.is_dataclass(value):  # a host
            values[name] = HostDetails(host_url=value.host_url, port=value.port)  # type: ignore[union-attr]
        elif isinstance(value, Enum):
            values[name] = value.name
    return values


def attach(
    config: TelemetryConfiguration | None = None, *, allowed: Collection[AllowedField] = ()
) -> Callable[[], None]:
    """Put the pipeline under the connector, for connections that are opened from now on.

    Args:
        config: beats what the connector and the environment say.
        allowed: texts of the user's that may be told; see `connection_parameters`.

    Returns:
        A function that puts the connector's own client back.
    """
    clients: dict[str, PipelineTelemetryClient] = {}
    # Guards `clients`; not held while anything is sent. Reentrant: the garbage collector may close a connection in it.
    lock = threading.RLock()

    def initialize(
        telemetry_enabled: bool,
        session_id_hex: str | None,
        auth_provider: Any,
        host_url: str,
        batch_size: int,
        client_context: Any,
        extra_headers: dict[str, str] | None = None,
    ) -> None:
        def auth() -> dict[str, str]:
            headers = dict(extra_headers or {})
            auth_provider.add_headers(headers)
            return headers

        if not telemetry_enabled:
            return
        told = {"adbc.databricks.telemetry.enabled": True, "adbc.databricks.telemetry.batch_size": batch_size}
        with contextlib.suppress(TypeError, ValueError):  # a host that is none: no telemetry, and no error
            lease = TelemetryClientManager.get_instance().acquire(
                _endpoint(host_url),
                config or TelemetryConfiguration.from_properties(told),
                auth=None if auth_provider is None else auth,
            )
            with lock:
                clients.setdefault(host_url, PipelineTelemetryClient(allowed)).leases.append(lease)

    def get(host_url: str) -> BaseTelemetryClient:
        return clients.get(host_url) or NoopTelemetryClient()

    def close(host_url: str) -> None:
        client = clients.get(host_url)
        if client is not None:
            client.close()
            with lock:
                if not client.leases and clients.get(host_url) is client:
                    del clients[host_url]

    def fail_to_connect(
        error_name: str,
        error_message: str,
        host_url: str,
        http_path: str,
        port: int,
        client_context: Any,
        user_agent: str | None = None,
        enable_telemetry: bool = True,
    ) -> None:
        initialize(enable_telemetry, None, None, host_url, 100, client_context)
        client = clients.get(host_url)
        if enable_telemetry and client is not None:
            hosts = HostDetails(host_url=host_url, port=port)
            client.begin_session(None, {"http_path": http_path, "host_info": hosts}, user_agent)
            client.export_failure_log(error_name, error_message)
            with contextlib.suppress(IndexError):
                client.leases.pop().release_soon()  # the program has a failure to deal with, and does not wait

    put: dict[str, Callable[..., Any]] = {
        "initialize_telemetry_client": initialize,
        "get_telemetry_client": get,
        "close": close,
        "connection_failure_log": fail_to_connect,
    }
    own = {name: vars(TelemetryClientFactory)[name] for name in put}
    for name, function in put.items():
        setattr(TelemetryClientFactory, name, staticmethod(function))

    def detach() -> None:
        for name, function in own.items():
            setattr(TelemetryClientFactory, name, function)

    return detach


def _endpoint(host_url: str) -> str:
    """A host as the connector takes it, without what stands behind it in a browser's address."""
    parts = urlsplit(host_url if "//" in host_url else f"https://{host_url}")
    return f"{parts.scheme}://{parts.netloc}"
