"""The way to the endpoint: proxy, name, connection, TLS. Plain sockets, so that each step fails by itself."""

from __future__ import annotations

import contextlib
import errno
import http.client
import socket
import ssl
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any, Final

from adbc_telemetry.check.diagnoses import Diagnosis
from adbc_telemetry.check.findings import Finding, failed, ok, skipped
from adbc_telemetry.check.target import Target, host_and_port, without_credentials
from adbc_telemetry.core.hosts import is_loopback
from adbc_telemetry.transport.proxies import proxy_credentials, proxy_for
from adbc_telemetry.transport.resolver import Resolution

_NO_NETWORK: Final = "a file needs no network"
_REFUSED: Final = frozenset({errno.ECONNREFUSED, errno.ECONNRESET})
CLOCK_TOLERANCE_SECONDS: Final = 300.0
"""Tokens and certificates bear a clock that is wrong by so much."""

# OpenSSL's numbers (x509_vfy.h) for why a certificate is not accepted.
_CERTIFICATES: Final = {
    9: Diagnosis.CERTIFICATE_NOT_YET_VALID,
    10: Diagnosis.CERTIFICATE_EXPIRED,
    18: Diagnosis.CERTIFICATE_SELF_SIGNED,
    19: Diagnosis.CERTIFICATE_ISSUER_UNKNOWN,
    20: Diagnosis.CERTIFICATE_ISSUER_UNKNOWN,
    21: Diagnosis.CERTIFICATE_ISSUER_UNKNOWN,
    62: Diagnosis.CERTIFICATE_OF_ANOTHER_HOST,
    64: Diagnosis.CERTIFICATE_OF_ANOTHER_HOST,
}
_OF_TIME: Final = frozenset({Diagnosis.CERTIFICATE_EXPIRED, Diagnosis.CERTIFICATE_NOT_YET_VALID})
# What OpenSSL says when the other side answers with something that is not TLS.
_NO_TLS: Final = frozenset(
    {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "RECORD_LAYER_FAILURE"}
)


def proxy(target: Target) -> Finding:
    """Which proxy the environment names for the endpoint, if any."""
    if not target.host:
        return skipped(_NO_NETWORK)
    target.proxy = proxy_for(target.url)
    try:
        target.address = host_and_port(target.proxy or target.url)
    except ValueError:
        return failed(Diagnosis.PROXY_UNKNOWN, "the proxy's port is none")
    if target.proxy is not None:
        return ok(f"through {without_credentials(target.proxy)}")
    if is_loopback(target.host):
        return ok("none; this machine is always reached directly")
    return ok("none")


def name(target: Target) -> Finding:
    """Whether the name can be resolved: the proxy's, where there is one, since it resolves the endpoint's."""
    if not target.host:
        return skipped(_NO_NETWORK)
    host, port = target.address
    try:
        addresses = Resolution(host, port).wait(target.deadline())
    except TimeoutError:
        return failed(Diagnosis.RESOLVER_DOES_NOT_ANSWER, f"{host} was not resolved in {target.timeout:g} s")
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            return failed(Diagnosis.RESOLVER_DOES_NOT_ANSWER, f"{host} cannot be resolved at the moment")
        unknown = Diagnosis.PROXY_UNKNOWN if target.proxy else Diagnosis.UNKNOWN_HOST
        return failed(unknown, f"{host} is not known")
    except OSError as error:
        return failed(Diagnosis.RESOLVER_DOES_NOT_ANSWER, f"{host}: {type(error).__name__}")
    found = sorted({str(where[0]) for *_, where in addresses})
    return ok(f"{host} is {', '.join(found[:4])}")


def connection(target: Target) -> Finding:
    """Whether the endpoint takes a connection, through the proxy where there is one."""
    if not target.host:
        return skipped(_NO_NETWORK)
    try:
        with _connected(target):
            where = "the endpoint" if target.proxy is None else "the endpoint, through the proxy"
            return ok(f"connected to {where} at {_printed(target.address)}")
    except _ProxyError as error:
        return failed(error.diagnosis, str(error))
    except TimeoutError:
        return failed(Diagnosis.CONNECTION_TIMES_OUT, f"{_printed(target.address)} does not answer")
    except OSError as error:
        return _explain(target, error)


def _explain(target: Target, error: OSError) -> Finding:
    place = _printed(target.address)
    if target.proxy is not None:
        return failed(Diagnosis.PROXY_REFUSES_CONNECTION, f"{place} takes no connection")
    if error.errno in _REFUSED:
        return failed(Diagnosis.CONNECTION_REFUSED, f"{place} refuses the connection")
    return failed(Diagnosis.HOST_UNREACHABLE, f"{place}: {error.strerror or type(error).__name__}")


def tls(target: Target) -> Finding:
    """Whether the endpoint's certificate is accepted."""
    if not target.host:
        return skipped(_NO_NETWORK)
    if not target.is_tls:
        return skipped("plain HTTP")
    host, _ = target.host_and_port
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        with _connected(target) as sock, context.wrap_socket(sock, server_hostname=host) as secured:
            return ok(_described(secured))
    except ssl.SSLCertVerificationError as error:
        return _explain_certificate(target, error)
    except ssl.SSLError as error:
        if error.reason in _NO_TLS:
            return failed(Diagnosis.SPEAKS_NO_TLS, "the endpoint does not answer in TLS")
        return failed(Diagnosis.TLS_FAILS, f"the handshake fails: {error.reason or type(error).__name__}")
    except TimeoutError:
        return failed(Diagnosis.TLS_FAILS, f"the handshake takes more than {target.timeout:g} s")
    except OSError as error:
        return failed(Diagnosis.TLS_FAILS, f"the handshake breaks off: {type(error).__name__}")


def speaks_tls(target: Target) -> bool:
    """Whether an endpoint that is addressed by plain HTTP speaks TLS."""
    try:
        with _connected(target) as sock, _trusting().wrap_socket(sock):
            return True
    except OSError:
        return False


def clock_error(date: str | None) -> float:
    """Seconds by which this machine's clock is ahead of an answer's header `Date`; 0 where it cannot be read."""
    try:
        return time.time() - parsedate_to_datetime(date or "").timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return 0.0


def _described(secured: ssl.SSLSocket) -> str:
    certificate: Any = secured.getpeercert()
    issuer = dict(pair for part in certificate.get("issuer", ()) for pair in part)
    name = issuer.get("organizationName") or issuer.get("commonName") or "an unnamed authority"
    return f"{secured.version()}; certificate by {name}, valid until {certificate.get('notAfter', 'an unknown day')}"


def _explain_certificate(target: Target, error: ssl.SSLCertVerificationError) -> Finding:
    diagnosis = _CERTIFICATES.get(error.verify_code, Diagnosis.CERTIFICATE_NOT_ACCEPTED)
    if diagnosis in _OF_TIME:
        ahead = clock_error(_unverified_date(target))
        if abs(ahead) > CLOCK_TOLERANCE_SECONDS:
            return failed(Diagnosis.CLOCK_IS_WRONG, f"the clock {printed_clock_error(ahead)}")
    return failed(diagnosis, f"the certificate is not accepted: {error.verify_message}")


def printed_clock_error(ahead: float) -> str:
    """`is 2 hours ahead of the server's`."""
    seconds = abs(ahead)
    amount = f"{seconds / 86_400:.1f} days" if seconds > 172_800 else f"{seconds / 60:.0f} minutes"
    return f"is {amount} {'ahead of' if ahead > 0 else 'behind'} the server's"


def _unverified_date(target: Target) -> str | None:
    """The server's own time. Nothing but a request without credentials goes over the connection that is not trusted."""
    host, _ = target.host_and_port
    try:
        with _connected(target) as sock, _trusting().wrap_socket(sock, server_hostname=host) as secured:
            secured.sendall(f"HEAD / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            answer = http.client.HTTPResponse(secured, method="HEAD")
            answer.begin()
            return answer.getheader("Date")
    except (OSError, http.client.HTTPException):
        return None


def _trusting() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class _ProxyError(Exception):
    def __init__(self, diagnosis: Diagnosis, sentence: str) -> None:
        super().__init__(sentence)
        self.diagnosis = diagnosis


@contextlib.contextmanager
def _connected(target: Target) -> Iterator[socket.socket]:
    """A connection to the endpoint, by a tunnel where a proxy is on the way to TLS."""
    with socket.create_connection(target.address, timeout=target.timeout) as sock:
        if target.proxy is None or not target.is_tls:
            yield sock
            return
        if not target.proxy.startswith("https://"):
            _open_tunnel(target, target.proxy, sock)
            yield sock
            return
        context = ssl.create_default_context()
        with context.wrap_socket(sock, server_hostname=target.address[0]) as secured:
            _open_tunnel(target, target.proxy, secured)
            yield secured


def _open_tunnel(target: Target, proxy: str, sock: socket.socket) -> None:
    import urllib3

    place = _printed(target.host_and_port)
    lines = [f"CONNECT {place} HTTP/1.1", f"Host: {place}"]
    credentials = proxy_credentials(proxy)
    if credentials is not None:
        headers = urllib3.make_headers(proxy_basic_auth=credentials)
        lines += [f"{name}: {value}" for name, value in headers.items()]
    sock.sendall("\r\n".join([*lines, "", ""]).encode())
    answer = http.client.HTTPResponse(sock, method="CONNECT")
    try:
        answer.begin()
    except http.client.HTTPException as error:
        raise _ProxyError(Diagnosis.PROXY_IS_NONE, "the proxy's answer is no HTTP") from error
    if answer.status == 407:
        raise _ProxyError(Diagnosis.PROXY_WANTS_CREDENTIALS, "the proxy answers 407")
    if answer.status != 200:
        raise _ProxyError(Diagnosis.PROXY_FORBIDS, f"the proxy answers {answer.status}")


def _printed(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
