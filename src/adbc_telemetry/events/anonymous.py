"""Events for the unauthenticated path: without what identifies a workspace, an account or a machine.

Such a request says nothing about who sends it. So its events leave out `workspace_id`, and of the connection's
parameters all that names a host, a path, an account or a file.
"""

from __future__ import annotations

from typing import Any, Final

from msgspec.structs import replace

from adbc_telemetry.events.encoding import LogEncoder, Session, SessionPart
from adbc_telemetry.schema import DriverConnectionParameters, TelemetryFrontendLog

IDENTIFYING_PARAMETERS: Final = (
    "http_path",
    "host_info",
    "non_proxy_hosts",
    "proxy_host_info",
    "cf_proxy_host_info",
    "discovery_url",
    "google_service_account",
    "google_credential_file_path",
    "azure_workspace_resource_id",
    "azure_tenant_id",
    "token_endpoint",
    "auth_endpoint",
    "jwt_key_file",
    "allowed_volume_ingestion_paths",
    "query_tags",
)
"""Fields of `DriverConnectionParameters` that are left out."""

_NOTHING: Final = dict.fromkeys(IDENTIFYING_PARAMETERS)


class AnonymousLogEncoder(LogEncoder):
    """A `LogEncoder` that leaves out what identifies."""

    def encode(self, log: TelemetryFrontendLog) -> bytes:
        """See `LogEncoder.encode`."""
        return super().encode(without_ids(log))

    def _to_wire(self, log: TelemetryFrontendLog) -> Any:
        return super()._to_wire(without_ids(log) if isinstance(log, TelemetryFrontendLog) else log)

    def _session_texts(self, session: Session) -> tuple[bytes, bytes]:
        known = self._sessions.get(id(session))
        if known is not None:
            return known[1]
        texts = super()._session_texts(_Anonymous(session))
        self._remember_session(session, texts)
        return texts


class _Anonymous:
    """A session without what identifies."""

    workspace_id = None

    def __init__(self, session: Session) -> None:
        self._session = session
        self.user_agent = session.user_agent

    def wire_part(self) -> SessionPart:
        part = self._session.wire_part()
        return replace(part, driver_connection_params=_without_ids(part.driver_connection_params))


def without_ids(log: TelemetryFrontendLog) -> TelemetryFrontendLog:
    """A log without what identifies; everything else as it was."""
    entry = log.entry
    sql = None if entry is None else entry.sql_driver_log
    if entry is not None and sql is not None and sql.driver_connection_params is not None:
        kept = _without_ids(sql.driver_connection_params)
        entry = replace(entry, sql_driver_log=replace(sql, driver_connection_params=kept))
    return replace(log, workspace_id=None, entry=entry)


def _without_ids(parameters: DriverConnectionParameters | None) -> DriverConnectionParameters | None:
    if parameters is None or not any(getattr(parameters, name) for name in IDENTIFYING_PARAMETERS):
        return parameters
    return replace(parameters, **_NOTHING)
