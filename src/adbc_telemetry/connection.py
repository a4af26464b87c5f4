"""ConnectionTelemetry: all that a driver needs for the telemetry of one connection, in one call.

    telemetry = ConnectionTelemetry.create(properties, driver_name="tiny", driver_version="1.0", host=host, auth=auth,
                                           opened_in_ms=12.5)
    with telemetry.statement(statement_type=StatementType.QUERY) as statement:
        ...
        statement.record_execute_complete()
    telemetry.close()

It never raises and needs no `if`: with telemetry off, the same calls do nothing. Each part falls back by itself:

    part                        without it
    configuration               a bad setting is the default
    the user's word, flags      off
    the host's client           off: bad host, credentials over plain HTTP, no exporter
    facts about the process     events without them
    connection parameters       events without them

A connection is open or closed. Only the call that closes it emits DELETE_SESSION and gives the lease back.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Collection, Mapping
from time import monotonic_ns
from types import TracebackType
from typing import Any, Final

from msgspec.structs import replace

from adbc_telemetry.config import PROPERTY_PREFIX, TelemetryConfiguration
from adbc_telemetry.consent import Decision, Mode, Voice, decide, users_voices
from adbc_telemetry.context import StatementTelemetryContext
from adbc_telemetry.core.guard import never_raises
from adbc_telemetry.core.ids import new_id
from adbc_telemetry.decision import with_server
from adbc_telemetry.driver_facts.authentication import authentication
from adbc_telemetry.driver_facts.connection_parameters import AllowedField
from adbc_telemetry.driver_facts.connection_parameters import connection_parameters as parameters_of
from adbc_telemetry.events.session import TelemetrySessionContext
from adbc_telemetry.export.base import TelemetryExporter
from adbc_telemetry.flagged import FlaggedClient, FlagState, Lease, NoLease, lease_for
from adbc_telemetry.notice import give_notice
from adbc_telemetry.protocols import NoopTelemetryClient, TelemetryClientProtocol
from adbc_telemetry.schema import (
    DriverConnectionParameters,
    DriverSystemConfiguration,
    ExecutionResultFormat,
    OperationType,
    StatementType,
)
from adbc_telemetry.system import detect_system_configuration, user_agent
from adbc_telemetry.transport.auth import Auth

_LONGEST_MS: Final = 1e15


def _not_readable(error: Exception, parts: _Parts, properties: object) -> None:
    # A no of the user's may be among what cannot be read.
    parts.failure = type(error).__name__


class _Parts:
    """What a connection's telemetry is made of; each part falls back by itself.

    Args:
        properties: of the connection. Only those of telemetry are kept: others may be credentials.
    """

    def __init__(self, properties: object, host: str) -> None:
        self.properties: dict[str, Any] = {}
        self.host = host
        self.voices: list[Voice] = []
        self.failure: str | None = None
        self.errors = 0
        self._read(properties)

    @never_raises(_not_readable)
    def _read(self, properties: object) -> None:
        own = properties if isinstance(properties, Mapping) else {}
        self.properties = {
            key: value
            for key, value in own.items()
            if isinstance(key, str) and key.startswith(PROPERTY_PREFIX)
        }
        self.voices = users_voices(self.properties)

    def explain(self) -> Decision:
        """The decision by now."""
        if self.failure is not None:
            return Decision(
                Mode.OFF, f"off: telemetry could not be set up ({self.failure})", tuple(self.voices)
            )
        # A silent user may have said no in the environment since; see `feature_flags`.
        is_silent = decide(self.voices).user_is_silent
        return with_server(users_voices(self.properties) if is_silent else self.voices, self.host)

    def configuration(self, flags: Mapping[str, str] | None = None) -> TelemetryConfiguration:
        """The settings, with the server's flags behind the user's own."""
        return TelemetryConfiguration.from_properties(self.properties, os.environ, flags=flags)


def _no_lease(error: Exception, parts: _Parts, *_: object) -> Lease:
    parts.failure = type(error).__name__
    return NoLease(NoopTelemetryClient(parts.host))


@never_raises(_no_lease)
def _take_lease(
    parts: _Parts,
    auth: Auth | None,
    exporter: TelemetryExporter | None,
    driver_version: str,
    workspace_id: int | None,
) -> Lease:
    decision = decide(parts.voices)
    if parts.failure is not None or not (decision.enabled or decision.user_is_silent):
        return NoLease(NoopTelemetryClient(parts.host))
    return lease_for(
        parts.host,
        parts.configuration(),
        auth=auth,
        exporter=exporter,
        configure=parts.configuration,
        client_version=driver_version,
        tenant=workspace_id,
    )


def _part_missing(error: Exception, parts: _Parts, *_: object) -> Any:
    parts.errors += 1
    return None


@never_raises(_part_missing)
def _give_notice(parts: _Parts, tell: Callable[[str], object], driver_name: str) -> None:
    give_notice(tell, parts.explain(), driver_name, parts.host)


@never_raises(_part_missing)
def _system_configuration(
    parts: _Parts, driver_name: str, driver_version: str, client_app_name: str | None
) -> DriverSystemConfiguration | None:
    return detect_system_configuration(
        driver_name=driver_name, driver_version=driver_version, client_app_name=client_app_name
    )


@never_raises(_part_missing)
def _connection_parameters(
    parts: _Parts, properties: Mapping[str, Any] | None, allowed: Collection[AllowedField]
) -> DriverConnectionParameters | None:
    """What the properties tell of the connection; None where that is nothing."""
    told = parameters_of(properties, allowed=allowed)
    return None if told == DriverConnectionParameters() else told


@never_raises(_part_missing)
def _auth_type(parts: _Parts, told: DriverConnectionParameters | None) -> str | None:
    """What follows from the mechanism and the flow that are told, so that the three agree."""
    if not isinstance(told, DriverConnectionParameters):
        return None
    return authentication({"auth_mech": told.auth_mech, "auth_flow": told.auth_flow}).auth_type


@never_raises(_part_missing)
def _user_agent(parts: _Parts, driver_name: str, driver_version: str) -> str | None:
    return user_agent(driver_name, driver_version)


def _no_session(error: Exception, parts: _Parts, lease: Lease, **_: object) -> TelemetrySessionContext:
    parts.failure = type(error).__name__
    lease.release_soon()
    return TelemetrySessionContext()


@never_raises(_no_session)
def _session(parts: _Parts, lease: Lease, *, session_id: str | None, **facts: Any) -> TelemetrySessionContext:
    return TelemetrySessionContext(
        session_id=session_id or new_id(),
        client=None if isinstance(lease, NoLease) else lease.client,
        error_categories=True,
        **facts,
    )


def _count_error(error: Exception, telemetry: ConnectionTelemetry, *_: object, **__: object) -> None:
    telemetry.errors += 1


def _not_closed(error: Exception, telemetry: ConnectionTelemetry, *_: object, **__: object) -> bool:
    telemetry.errors += 1
    return False


class ConnectionTelemetry:
    """The telemetry of one connection of a driver: make it by `create`, end it by `close`. Thread-safe, never raises.

    A context manager, also an asynchronous one: leaving the block closes it.

    Since 0.2.

    Attributes:
        errors: how many facts could not be recorded.
    """

    def __init__(self, parts: _Parts, session: TelemetrySessionContext, lease: Lease) -> None:
        self._parts = parts
        self._session = session
        self._lease = lease
        self.errors = parts.errors + session.errors
        # One token: the call that gets it closes. `list.pop` is atomic.
        self._open = [True]

    @classmethod
    def create(
        cls,
        properties: Mapping[str, Any] | None = None,
        *,
        driver_name: str,
        driver_version: str,
        host: str,
        auth: Auth | None = None,
        exporter: TelemetryExporter | None = None,
        session_id: str | None = None,
        opened_in_ms: float | None = None,
        workspace_id: int | None = None,
        auth_type: str | None = None,
        client_app_name: str | None = None,
        default_result_format: ExecutionResultFormat | None = None,
        default_compression_enabled: bool | None = None,
        connection_parameters: DriverConnectionParameters | None = None,
        allowed: Collection[AllowedField] = (),
        notice: Callable[[str], object] | None = None,
    ) -> ConnectionTelemetry:
        """The telemetry of a connection that has just been opened. Emits CREATE_SESSION. Never raises.

        Args:
            properties: of the connection; see `TelemetryConfiguration.from_properties` for those that are read.
            driver_name: the driver, as it calls itself.
            driver_version: its version.
            host: where events go and flags come from: a host or an http(s) URL.
            auth: returns the headers that authenticate a request; called on the sender's side, for every request.
            exporter: where events go instead of to the service of `host`.
            session_id: ties the connection's events together; by default a new UUID.
            opened_in_ms: how long connecting took, until now, in milliseconds; 0 by default. It is the latency of
                CREATE_SESSION.
            workspace_id: the Databricks workspace. Workspaces that share a host do not share credentials.
            auth_type: how the connection authenticates, as the driver calls it; never a credential.
            client_app_name: the application, as its author calls it.
            default_result_format: of statements that do not say their own.
            default_compression_enabled: whether results come compressed, of statements that do not say.
            connection_parameters: the connection's settings that may be told; by default what `properties` tell.
            allowed: fields with a text of the user's, such as a host's, that the driver's author allows to be told.
                Which properties tell what: see `driver_facts.connection_parameters`.
            notice: shows a text to the user, such as `print`. It is called once per driver and process, before the
                first byte is sent or asked for, and only if something may be sent; see `notice`.

        Returns:
            The connection's telemetry, which does nothing where it is off.
        """
        parts = _Parts(properties, host)
        if notice is not None:
            _give_notice(parts, notice, driver_name)
        lease = _take_lease(parts, auth, exporter, driver_version, workspace_id)
        is_off = isinstance(lease, NoLease)
        if connection_parameters is None and not is_off:
            connection_parameters = _connection_parameters(parts, properties, allowed)
        session = _session(
            parts,
            lease,
            session_id=session_id,
            workspace_id=workspace_id,
            auth_type=_auth_type(parts, connection_parameters) if auth_type is None else auth_type,
            system_configuration=None
            if is_off
            else _system_configuration(parts, driver_name, driver_version, client_app_name),
            driver_connection_params=connection_parameters,
            default_result_format=default_result_format,
            default_compression_enabled=default_compression_enabled,
            user_agent=None if is_off else _user_agent(parts, driver_name, driver_version),
        )
        telemetry = cls(parts, session, NoLease(NoopTelemetryClient(host)) if parts.failure else lease)
        telemetry.record_operation(OperationType.CREATE_SESSION, 0 if opened_in_ms is None else opened_in_ms)
        return telemetry

    @property
    def enabled(self) -> bool:
        """Whether events are sent, or kept on this machine, by now. While the flags are not known, it is False."""
        lease = self._lease
        if isinstance(lease, FlaggedClient):
            return lease.state is FlagState.ON
        return bool(self._open) and not isinstance(lease, NoLease)

    @property
    def session(self) -> TelemetrySessionContext:
        """What all events of the connection share. After `close` it has no client."""
        return self._session

    @property
    def client(self) -> TelemetryClientProtocol:
        """Where the events go; with telemetry off, a `NoopTelemetryClient`."""
        return self._lease.client

    def explain(self) -> Decision:
        """Whether telemetry is on by now, and who decided it; see `explain` of this package."""
        return self._parts.explain()

    def statement(
        self,
        *,
        statement_type: StatementType | None = None,
        operation_type: OperationType | None = OperationType.EXECUTE_STATEMENT,
        result_format: ExecutionResultFormat | None = None,
        is_internal_call: bool = False,
    ) -> StatementTelemetryContext:
        """A statement that begins now: a context manager, an asynchronous one, and a decorator.

        Args:
            statement_type: as of `StatementTelemetryContext`, as are the others.
            operation_type: by default an execution.
            result_format: by default that of the session.
            is_internal_call: made by the driver itself and not for the user.

        Returns:
            The statement's context, whose time has begun.
        """
        return StatementTelemetryContext(
            self._session,
            statement_type=statement_type,
            operation_type=operation_type,
            result_format=result_format,
            is_internal_call=is_internal_call,
        )

    @never_raises(_count_error)
    def record_operation(
        self,
        operation_type: OperationType,
        elapsed_ms: float,
        *,
        statement_type: StatementType | None = None,
        error: BaseException | None = None,
    ) -> None:
        """An operation that is over and was timed elsewhere.

        Args:
            operation_type: which one.
            elapsed_ms: how long it took, in milliseconds, until now. An operation with a time that is none is still
                recorded, without it, and counted in `errors`.
            statement_type: of the statement, if it was about one.
            error: what it failed with, if it did.
        """
        statement = self.statement(statement_type=statement_type, operation_type=operation_type)
        if error is not None:
            statement.record_error(error)
        elapsed = self._elapsed(elapsed_ms)
        statement._start_ns = monotonic_ns() - elapsed
        statement.emit()

    def _elapsed(self, elapsed_ms: object) -> int:
        """Milliseconds as nanoseconds; 0 if they make no sense."""
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            elapsed = float(elapsed_ms)  # type: ignore[arg-type]
            if 0 <= elapsed < _LONGEST_MS:
                return int(elapsed * 1_000_000)
        self.errors += 1
        return 0

    @never_raises(_not_closed)
    def close(self, timeout: float | None = None, *, closed_in_ms: float = 0) -> bool:
        """The connection is closed: emit DELETE_SESSION, deliver what there is, give the lease back. Idempotent.

        Args:
            timeout: seconds that delivery may take; None for `close_timeout_ms`. Only the host's last connection waits.
            closed_in_ms: how long closing took, in milliseconds. It is the latency of DELETE_SESSION.

        Returns:
            True when nothing was lost for want of time, and for every call but the first.
        """
        if self._take_leave(closed_in_ms):
            return True
        lease = self._lease
        try:
            return lease.release(timeout)
        finally:
            self._lease = NoLease(lease.client)

    async def aclose(self, timeout: float | None = None, *, closed_in_ms: float = 0) -> bool:
        """`close` for asyncio, with the same `timeout` and `closed_in_ms`: the loop is never blocked."""
        from adbc_telemetry.pipeline.asyncio_support import value_from_thread

        lease = self._lease
        if isinstance(lease, NoLease):
            return self.close(timeout)
        if isinstance(lease, FlaggedClient):
            try:
                timeout = await lease.asettle(timeout)
            except BaseException:  # cancelled: it closes all the same
                self._dropped()
                raise
        return await value_from_thread(
            lambda: self.close(timeout, closed_in_ms=closed_in_ms),
            "adbc-telemetry-close",
            without_thread=lambda: self.close(0, closed_in_ms=closed_in_ms),
        )

    def _take_leave(self, closed_in_ms: float) -> bool:
        """Emit DELETE_SESSION and take no more events; True if an earlier call has done so."""
        try:
            self._open.pop()
        except IndexError:
            return True
        self.record_operation(OperationType.DELETE_SESSION, closed_in_ms)
        self._session = replace(self._session, client=None)
        return False

    @never_raises(_count_error)
    def _dropped(self) -> None:
        if not (sys.is_finalizing() or self._take_leave(0)):
            self._lease.release_soon()

    def __del__(self) -> None:
        # The driver has let go of it without a close. A destructor must not wait.
        if getattr(self, "_open", None):
            self._dropped()

    def __enter__(self) -> ConnectionTelemetry:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> ConnectionTelemetry:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
