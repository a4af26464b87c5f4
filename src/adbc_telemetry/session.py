"""Session contexts: what all events of a connection share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct
from msgspec.structs import force_setattr

from adbc_telemetry.encoding import SessionPart
from adbc_telemetry.protocols import TelemetryClientProtocol
from adbc_telemetry.schema import (
    DriverConnectionParameters,
    DriverSystemConfiguration,
    ExecutionResultFormat,
)


class TelemetrySessionContext(Struct, frozen=True, kw_only=True):
    """What all events of a connection share. Immutable, so that it is encoded once and not once an event.

    Attributes:
        session_id: ties the events of a connection together.
        workspace_id: the Databricks workspace, where there is one (int64).
        auth_type: how the connection authenticates, in the driver's own words; never a credential.
        system_configuration: the process; see `adbc_telemetry.system`.
        driver_connection_params: the connection's settings that may be told.
        default_result_format: of statements that do not say their own.
        default_compression_enabled: whether results come compressed, of statements that do not say.
        client: where events go; without one, `emit` does nothing.
        user_agent: the driver and its version, as it calls itself over HTTP.
    """

    session_id: str | None = None
    workspace_id: int | None = None
    auth_type: str | None = None
    system_configuration: DriverSystemConfiguration | None = None
    driver_connection_params: DriverConnectionParameters | None = None
    default_result_format: ExecutionResultFormat | None = None
    default_compression_enabled: bool | None = None
    client: TelemetryClientProtocol | None = None
    user_agent: str | None = None
    # What takes statements in their logs' place, for a client of ours; None where the client is to get logs.
    _take_statement: Callable[[Any], None] | None = None

    def __post_init__(self) -> None:
        force_setattr(self, "_take_statement", _statement_taker_of(self.client))

    def wire_part(self) -> SessionPart:
        """See `encoding.Session`."""
        return SessionPart(
            self.session_id, self.system_configuration, self.driver_connection_params, self.auth_type
        )


_client_class: type[Any] | None = None
_enqueue: object = None


def hand_over_statements_to(client_class: type[Any]) -> None:
    """Tell that `enqueue` of this class takes statements as they are; `statement.logs_of` makes logs of them."""
    global _client_class, _enqueue
    _client_class, _enqueue = client_class, client_class.enqueue


def _statement_taker_of(client: Any) -> Callable[[Any], None] | None:
    if type(client) is not _client_class:
        return None
    enqueue: Any = client.enqueue
    # And not what somebody has put in its place, who is to see logs.
    return enqueue if getattr(enqueue, "__func__", None) is _enqueue else None
