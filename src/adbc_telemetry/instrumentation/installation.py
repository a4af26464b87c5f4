"""`instrument` records one connection; `install` records every ADBC connection of the process, until `uninstall`."""

from __future__ import annotations

from typing import TypeVar

from adbc_telemetry.config import TelemetryConfiguration
from adbc_telemetry.core.native import Lock
from adbc_telemetry.export.base import TelemetryExporter
from adbc_telemetry.instrumentation import adbc, pep249
from adbc_telemetry.instrumentation.new_connections import add_follower, remove_follower
from adbc_telemetry.instrumentation.settings import Settings, resolve
from adbc_telemetry.transport.auth import Auth

Connection = TypeVar("Connection")

_lock = Lock()  # guards _installed
_installed: Settings | None = None


def instrument(
    connection: Connection,
    endpoint: str | None = None,
    *,
    auth: Auth | None = None,
    config: TelemetryConfiguration | None = None,
    exporter: TelemetryExporter | None = None,
    session_id: str | None = None,
    workspace_id: int | None = None,
    auth_type: str | None = None,
    client_app_name: str | None = None,
) -> Connection:
    """Record what `connection` does from now on: an event for each operation, until it is closed.

    Everything else stays as it was: results, exceptions, warnings, `isinstance`. Cursors that exist already are
    not followed. To instrument what this has returned is to instrument it once.

    Since 0.1.

    Args:
        connection: a DBAPI connection, of ADBC or of any other driver that follows PEP 249.
        endpoint: where events go, a host or a URL. A host without a scheme means HTTPS, and plain HTTP where it is
            this machine: `127.0.0.1:8317`. By default the environment's `ADBC_TELEMETRY_ENDPOINT`;
            without either nothing is done, unless there is an `exporter`.
        auth: returns the headers that authenticate a request.
        config: settings; by default those of the environment, with telemetry enabled. If neither these nor the
            environment say yes or no, the flags of the endpoint's host decide; see `flagged`.
        exporter: where events go instead of to the service.
        session_id: ties the connection's events together; by default a new UUID.
        workspace_id: the Databricks workspace.
        auth_type: how the connection authenticates, as its driver calls it; never a credential.
        client_app_name: the application.

    Returns:
        An ADBC connection itself; for any other a proxy that stands for it, whose operations alone are
        recorded, and which has it as `__wrapped__`. The connection itself, untouched, where telemetry is
        disabled, the user has opted out, or the connection is closed.

    Raises:
        TypeError: this is no DBAPI connection, or one of asyncio's, or another argument is of the wrong type.
        ValueError: `endpoint` or `config` makes no sense, or `auth` would travel unencrypted.
    """
    settings = resolve(
        endpoint,
        auth=auth,
        config=config,
        exporter=exporter,
        workspace_id=workspace_id,
        auth_type=auth_type,
        client_app_name=client_app_name,
    )
    if settings is None:
        return connection
    if not (adbc.is_adbc_connection(connection) or pep249.is_pep249_connection(connection)):
        kind = type(connection)
        raise TypeError(
            "only DBAPI connections, of ADBC or another driver of PEP 249, can be instrumented, "
            f"not {kind.__module__}.{kind.__qualname__}"
        )
    followed: Connection = settings.follow(connection, session_id)
    return followed


def install(
    endpoint: str | None = None,
    *,
    auth: Auth | None = None,
    config: TelemetryConfiguration | None = None,
    exporter: TelemetryExporter | None = None,
) -> None:
    """Instrument every ADBC connection that any code in this process opens from now on.

    Imports `adbc_driver_manager.dbapi`, and does nothing where that is not installed, where no endpoint is
    known or where telemetry is disabled. A second call replaces the settings of the first.

    Since 0.1.

    Args:
        endpoint: as of `instrument`.
        auth: as of `instrument`.
        config: as of `instrument`.
        exporter: as of `instrument`.

    Raises:
        TypeError, ValueError: as of `instrument`.
    """
    global _installed
    settings = resolve(endpoint, auth=auth, config=config, exporter=exporter)
    if settings is None or not add_follower(settings.follow):
        return
    with _lock:
        before, _installed = _installed, settings
    if before is not None:
        remove_follower(before.follow)


def uninstall() -> None:
    """Undo `install`. Connections that are instrumented remain so until they are closed.

    Since 0.1.
    """
    global _installed
    with _lock:
        before, _installed = _installed, None
    if before is not None:
        remove_follower(before.follow)
