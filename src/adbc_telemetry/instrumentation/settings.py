"""Where the events of a connection go and what they say about it: the arguments of `instrument`, settled."""

from __future__ import annotations

import dataclasses
import os
from typing import Any, Final

from adbc_telemetry.config import TelemetryConfiguration, checked_config
from adbc_telemetry.consent import Mode, argument_voice, decide, users_voices
from adbc_telemetry.core.guard import never_raises
from adbc_telemetry.core.ids import new_id
from adbc_telemetry.events.session import TelemetrySessionContext
from adbc_telemetry.export.base import TelemetryExporter, checked_exporter
from adbc_telemetry.export.endpoints import checked_endpoint
from adbc_telemetry.flagged import lease_for
from adbc_telemetry.instrumentation import adbc, pep249
from adbc_telemetry.instrumentation.driver_info import Facts, facts_of_adbc, facts_of_pep249
from adbc_telemetry.instrumentation.proxies import is_proxy
from adbc_telemetry.instrumentation.session_recorder import SessionRecorder
from adbc_telemetry.schema import ExecutionResultFormat
from adbc_telemetry.system import detect_system_configuration, user_agent
from adbc_telemetry.transport.auth import Auth

ENDPOINT_VARIABLE: Final = "ADBC_TELEMETRY_ENDPOINT"
_NOWHERE: Final = (
    "http://localhost"  # stands for the host where an exporter of the caller's own takes the events
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How to instrument a connection. The endpoint is normalised. The user has said yes, or the flags decide."""

    endpoint: str
    config: TelemetryConfiguration
    auth: Auth | None = dataclasses.field(default=None, repr=False)
    exporter: TelemetryExporter | None = None
    workspace_id: int | None = None
    auth_type: str | None = None
    client_app_name: str | None = None

    @never_raises(lambda error, settings, connection, *_: connection)
    def follow(self, connection: Any, session_id: str | None = None) -> Any:
        """Instrument an open connection that is not instrumented yet; leave any other as it is.

        Returns:
            What the program is to use: the connection itself, or the proxy of one that is not ADBC's.
        """
        if adbc.is_adbc_connection(connection):
            raw = adbc.itself(connection)
            if adbc.is_closed(raw):
                return connection
            recorder = adbc.recorder_of(raw)
            if recorder is None:
                adbc.follow(raw, lambda: self._start_session(facts_of_adbc(raw), session_id))
            elif recorder.session is None:  # it is observed already; see `observers`
                recorder.take_session(self._start_session(facts_of_adbc(raw), session_id))
            return connection
        recorder = pep249.recorder_of(connection)
        if recorder is not None and recorder.session is None:
            recorder.take_session(self._start_session(facts_of_pep249(connection.__wrapped__), session_id))
        if is_proxy(connection) or pep249.is_closed(connection):
            return connection
        return pep249.follow(connection, lambda: self._start_session(facts_of_pep249(connection), session_id))

    def _start_session(self, facts: Facts, session_id: str | None) -> SessionRecorder:
        system_configuration = detect_system_configuration(
            driver_name=facts.driver_name,
            driver_version=facts.driver_version,
            client_app_name=self.client_app_name,
        )
        lease = lease_for(self.endpoint, self.config, auth=self.auth, exporter=self.exporter)
        session = TelemetrySessionContext(
            session_id=session_id or new_id(),
            workspace_id=self.workspace_id,
            auth_type=facts.auth_type if self.auth_type is None else self.auth_type,
            system_configuration=system_configuration,
            driver_connection_params=facts.parameters,
            client=lease.client,
            user_agent=user_agent(facts.driver_name, facts.driver_version),
        )
        result_format = ExecutionResultFormat.INLINE_ARROW if facts.parameters.enable_arrow else None
        return SessionRecorder(session, lease, self.follow, result_format)


def resolve(
    endpoint: str | None,
    *,
    auth: Auth | None,
    config: TelemetryConfiguration | None,
    exporter: TelemetryExporter | None,
    **facts: Any,
) -> Settings | None:
    """The settings that these arguments and the environment come to; None where nothing is to be recorded.

    Raises:
        TypeError, ValueError: for arguments that make no sense. An endpoint in the environment is no argument, and
            counts as absent if it makes no sense.
    """
    if config is None:
        config = TelemetryConfiguration.from_properties()
        voice = argument_voice("a call without a configuration", enabled=True)
    elif isinstance(config, TelemetryConfiguration):
        voice = config.voice()
    else:
        raise TypeError(f"config must be a TelemetryConfiguration, not {type(config).__name__}")
    decision = decide([*users_voices(), voice])
    if not (decision.enabled or decision.user_is_silent):
        return None
    checked_config(config)
    if exporter is not None:
        checked_exporter(exporter)
    if endpoint is not None:
        host: str | None = checked_endpoint(endpoint, auth, own_exporter=exporter is not None)
    else:
        # What stays on this machine needs no endpoint; and without one there are no flags to ask.
        nowhere = decision.mode is Mode.LOCAL or (decision.enabled and exporter is not None)
        host = _endpoint_of_the_environment(auth, exporter) or (_NOWHERE if nowhere else None)
    if host is None:
        return None
    if decision.enabled:
        config = dataclasses.replace(config, enabled=True)
    return Settings(endpoint=host, config=config, auth=auth, exporter=exporter, **facts)


def _no_endpoint(error: Exception, *_: object) -> str | None:
    return None


@never_raises(_no_endpoint)
def _endpoint_of_the_environment(auth: Auth | None, exporter: TelemetryExporter | None) -> str | None:
    endpoint = os.environ.get(ENDPOINT_VARIABLE, "").strip()
    return checked_endpoint(endpoint, auth, own_exporter=exporter is not None) if endpoint else None
