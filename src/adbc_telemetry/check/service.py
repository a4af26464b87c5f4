"""What the endpoint answers: to a question about flags, and to a test event on the way of all events.

The test event passes a client with its queue and its circuit breaker. The client's exporter keeps the answer.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from adbc_telemetry.check.diagnoses import Diagnosis
from adbc_telemetry.check.findings import Finding, failed, ok, skipped, warning
from adbc_telemetry.check.network import (
    CLOCK_TOLERANCE_SECONDS,
    clock_error,
    printed_clock_error,
    speaks_tls,
)
from adbc_telemetry.check.target import Target
from adbc_telemetry.client import TelemetryClient
from adbc_telemetry.context import StatementTelemetryContext
from adbc_telemetry.core.version import __version__
from adbc_telemetry.events.encoding import LogEncoder, request_body
from adbc_telemetry.events.session import TelemetrySessionContext
from adbc_telemetry.export.base import AbleExporter, ExportOutcome, ExportResult, TelemetryExporter
from adbc_telemetry.export.circuit_breaker import CircuitBreakerManager
from adbc_telemetry.export.databricks import AUTHENTICATED_PATH, UNAUTHENTICATED_PATH
from adbc_telemetry.feature_flags import CLIENT_NAME, TELEMETRY_FLAG
from adbc_telemetry.protocols import ClientStats
from adbc_telemetry.schema import FeatureFlagsResponse, TelemetryFrontendLog, TelemetryResponse
from adbc_telemetry.system import detect_system_configuration
from adbc_telemetry.transport.errors import (
    ExportError,
    HttpStatusError,
    RequestCancelledError,
    UntrustedServerError,
)

APPLICATION: Final = "adbc-telemetry check"
"""The name of the application in the test event, by which it can be told from others."""

_STATUSES: Final = {
    401: Diagnosis.UNAUTHORIZED,
    403: Diagnosis.FORBIDDEN,
    404: Diagnosis.NO_SUCH_ROUTE,
    405: Diagnosis.NO_SUCH_ROUTE,
    407: Diagnosis.PROXY_WANTS_CREDENTIALS,
    429: Diagnosis.RATE_LIMITED,
    503: Diagnosis.UNAVAILABLE,
}
# By the class of urllib3's exception.
_FAILURES: Final = {
    "ReadTimeoutError": Diagnosis.DOES_NOT_ANSWER,
    "ConnectTimeoutError": Diagnosis.DOES_NOT_ANSWER,
    "TimeoutError": Diagnosis.DOES_NOT_ANSWER,
    "ProxyError": Diagnosis.PROXY_FORBIDS,
    "SSLError": Diagnosis.TLS_FAILS,
    "NewConnectionError": Diagnosis.CONNECTION_REFUSED,
}


class _Answered(NamedTuple):
    status: int
    body: bytes
    date: str | None


class Service:
    """The steps that ask the endpoint. A later one reads what an earlier one was answered."""

    def __init__(self) -> None:
        self._flags: _Answered | None = None
        self._seen: bytes | None = None
        self._breaker: str | None = None

    def authentication(self, target: Target) -> Finding:
        """Whether the endpoint accepts the credentials, by asking for flags, which changes nothing."""
        if not target.speaks_the_wire:
            return skipped("the endpoint is no collector and not the service; the test event shows it")
        if target.token and not target.may_send_token:
            return failed(Diagnosis.TOKEN_WOULD_BE_READ, "the token is not sent")
        try:
            self._flags = _ask_for_flags(target)
        except Exception as error:  # noqa: BLE001 - urllib3 raises what its sockets do
            return self._failure(target, type(error).__name__)
        status = self._flags.status
        if status in (401, 403, 407) or 300 <= status < 400:
            return _of_status(status)
        ahead = clock_error(self._flags.date)
        if abs(ahead) > CLOCK_TOLERANCE_SECONDS:
            return warning(Diagnosis.CLOCK_IS_WRONG, f"the clock {printed_clock_error(ahead)}")
        return ok("the token is accepted" if target.token else "without credentials")

    def flags(self, target: Target) -> Finding:
        """What the endpoint's flags say to users who have not decided."""
        if not target.speaks_the_wire:
            return skipped("the endpoint has no flags")
        decided = target.config.consent is not None
        value = _telemetry_flag(self._flags)
        if value is None:
            if decided:
                return ok("none, and none needed: the user has decided")
            return warning(Diagnosis.FLAGS_NOT_READABLE, "the endpoint has no flag for telemetry")
        if value:
            return ok("telemetry is on for users who have not decided")
        if decided:
            return ok("telemetry is off for users who have not decided; this user has")
        return warning(Diagnosis.FLAGS_SAY_NO, "telemetry is off for users who have not decided")

    def event(self, target: Target) -> Finding:
        """Whether a test event gets through. Its application is named `adbc-telemetry check`."""
        if not target.speaks_the_wire:
            return self._event_elsewhere(target)
        probe = _Probe(target)
        self._send(target, probe)
        error = probe.error
        if error is None and probe.body is None:
            return failed(Diagnosis.DOES_NOT_ANSWER, f"no answer within {target.timeout:g} s")
        if isinstance(error, HttpStatusError):
            if error.status == 400 and not target.is_tls and speaks_tls(target):
                return failed(Diagnosis.WANTS_TLS, "the endpoint speaks TLS")
            return _of_status(error.status)
        if isinstance(error, UntrustedServerError):
            return failed(Diagnosis.CERTIFICATE_NOT_ACCEPTED, str(error))
        if isinstance(error, RequestCancelledError):
            return failed(Diagnosis.DOES_NOT_ANSWER, f"no answer within {target.timeout:g} s")
        if error is not None:
            return self._failure(target, str(error))
        self._seen = probe.body
        return ok(f"{len(probe.sent):,} bytes sent to {probe.path}, from the application {APPLICATION!r}")

    def _send(self, target: Target, exporter: TelemetryExporter | None) -> ClientStats:
        """Send a test event through a client."""
        config = dataclasses.replace(target.config, enabled=True, max_retries=0, spool_dir=None)
        with TelemetryClient(target.name, config, exporter=exporter) as client:
            _emit_test_event(client)
            client.flush(target.timeout)
            breaker = CircuitBreakerManager.get_instance().get_circuit_breaker(client.host)
            self._breaker = breaker.state.name.lower()
            return client.stats()

    def _event_elsewhere(self, target: Target) -> Finding:
        """A test event to a file or to an OpenTelemetry collector."""
        stats = self._send(target, None)
        if stats.delivered:
            return ok(f"taken by {target.name}, from the application {APPLICATION!r}")
        reason = stats.last_failure.reason if stats.last_failure else "no answer in time"
        status = re.search(r"HTTP (\d{3})", reason)
        if status:
            return _of_status(int(status[1]))
        if not target.host:
            return failed(Diagnosis.FILE_NOT_WRITABLE, f"{target.name} cannot be written: {reason}")
        return self._failure(target, reason)

    def answer(self, target: Target) -> Finding:
        """Whether the answer says that the event is kept."""
        if not target.speaks_the_wire:
            return skipped("the test event has told it")
        try:
            answer = msgspec.json.decode(self._seen or b"", type=TelemetryResponse)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return failed(Diagnosis.ANSWER_IS_NO_TELEMETRY, "the answer is no telemetry answer")
        if not answer.numProtoSuccess:
            return failed(Diagnosis.EVENT_REFUSED, "the endpoint has kept none of 1 event")
        return ok("the endpoint has kept 1 of 1 event")

    def breaker(self, target: Target) -> Finding:
        """What the circuit breaker makes of it."""
        config = target.config
        if not config.circuit_breaker_enabled:
            return skipped("switched off by the configuration")
        if self._breaker is None:
            return skipped("no event was sent")
        sentence = (
            f"{self._breaker}; it opens after {config.circuit_breaker_threshold} failed exports in a row, for "
            f"{config.circuit_breaker_timeout_ms / 1000:g} s"
        )
        if self._breaker != "closed":
            return warning(Diagnosis.CIRCUIT_OPEN, sentence)
        return ok(sentence)

    def _failure(self, target: Target, name: str) -> Finding:
        diagnosis = _FAILURES.get(name, Diagnosis.BREAKS_OFF)
        if not target.is_tls and diagnosis is Diagnosis.BREAKS_OFF and speaks_tls(target):
            return failed(Diagnosis.WANTS_TLS, "the endpoint speaks TLS")
        return failed(diagnosis, f"no answer: {name}")


def _of_status(status: int) -> Finding:
    if status in _STATUSES:
        diagnosis = _STATUSES[status]
    elif 300 <= status < 400:
        diagnosis = Diagnosis.REDIRECTED
    elif status >= 500:
        diagnosis = Diagnosis.SERVER_FAILS
    else:
        diagnosis = Diagnosis.REFUSES_THE_REQUEST
    return failed(diagnosis, f"the endpoint answers {status}")


class _Probe(AbleExporter):
    """Sends as `DatabricksTelemetryExporter` does, once, and keeps the answer.

    Attributes:
        path: where it has sent to.
        sent: what it has sent.
        body: the answer; None where there is none.
        error: why there is none.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self.path = AUTHENTICATED_PATH if target.token else UNAUTHENTICATED_PATH
        self.sent = b""
        self.body: bytes | None = None
        self.error: ExportError | None = None

    def export(self, logs: Sequence[TelemetryFrontendLog], *, deadline: float | None = None) -> ExportResult:
        from adbc_telemetry.transport.http import HttpTransport

        strings = [string for string in LogEncoder().encode_strings(logs) if string is not None]
        self.sent = request_body(strings, time.time_ns() // 1_000_000)
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "User-Agent": f"adbc-telemetry/{__version__}",
            **self._target.headers(),
        }
        transport = HttpTransport(self._target.host)
        try:
            answer = transport.post(
                self.path, self.sent, headers, timeout=self._target.timeout, deadline=deadline
            )
        except ExportError as error:
            self.error = error
            return ExportResult(ExportOutcome.FAILED, reason=str(error))
        finally:
            transport.close()
        self.body = answer.body or b""
        return ExportResult(ExportOutcome.DELIVERED)

    def close(self) -> None:
        """There is nothing to release."""


def _emit_test_event(client: TelemetryClient) -> None:
    session = TelemetrySessionContext(
        system_configuration=detect_system_configuration(client_app_name=APPLICATION),
        user_agent=f"adbc-telemetry/{__version__}",
        client=client,
    )
    StatementTelemetryContext(session, is_internal_call=True).emit()


def _ask_for_flags(target: Target) -> _Answered:
    import urllib3

    path = f"/api/2.0/connector-service/feature-flags/{CLIENT_NAME}/{__version__}"
    pool = urllib3.PoolManager() if target.proxy is None else _through(target.proxy)
    with pool:
        answer = pool.request(
            "GET",
            f"{target.url}{path}",
            headers={"Accept": "application/json", **target.headers()},
            timeout=target.timeout,
            retries=False,
            redirect=False,
        )
        return _Answered(answer.status, answer.data, answer.headers.get("Date"))


def _through(proxy: str):  # type: ignore[no-untyped-def]
    import urllib3

    from adbc_telemetry.transport.proxies import proxy_credentials

    credentials = proxy_credentials(proxy)
    headers = None if credentials is None else urllib3.make_headers(proxy_basic_auth=credentials)
    return urllib3.ProxyManager(proxy, proxy_headers=headers)


def _telemetry_flag(answered: _Answered | None) -> bool | None:
    """What the flag says; None where there is none."""
    if answered is None or answered.status != 200:
        return None
    try:
        answer = msgspec.json.decode(answered.body, type=FeatureFlagsResponse)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    values = {flag.name.lower(): flag.value for flag in answer.flags if flag.name}
    value = values.get(TELEMETRY_FLAG.lower())
    return None if value is None else value.strip().lower() == "true"
