"""Session contexts: what all events of a connection share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import force_setattr

from adbc_telemetry.events.encoding import SessionPart
from adbc_telemetry.events.handover import Receive, receiver_of
from adbc_telemetry.events.wire_types import as_flag, as_member, as_message, as_text, as_whole
from adbc_telemetry.protocols import TelemetryClientProtocol
from adbc_telemetry.schema import (
    DriverConnectionParameters,
    DriverSystemConfiguration,
    ExecutionResultFormat,
)


class TelemetrySessionContext(Struct, frozen=True, kw_only=True):
    """What all events of a connection share. Immutable, so that it is encoded once and not once an event.

    A value that the wire has no type for is left out of the events.

    Since 0.1.

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
        error_categories: whether a failed statement also tells the category of its error, one word of the fixed list
            `ErrorCategory`. The wire has no place for it but `stack_trace`, which is otherwise never sent.
        errors: how many of these are left out, or not told whole, since they are none of the wire's types.
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
    error_categories: bool = False
    errors: int = 0
    _receive: Receive | None = None  # see `handover.receiver_of`

    def __post_init__(self) -> None:
        force_setattr(self, "_receive", receiver_of(self.client))
        errors = 0
        for name, read in _READERS.items():
            told = getattr(self, name)
            if told is not None and (kept := read(told)) is not told:
                force_setattr(self, name, kept)
                errors += 1
        force_setattr(self, "errors", errors)

    def wire_part(self) -> SessionPart:
        """See `encoding.Session`."""
        return SessionPart(
            self.session_id, self.system_configuration, self.driver_connection_params, self.auth_type
        )


_READERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "session_id": as_text,
    "workspace_id": as_whole,
    "auth_type": as_text,
    "system_configuration": partial(as_message, DriverSystemConfiguration),
    "driver_connection_params": partial(as_message, DriverConnectionParameters),
    "default_result_format": partial(as_member, ExecutionResultFormat),
    "default_compression_enabled": as_flag,
    "user_agent": as_text,
    "error_categories": as_flag,
}
