"""The network as it is."""

from __future__ import annotations

import datetime
import gzip
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from adbc_telemetry import (
    CircuitBreakerManager,
    CircuitBreakerState,
    DatabricksTelemetryExporter,
    ExportOutcome,
    ExportResult,
    TelemetryClient,
    TelemetryConfiguration,
)
from faults.scenario import Scenario
from support.endpoints import (
    ConnectProxy,
    RawService,
    Serve,
    TlsTelemetryServer,
    chunks_cut_short,
    chunks_of_garbage,
    endless_body,
    endless_continue,
    endless_header_line,
    endless_headers,
    full_backlog,
    garbage,
    https,
    no_answer,
    over_tls,
    read_head,
    reads_nothing,
    reset,
    reset_in_mid_upload,
    server_context,
    two_lengths,
    write_answer,
)
from support.logs import ids_of, make_log, make_logs
from support.server import (
    Reply,
    Request,
    TelemetryServer,
    black_hole,
    close_in_mid_response,
    raw_endpoint,
    refused_url,
    trickle,
    trickle_body,
)
from support.waiting import wait_until

NAME = "telemetry.example"
TOKEN = "Bearer sentinel-token"
# What a close, or a deadline, may take beyond its timeout.
GRACE = 0.25


def with_token() -> dict[str, str]:
    return {"Authorization": TOKEN}


def config(**settings: Any) -> TelemetryConfiguration:
    return TelemetryConfiguration(
        **{"enabled": True, "max_retries": 2, "retry_delay_ms": 1, "request_timeout_ms": 5000, **settings}
    )


def send(client: TelemetryClient, count: int = 1, **fields: Any) -> list[str]:
    """Enqueue `count` events, have them sent, and wait until they are settled; returns their ids."""
    logs = [make_log(**fields) for _ in range(count)]
    for log in logs:
        client.enqueue(log)
    assert client.flush(20)
    return ids_of(logs)


def circuit_of(client: TelemetryClient) -> CircuitBreakerState:
    return CircuitBreakerManager.get_instance().get_circuit_breaker(client.host).state


def senders() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("adbc-telemetry")]


@pytest.fixture(autouse=True)
def nothing_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """An authority that the environment trusts, the way that OpenSSL is told of one."""
    bundle = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(bundle)
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    return authority


@pytest.fixture
def tls_server(trusted: trustme.CA) -> Iterator[TlsTelemetryServer]:
    with TlsTelemetryServer(server_context(trusted.issue_cert("127.0.0.1", NAME))) as running:
        yield running


@pytest.fixture
def looked_up(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that are looked up; `telemetry.example` is this machine."""
    names: list[str] = []
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        names.append(host)
        return real("127.0.0.1" if host == NAME else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return names


def test_nobody_listens(fault: Scenario) -> None:
    """The port refuses connections."""
    with TelemetryClient(refused_url(), config(max_retries=1)) as client:
        send(client, 50)
    fault.settled(client.stats(), sent=50, arrived=[])
    assert fault.lost == {"failed": 50}


def test_the_endpoint_is_well(fault: Scenario, server: TelemetryServer) -> None:
    """Nothing: the healthy case, to compare with."""
    with TelemetryClient(server.url, config()) as client:
        for log in make_logs(250):
            client.enqueue(log)
    fault.settled(client.stats(), sent=250, arrived=server.accepted)
    assert fault.delivered == 250


def test_the_endpoint_is_an_ipv6_address(fault: Scenario) -> None:
    """The endpoint is given as an IPv6 literal with a port."""
    try:
        server = TelemetryServer("::1")
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    with server, TelemetryClient(server.url, config(), auth=with_token) as client:
        send(client, 5)
    fault.settled(client.stats(), sent=5, arrived=server.accepted)
    assert fault.delivered == 5
    assert server.requests[0].headers["Host"] == f"[::1]:{server.port}"


def test_the_first_address_of_a_name_is_dead(
    fault: Scenario, server: TelemetryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name has two addresses; at the first, nobody listens."""
    dead = int(refused_url().rpartition(":")[2])
    addresses = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", dead)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", server.port)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: addresses)
    with TelemetryClient(f"http://{NAME}:{server.port}", config(max_retries=0)) as client:
        send(client, 5)
    fault.settled(client.stats(), sent=5, arrived=server.accepted)
    assert fault.delivered == 5


# TLS.


def test_tls_with_a_private_authority_that_is_trusted(
    fault: Scenario, tls_server: TlsTelemetryServer
) -> None:
    """A certificate of a private authority, which SSL_CERT_FILE names."""
    with TelemetryClient(tls_server.url, config(), auth=with_token) as client:
        send(client, 20)
        send(client, 20)
    fault.settled(client.stats(), sent=40, arrived=tls_server.accepted)
    assert fault.delivered == 40
    assert [request.headers["Authorization"] for request in tls_server.requests] == [TOKEN, TOKEN]
    assert [request.path for request in tls_server.requests] == ["/telemetry-ext"] * 2
    assert len(tls_server.connections) == 1  # one handshake for both


def _of_an_unknown_authority(_: trustme.CA) -> trustme.LeafCert:
    return trustme.CA().issue_cert("127.0.0.1")


def _for_another_name(authority: trustme.CA) -> trustme.LeafCert:
    return authority.issue_cert("other.example")


def _expired(authority: trustme.CA) -> trustme.LeafCert:
    today = datetime.datetime.now(datetime.timezone.utc)
    return authority.issue_cert(
        "127.0.0.1",
        not_before=today - datetime.timedelta(days=2),
        not_after=today - datetime.timedelta(days=1),
    )


@pytest.mark.parametrize(
    "issue",
    [_of_an_unknown_authority, _for_another_name, _expired],
    ids=["of an unknown authority", "for another name", "expired"],
)
def test_a_certificate_not_to_be_trusted(
    fault: Scenario, trusted: trustme.CA, issue: Callable[[trustme.CA], trustme.LeafCert]
) -> None:
    """TLS with a certificate that does not prove who is there."""
    with TlsTelemetryServer(server_context(issue(trusted))) as server:
        with TelemetryClient(server.url, config(), auth=with_token) as client:
            send(client, 10)
        assert server.requests == []  # nor the token, which is in one
        assert len(server.connections) == 1  # another try would not change it
    fault.settled(client.stats(), sent=10, arrived=server.accepted)
    assert fault.lost == {"rejected": 10}


@pytest.mark.parametrize(
    "bundle", [None, b"", b"-----BEGIN CERTIFICATE-----\nno\n"], ids=["missing", "empty", "rubbish"]
)
def test_the_trust_store_is_broken(
    fault: Scenario,
    authority: trustme.CA,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    bundle: bytes | None,
) -> None:
    """SSL_CERT_FILE names a file that is not there, is empty, or holds no certificate."""
    path = tmp_path / "authority.pem"
    if bundle is not None:
        path.write_bytes(bundle)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    with TlsTelemetryServer(server_context(authority.issue_cert("127.0.0.1"))) as server:
        with TelemetryClient(server.url, config(), auth=with_token) as client:
            send(client, 5)
        assert server.requests == []
    fault.settled(client.stats(), sent=5, arrived=[])
    assert fault.lost == {"rejected": 5}


def test_a_tls_handshake_that_hangs(fault: Scenario) -> None:
    """The server accepts the connection and says nothing in answer to the client's hello."""
    said = bytearray()

    def listen(connection: socket.socket) -> None:
        while piece := connection.recv(65536):
            said.extend(piece)

    with raw_endpoint(listen) as url:
        client = TelemetryClient(https(url), config(request_timeout_ms=200, max_retries=1), auth=with_token)
        started = time.monotonic()
        send(client, 5)
        assert time.monotonic() - started < 2 * 0.2 + GRACE
        client.close()
    fault.settled(client.stats(), sent=5, arrived=[])
    assert fault.lost == {"failed": 5}
    assert said
    assert TOKEN.encode() not in said


def test_tls_asked_of_a_server_that_speaks_plain_http(fault: Scenario, server: TelemetryServer) -> None:
    """An https endpoint behind which somebody speaks plain HTTP."""
    with TelemetryClient(https(server.url), config(), auth=with_token) as client:
        send(client, 5)
    fault.settled(client.stats(), sent=5, arrived=server.accepted)
    assert fault.lost == {"failed": 5}
    assert server.requests == []


def test_plain_http_asked_of_a_tls_port(fault: Scenario, tls_server: TlsTelemetryServer) -> None:
    """An http endpoint behind which somebody speaks TLS."""
    url = tls_server.url.replace("https://", "http://")
    with TelemetryClient(url, config()) as client:
        send(client, 5)
    fault.settled(client.stats(), sent=5, arrived=tls_server.accepted)
    assert fault.lost == {"failed": 5}


def test_a_tls_server_that_wants_a_certificate_of_the_client(fault: Scenario, trusted: trustme.CA) -> None:
    """The server asks for a client certificate, which nobody has, and ends the connection with an alert."""
    context = server_context(trusted.issue_cert("127.0.0.1"))
    context.verify_mode = ssl.CERT_REQUIRED
    trusted.configure_trust(context)
    with TlsTelemetryServer(context) as server:
        with TelemetryClient(server.url, config(), auth=with_token) as client:
            send(client, 5)
        assert server.requests == []
    fault.settled(client.stats(), sent=5, arrived=server.accepted)
    assert fault.lost == {"failed": 5}


def test_a_tls_answer_cut_off_without_a_farewell(fault: Scenario, trusted: trustme.CA) -> None:
    """Half an answer without a length, of which TLS never says that it was complete: the connection just ends."""
    service = RawService()

    def cut(inside: socket.socket) -> None:
        service.read(inside)
        inside.sendall(b'HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{"numProtoSuccess": 5')
        inside.shutdown(socket.SHUT_RDWR)  # of the connection alone: TLS says no farewell

    context = server_context(trusted.issue_cert("127.0.0.1"))
    with (
        raw_endpoint(over_tls(context, cut)) as url,
        TelemetryClient(https(url), config(), auth=with_token) as client,
    ):
        send(client, 5)
    fault.settled(client.stats(), sent=5, arrived=[])
    assert fault.lost == {"rejected": 5}
    assert len(service.requests) == 1


# Proxies.


def proxied(monkeypatch: pytest.MonkeyPatch, url: str, scheme: str = "HTTPS") -> None:
    monkeypatch.setenv(f"{scheme}_PROXY", url)


def test_https_through_a_proxy(
    fault: Scenario,
    tls_server: TlsTelemetryServer,
    looked_up: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """HTTPS_PROXY names a proxy; the endpoint's name is known to that proxy alone."""
    proxy = ConnectProxy(tls_server.port)
    with raw_endpoint(proxy.serve) as url:
        proxied(monkeypatch, url)
        with TelemetryClient(f"https://{NAME}", config(), auth=with_token) as client:
            send(client, 10)
            send(client, 10)
    fault.settled(client.stats(), sent=20, arrived=tls_server.accepted)
    assert fault.delivered == 20
    assert len(proxy.asked) == 1
    assert proxy.asked[0].startswith(f"CONNECT {NAME}:443 ")
    assert NAME not in looked_up
    assert tls_server.requests[0].headers["Host"] == NAME
    assert tls_server.requests[0].headers["Authorization"] == TOKEN
    assert "Authorization" not in proxy.heads[0]
    assert TOKEN.encode() not in proxy.carried


def test_a_proxy_that_is_not_to_be_used_for_the_endpoint(
    fault: Scenario,
    tls_server: TlsTelemetryServer,
    looked_up: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """HTTPS_PROXY names a proxy, NO_PROXY the endpoint."""
    proxy = ConnectProxy(tls_server.port)
    with raw_endpoint(proxy.serve) as url:
        proxied(monkeypatch, url)
        monkeypatch.setenv("NO_PROXY", f"other.example,{NAME}")
        with TelemetryClient(f"https://{NAME}:{tls_server.port}", config(), auth=with_token) as client:
            send(client, 10)
    fault.settled(client.stats(), sent=10, arrived=tls_server.accepted)
    assert fault.delivered == 10
    assert proxy.asked == []
    assert NAME in looked_up


def test_a_proxy_for_plain_http(
    fault: Scenario, server: TelemetryServer, looked_up: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTTP_PROXY names a proxy, the endpoint is plain HTTP and without credentials."""
    proxied(monkeypatch, server.url, "HTTP")
    with TelemetryClient(f"http://{NAME}", config()) as client:
        send(client, 10)
    fault.settled(client.stats(), sent=10, arrived=server.accepted)
    assert fault.delivered == 10
    assert server.requests[0].path == f"http://{NAME}/telemetry-unauth"
    assert NAME not in looked_up


def test_a_proxy_that_wants_the_password_in_its_url(
    fault: Scenario, tls_server: TlsTelemetryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy answers 407 to whoever does not name the user and password that HTTPS_PROXY holds."""
    proxy = ConnectProxy(tls_server.port, authorization="Basic dXNlcjpwYXNzIHdvcmQ=")
    with raw_endpoint(proxy.serve) as url:
        proxied(monkeypatch, url.replace("http://", "http://user:pass%20word@"))
        with TelemetryClient(f"https://{NAME}", config(), auth=with_token) as client:
            send(client, 10)
    fault.settled(client.stats(), sent=10, arrived=tls_server.accepted)
    assert fault.delivered == 10
    assert "Proxy-Authorization" not in tls_server.requests[0].headers


def test_a_proxy_that_is_asked_by_tls(
    fault: Scenario, tls_server: TlsTelemetryServer, trusted: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTTPS_PROXY is an https URL itself: TLS to the endpoint within TLS to the proxy."""
    proxy = ConnectProxy(tls_server.port)
    context = server_context(trusted.issue_cert("127.0.0.1"))
    with raw_endpoint(over_tls(context, proxy.serve)) as url:
        proxied(monkeypatch, https(url))
        with TelemetryClient(f"https://{NAME}", config(), auth=with_token) as client:
            send(client, 10)
    fault.settled(client.stats(), sent=10, arrived=tls_server.accepted)
    assert fault.delivered == 10
    assert TOKEN.encode() not in proxy.carried


@pytest.mark.parametrize("status", ["407 Proxy Authentication Required", "403 Forbidden", "502 Bad Gateway"])
def test_a_proxy_that_refuses(fault: Scenario, monkeypatch: pytest.MonkeyPatch, status: str) -> None:
    """The proxy will not connect."""
    asked: list[str] = []

    def refuse(connection: socket.socket) -> None:
        asked.append(read_head(connection)[0])
        write_answer(connection, status, b"<html>no</html>")
        connection.close()

    with raw_endpoint(refuse) as url:
        proxied(monkeypatch, url)
        with TelemetryClient(f"https://{NAME}", config(max_retries=1), auth=with_token) as client:
            send(client, 10)
    fault.settled(client.stats(), sent=10, arrived=[])
    assert fault.lost == {"failed": 10}
    assert len(asked) == 2


def test_a_proxy_that_has_gone(
    fault: Scenario, monkeypatch: pytest.MonkeyPatch, looked_up: list[str]
) -> None:
    """Nobody listens where HTTPS_PROXY says."""
    proxied(monkeypatch, refused_url())
    with TelemetryClient(f"https://{NAME}", config(), auth=with_token) as client:
        send(client, 10)
    fault.settled(client.stats(), sent=10, arrived=[])
    assert fault.lost == {"failed": 10}
    assert NAME not in looked_up  # no way round the proxy is tried


def test_a_proxy_that_puts_somebody_else_in_the_endpoints_place(
    fault: Scenario, trusted: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy connects to a server whose certificate is of its own making."""
    with TlsTelemetryServer(server_context(trustme.CA().issue_cert(NAME))) as server:
        proxy = ConnectProxy(server.port)
        with raw_endpoint(proxy.serve) as url:
            proxied(monkeypatch, url)
            with TelemetryClient(f"https://{NAME}", config(), auth=with_token) as client:
                send(client, 10)
        assert server.requests == []
        assert len(proxy.asked) == 1
    fault.settled(client.stats(), sent=10, arrived=server.accepted)
    assert fault.lost == {"rejected": 10}


# Redirects, and tokens that are not welcome.


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_host(fault: Scenario, server: TelemetryServer, status: int) -> None:
    """The endpoint says that the service has moved to another host."""
    with TelemetryServer() as other:
        server.always = lambda _: Reply(status, {"Location": f"{other.url}/telemetry-ext"})
        with TelemetryClient(server.url, config(), auth=with_token) as client:
            send(client, 10)
        assert other.connections == []  # nor has the token arrived there
    fault.settled(client.stats(), sent=10, arrived=[*server.accepted, *other.accepted])
    assert fault.lost == {"rejected": 10}
    assert len(server.requests) == 1


def test_a_token_expires_and_is_renewed(fault: Scenario, server: TelemetryServer) -> None:
    """The endpoint answers 401 to the old token; from the next request on, auth returns a new one."""
    tokens = iter(["old", "new", "new"])
    server.always = lambda request: Reply(401 if request.headers["Authorization"] == "old" else 200)
    with TelemetryClient(server.url, config(), auth=lambda: {"Authorization": next(tokens)}) as client:
        send(client, 10)
        later = send(client, 10) + send(client, 10)
        assert circuit_of(client) is CircuitBreakerState.CLOSED
    fault.settled(client.stats(), sent=30, arrived=server.accepted)
    assert fault.lost == {"rejected": 10}
    assert server.accepted == later
    assert len(server.requests) == 3


def test_tokens_that_are_never_welcome(fault: Scenario, server: TelemetryServer) -> None:
    """The endpoint answers 403, always."""
    server.always = lambda _: Reply(403)
    settings = config(circuit_breaker_threshold=3)
    with TelemetryClient(server.url, settings, auth=with_token) as client:
        for _ in range(5):
            send(client, 2)
        assert circuit_of(client) is CircuitBreakerState.OPEN
    fault.settled(client.stats(), sent=10, arrived=server.accepted)
    assert fault.lost == {"rejected": 6, "dropped_circuit_open": 4}
    assert len(server.requests) == 3


# Answers that are none.

PORTAL = b"<html><body>Welcome to the hotel's network</body></html>"
ODD: dict[str, tuple[Reply, dict[str, int]]] = {
    "a captive portal's page": (Reply(200, {"Content-Type": "text/html"}, PORTAL), {"rejected": 8}),
    "an empty 200": (Reply(200, {}, b""), {}),
    "a 204": (Reply(204), {}),
    "a 202 that says nothing of the count": (Reply(202, {}, b"{}"), {}),
    "a list": (Reply(200, {}, b"[]"), {"rejected": 8}),
    "a count that is a text": (Reply(200, {}, b'{"numProtoSuccess": "8"}'), {"rejected": 8}),
    "fewer than were sent": (Reply(200, {}, b'{"numProtoSuccess": 5}'), {"rejected": 3}),
    "more than were sent": (Reply(200, {}, b'{"numProtoSuccess": 5000}'), {}),
    "a count below zero": (Reply(200, {}, b'{"numProtoSuccess": -5}'), {"rejected": 8}),
    "bytes that are no text": (Reply(200, {}, b"\xff\xfe\x00{"), {"rejected": 8}),
    "brackets without an end": (Reply(200, {}, b'{"errors":' + b"[" * 100_000), {"rejected": 8}),
    "gzip that nobody asked for": (
        Reply(200, {"Content-Encoding": "gzip"}, gzip.compress(b'{"numProtoSuccess": 8}')),
        {"rejected": 8},
    ),
    "an encoding that does not exist": (Reply(200, {"Content-Encoding": "rot13"}, b"{}"), {}),
}


@pytest.mark.parametrize(("reply", "lost"), ODD.values(), ids=ODD)
def test_an_odd_answer(fault: Scenario, server: TelemetryServer, reply: Reply, lost: dict[str, int]) -> None:
    """The first answer is not what the service says; the second is."""
    server.replies.append(reply)
    with TelemetryClient(server.url, config()) as client:
        send(client, 8)
        well = send(client, 2)
    fault.settled(client.stats(), sent=10)
    assert fault.lost == lost
    assert server.accepted == well
    assert len(server.requests) == 2  # whoever says 2xx has had it: nothing is sent twice


BROKEN: dict[str, Serve] = {
    "garbage instead of HTTP": garbage,
    "no answer at all": no_answer,
    "a body cut short": close_in_mid_response,
    "chunks cut short": chunks_cut_short,
    "chunks of garbage": chunks_of_garbage,
    "two lengths that differ": two_lengths,
    "headers without an end": endless_headers,
    "a header line without an end": endless_header_line,
    "a reset in the middle of the upload": reset_in_mid_upload,
}


def ill_at_first(count: int, ill: Serve, service: RawService) -> tuple[Serve, list[socket.socket]]:
    """Does with the first `count` connections as `ill`, with the others as a well service; and the connections."""
    connections: list[socket.socket] = []

    def serve(connection: socket.socket) -> None:
        connections.append(connection)
        (ill if len(connections) <= count else service.serve)(connection)

    return serve, connections


@pytest.mark.parametrize("ill", BROKEN.values(), ids=BROKEN)
def test_a_broken_answer(fault: Scenario, ill: Serve) -> None:
    """The server breaks HTTP, or the connection, a dozen times; then it is well."""
    service = RawService()
    # More tries than the client keeps connections, so that none of them may have been lost over it.
    serve, connections = ill_at_first(12, ill, service)
    with raw_endpoint(serve) as url:
        settings = config(max_request_bytes=8_000_000, max_retries=2)
        with TelemetryClient(url, settings, auth=with_token) as client:
            for _ in range(4):
                send(client, 5, session_id="x" * 400_000)
            well = send(client, 5)
        assert client.stats().errors == 0
    fault.settled(client.stats(), sent=25, arrived=service.accepted)
    assert fault.lost == {"failed": 20}
    assert service.accepted == well
    assert len(connections) == 13  # each try on a connection of its own


def test_an_endless_body(fault: Scenario) -> None:
    """A 200 whose body does not end, as fast as it is read, a dozen times; then the server is well."""
    service = RawService()
    serve, connections = ill_at_first(12, endless_body, service)
    settings = config(request_timeout_ms=500, max_retries=0)
    with raw_endpoint(serve) as url, TelemetryClient(url, settings) as client:
        for _ in range(12):
            send(client, 5)
        well = send(client, 5)
    fault.settled(client.stats(), sent=65, arrived=service.accepted)
    assert fault.lost == {"rejected": 60}
    assert service.accepted == well
    assert len(connections) == 13


def test_more_answers_than_questions(fault: Scenario) -> None:
    """Behind each answer comes another, of an error that nobody has made."""
    service = RawService()

    def serve(connection: socket.socket) -> None:
        while True:
            request = service.read(connection)
            service.accepted.extend(request.ids)
            answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
            connection.sendall(answer + answer.replace(b"200 OK", b"400 Bad Request"))

    with raw_endpoint(serve) as url, TelemetryClient(url, config()) as client:
        for _ in range(3):
            send(client, 5)
    fault.settled(client.stats(), sent=15, arrived=service.accepted)
    assert fault.delivered == 15


TIMELESS: dict[str, Serve | None] = {
    "a black hole": black_hole,
    "a header that trickles": trickle,
    "a body that trickles": trickle_body,
    "100 Continue without an end": endless_continue,
    "a server that does not read": reads_nothing,
    "a full backlog": None,
}


@contextmanager
def ill_endpoint(ill: Serve | None) -> Iterator[tuple[str, threading.Event]]:
    """The URL of an endpoint that does as `ill`, and when it is reached; None for one that never is."""
    reached = threading.Event()

    def serve(connection: socket.socket) -> None:
        reached.set()
        ill(connection)  # type: ignore[misc]

    if ill is None:
        reached.set()
    with raw_endpoint(serve) if ill else full_backlog() as url:
        yield url, reached


@pytest.mark.parametrize("ill", TIMELESS.values(), ids=TIMELESS)
def test_a_request_that_would_take_for_ever(fault: Scenario, ill: Serve | None) -> None:
    """The server keeps the connection busy, or waiting, without an end."""
    with ill_endpoint(ill) as (url, _):
        settings = config(request_timeout_ms=200, max_retries=0, max_request_bytes=16_000_000)
        client = TelemetryClient(url, settings)
        started = time.monotonic()
        send(client, 100, session_id="x" * 100_000)
        assert 0.2 <= time.monotonic() - started < 0.2 + GRACE + 0.25  # and what encoding 10 MB takes
        client.close()
    fault.settled(client.stats(), sent=100, arrived=[])
    assert fault.lost == {"failed": 100}


def close_in_the_middle(client: TelemetryClient, reached: threading.Event) -> None:
    """Close with a batch in flight that does not come back, and an event behind it."""
    for _ in range(100):
        client.enqueue(make_log(session_id="x" * 100_000))
    assert reached.wait(10)
    wait_until(lambda: client.stats().in_flight == 100)
    client.enqueue(make_log())
    started = time.monotonic()
    client.close(0.3)
    assert 0.3 <= time.monotonic() - started < 0.3 + GRACE
    # The request has been ended, and not just left to itself.
    wait_until(lambda: senders() == [], timeout=1, what=lambda: f"still at it: {senders()}")


@pytest.mark.parametrize("ill", TIMELESS.values(), ids=TIMELESS)
def test_a_close_while_a_request_would_take_for_ever(fault: Scenario, ill: Serve | None) -> None:
    """The same servers, no timeout of the request to help, and the program wants to end."""
    with ill_endpoint(ill) as (url, reached):
        client = TelemetryClient(url, config(request_timeout_ms=60_000, max_request_bytes=16_000_000))
        close_in_the_middle(client, reached)
    fault.settled(client.stats(), sent=101, arrived=[])
    assert set(fault.lost) <= {"failed", "dropped_closed"}


def test_a_close_in_the_middle_of_a_tls_handshake(fault: Scenario) -> None:
    """The handshake hangs, and the program wants to end."""
    with ill_endpoint(black_hole) as (url, reached):
        settings = config(request_timeout_ms=60_000, max_request_bytes=16_000_000)
        client = TelemetryClient(https(url), settings, auth=with_token)
        close_in_the_middle(client, reached)
    fault.settled(client.stats(), sent=101, arrived=[])


def test_a_close_in_the_middle_of_a_tls_answer(fault: Scenario, trusted: trustme.CA) -> None:
    """The answer trickles through TLS, and the program wants to end."""
    context = server_context(trusted.issue_cert("127.0.0.1"))
    with ill_endpoint(over_tls(context, trickle)) as (url, reached):
        client = TelemetryClient(https(url), config(request_timeout_ms=60_000, max_request_bytes=16_000_000))
        close_in_the_middle(client, reached)
    fault.settled(client.stats(), sent=101, arrived=[])


def _trickling_proxy(connection: socket.socket) -> None:
    read_head(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while True:
        connection.sendall(b"x")
        time.sleep(0.05)


@pytest.mark.parametrize("ill", [black_hole, _trickling_proxy], ids=["says nothing", "trickles"])
def test_a_proxy_that_hangs(fault: Scenario, monkeypatch: pytest.MonkeyPatch, ill: Serve) -> None:
    """The proxy takes the question and gives no whole answer."""
    with raw_endpoint(ill) as url:
        proxied(monkeypatch, url)
        client = TelemetryClient(f"https://{NAME}", config(request_timeout_ms=200, max_retries=0))
        started = time.monotonic()
        send(client, 5)
        assert time.monotonic() - started < 0.2 + GRACE
        client.close()
    fault.settled(client.stats(), sent=5, arrived=[])
    assert fault.lost == {"failed": 5}


@pytest.mark.parametrize("ill", [black_hole, _trickling_proxy], ids=["says nothing", "trickles"])
def test_a_close_while_a_proxy_hangs(fault: Scenario, monkeypatch: pytest.MonkeyPatch, ill: Serve) -> None:
    """The proxy gives no whole answer, no timeout of the request helps, and the program wants to end."""
    with ill_endpoint(ill) as (url, reached):
        proxied(monkeypatch, url)
        settings = config(request_timeout_ms=60_000, max_request_bytes=16_000_000)
        client = TelemetryClient(f"https://{NAME}", settings)
        close_in_the_middle(client, reached)
    fault.settled(client.stats(), sent=101, arrived=[])


@pytest.mark.parametrize("ill", [black_hole, _trickling_proxy], ids=["says nothing", "trickles"])
def test_a_close_while_a_proxy_hangs_that_is_asked_by_tls(
    fault: Scenario, trusted: trustme.CA, monkeypatch: pytest.MonkeyPatch, ill: Serve
) -> None:
    """The proxy is asked by TLS and gives no whole answer, and the program wants to end."""
    context = server_context(trusted.issue_cert("127.0.0.1"))
    with ill_endpoint(over_tls(context, ill)) as (url, reached):
        proxied(monkeypatch, https(url))
        settings = config(request_timeout_ms=60_000, max_request_bytes=16_000_000)
        client = TelemetryClient(f"https://{NAME}", settings)
        close_in_the_middle(client, reached)
    fault.settled(client.stats(), sent=101, arrived=[])


# Servers that answer before they have read.


def test_a_server_that_refuses_the_size_before_it_has_read_the_body(fault: Scenario) -> None:
    """413 upon the head alone, then a reset with most of the body unread, until the request is small enough."""
    service = RawService()
    refused: list[int] = []

    def serve(connection: socket.socket) -> None:
        # MSG_PEEK: what a well server reads is still there for it.
        while True:
            head = b""
            while b"\r\n\r\n" not in head:
                head = connection.recv(65536, socket.MSG_PEEK)
                if not head:
                    return
            length = int(re.search(rb"Content-Length: (\d+)", head).group(1))  # type: ignore[union-attr]
            if length > 350_000:
                refused.append(length)
                write_answer(connection, "413 Content Too Large", b"", "Connection: close")
                connection.close()  # with unread data, which makes it a reset
                return
            service.accept(connection, service.read(connection))

    with raw_endpoint(serve) as url:
        settings = config(max_request_bytes=16_000_000, max_retries=0)
        with TelemetryClient(url, settings, auth=with_token) as client:
            sent = send(client, 40, session_id="x" * 100_000)
    fault.settled(client.stats(), sent=40, arrived=service.accepted)
    assert service.accepted == sent
    assert refused[0] > 4_000_000
    assert max(len(request.raw) for request in service.requests) <= 350_000


def test_a_server_that_answers_before_it_has_read_the_body(fault: Scenario) -> None:
    """200 upon the head alone, then a reset with several MB of the body unread."""
    asked: list[str] = []

    def serve(connection: socket.socket) -> None:
        asked.append(read_head(connection)[0])
        write_answer(connection, "200 OK", b'{"numProtoSuccess": 40}')
        connection.close()

    settings = config(max_request_bytes=16_000_000)
    with raw_endpoint(serve) as url, TelemetryClient(url, settings) as client:
        send(client, 40, session_id="x" * 100_000)
    fault.settled(client.stats(), sent=40)
    assert fault.delivered == 40  # so it says, and it is not for us to send it all again
    assert len(asked) == 1


def test_a_server_that_reads_slowly(fault: Scenario) -> None:
    """A small receive window, read a KB at a time, for a request of several MB."""
    service = RawService()

    def serve(connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32_768)
        while True:
            service.accept(connection, service.read(connection, 1024))

    with raw_endpoint(serve) as url:
        settings = config(max_request_bytes=16_000_000, max_retries=0)
        with TelemetryClient(url, settings) as client:
            send(client, 30, session_id="x" * 100_000)
    fault.settled(client.stats(), sent=30, arrived=service.accepted)
    assert fault.delivered == 30
    assert len(service.requests) == 1


# Connections that do not last.


@pytest.mark.parametrize("end", [socket.socket.close, reset], ids=["closed", "reset"])
def test_a_connection_that_dies_idle(fault: Scenario, end: Callable[[socket.socket], None]) -> None:
    """Between two batches, the server ends the connection that both were to use."""
    service = RawService()
    ended: list[int] = []
    end_now = threading.Semaphore(0)

    def serve(connection: socket.socket) -> None:
        service.accept(connection, service.read(connection))
        end_now.acquire()
        end(connection)
        ended.append(1)

    with raw_endpoint(serve) as url, TelemetryClient(url, config(max_retries=0)) as client:
        for count in range(1, 4):
            send(client, 5)
            end_now.release()
            wait_until(lambda count=count: len(ended) == count)  # type: ignore[misc]
    fault.settled(client.stats(), sent=15, arrived=service.accepted)
    assert fault.delivered == 15


def test_a_connection_that_dies_with_the_next_request_upon_it(fault: Scenario) -> None:
    """The server resets each connection when the second request comes."""
    service = RawService()

    def serve(connection: socket.socket) -> None:
        service.accept(connection, service.read(connection))
        read_head(connection)
        reset(connection)

    with raw_endpoint(serve) as url, TelemetryClient(url, config(max_retries=1)) as client:
        for _ in range(4):
            send(client, 5)
    fault.settled(client.stats(), sent=20, arrived=service.accepted)
    assert fault.delivered == 20


@pytest.mark.parametrize("headers", [(), ("Connection: close",)], ids=["unannounced", "announced"])
def test_a_server_that_closes_after_every_answer(fault: Scenario, headers: tuple[str, ...]) -> None:
    """Each connection serves one request."""
    service = RawService()
    closed: list[int] = []

    def serve(connection: socket.socket) -> None:
        service.accept(connection, service.read(connection), *headers)
        connection.close()
        closed.append(1)

    with raw_endpoint(serve) as url, TelemetryClient(url, config(max_retries=0)) as client:
        for count in range(1, 6):
            send(client, 5)
            wait_until(lambda count=count: len(closed) == count)  # type: ignore[misc]
    fault.settled(client.stats(), sent=25, arrived=service.accepted)
    assert fault.delivered == 25


@pytest.mark.parametrize(("down", "lost"), [(2, {}), (3, {"failed": 25})], ids=["short", "long"])
def test_a_server_that_flaps(fault: Scenario, down: int, lost: dict[str, int]) -> None:
    """Three requests are answered, the next few reset, and so on; three tries a batch."""
    service = RawService()
    well = RawService()
    cycle = 3 + down

    def serve(connection: socket.socket) -> None:
        while True:
            request = service.read(connection)
            if (len(service.requests) - 1) % cycle >= 3:
                reset(connection)
                return
            well.accept(connection, request)

    with raw_endpoint(serve) as url, TelemetryClient(url, config(max_retries=2)) as client:
        for _ in range(20):
            send(client, 5)
    fault.settled(client.stats(), sent=100, arrived=well.accepted)
    assert fault.lost == lost


# Statuses.


def test_an_interim_answer_before_the_answer(fault: Scenario) -> None:
    """Each answer is preceded by a 103 Early Hints."""
    service = RawService()

    def serve(connection: socket.socket) -> None:
        while True:
            request = service.read(connection)
            connection.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n")
            service.accept(connection, request)

    with raw_endpoint(serve) as url, TelemetryClient(url, config(max_retries=0)) as client:
        send(client, 5)
        send(client, 5)
    fault.settled(client.stats(), sent=10)
    assert fault.delivered == 10


def test_too_many_requests(fault: Scenario, server: TelemetryServer) -> None:
    """429 with a Retry-After of a second."""
    server.replies.append(Reply(429, {"Retry-After": "1"}))
    with TelemetryClient(server.url, config()) as client:
        send(client, 10)
    fault.settled(client.stats(), sent=10, arrived=server.accepted)
    assert fault.delivered == 10
    first, second = server.requests
    assert 1.0 <= second.at - first.at < 1.0 + GRACE


def test_a_retry_after_beyond_all_patience(
    fault: Scenario, server: TelemetryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503 with a Retry-After of a day, and the program wants to end."""
    server.always = lambda _: Reply(503, {"Retry-After": "86400"})
    backing_off = threading.Event()

    def uniform(low: float, high: float) -> float:
        backing_off.set()
        return low

    monkeypatch.setattr("adbc_telemetry.transport.retry._uniform", uniform)
    client = TelemetryClient(server.url, config())
    for log in make_logs(100):
        client.enqueue(log)
    assert backing_off.wait(10)
    started = time.monotonic()
    client.close(10)
    assert time.monotonic() - started < GRACE  # there is nothing to wait for
    fault.settled(client.stats(), sent=100, arrived=server.accepted)
    assert fault.lost == {"failed": 100}
    assert len(server.requests) == 1


def test_a_storm_of_503(fault: Scenario, server: TelemetryServer) -> None:
    """503 to every request: two tries a batch, and after three batches the circuit opens."""
    server.always = lambda _: Reply(503)
    with TelemetryClient(server.url, config(max_retries=1, circuit_breaker_threshold=3)) as client:
        for _ in range(10):
            send(client, 5)
        assert circuit_of(client) is CircuitBreakerState.OPEN
    fault.settled(client.stats(), sent=50, arrived=server.accepted)
    assert fault.lost == {"failed": 15, "dropped_circuit_open": 35}
    assert len(server.requests) == 6


def test_a_storm_of_503_that_passes(fault: Scenario, server: TelemetryServer) -> None:
    """503 until the circuit opens; by the time of the next try the service is well."""
    server.replies.extend([Reply(503)] * 3)
    settings = config(
        max_retries=0, circuit_breaker_threshold=3, circuit_breaker_timeout_ms=50, circuit_open="retain"
    )
    with TelemetryClient(server.url, settings) as client:
        for _ in range(6):
            send(client, 5)
        assert circuit_of(client) is CircuitBreakerState.CLOSED
    fault.settled(client.stats(), sent=30, arrived=server.accepted)
    assert fault.lost == {"failed": 15}


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_an_error_that_passes(fault: Scenario, server: TelemetryServer, status: int) -> None:
    """Two answers say "later", the third is well."""
    server.replies.extend([Reply(status), Reply(status)])
    with TelemetryClient(server.url, config(max_retries=2)) as client:
        sent = send(client, 10)
    fault.settled(client.stats(), sent=10, arrived=server.accepted)
    assert server.accepted == sent
    assert len(server.requests) == 3


def test_a_server_that_takes_single_events_only(fault: Scenario, server: TelemetryServer) -> None:
    """413 to every request of more than one event, and to one event in itself."""

    def too_large(request: Request) -> Reply:
        return Reply(413) if len(request.ids) > 1 or request.ids == [poison] else Reply()

    server.always = too_large
    logs = make_logs(16)
    poison = ids_of(logs)[5]
    with TelemetryClient(server.url, config(max_retries=0)) as client:
        for log in logs:
            client.enqueue(log)
    fault.settled(client.stats(), sent=16, arrived=server.accepted)
    assert fault.lost == {"rejected": 1}
    assert server.accepted == [event for event in ids_of(logs) if event != poison]


def test_a_split_that_is_cut_short(fault: Scenario, server: TelemetryServer) -> None:
    """413 splits the batch; the second half meets an outage."""
    server.replies.extend([Reply(413), Reply(), Reply(500)])
    with TelemetryClient(server.url, config(max_retries=0)) as client:
        send(client, 10)
    fault.settled(client.stats(), sent=10, arrived=server.accepted)
    assert fault.lost == {"failed": 5}


# Names.


def test_a_name_that_does_not_exist(fault: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    """The look-up of the endpoint's name fails."""
    asked: list[str] = []

    def getaddrinfo(host: str, *_: object, **__: object) -> None:
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with TelemetryClient(f"https://{NAME}", config(max_retries=1), auth=with_token) as client:
        send(client, 10)
    fault.settled(client.stats(), sent=10, arrived=[])
    assert fault.lost == {"failed": 10}
    assert asked == [NAME, NAME]


def test_a_name_without_an_address(fault: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    """The look-up of the endpoint's name succeeds and finds nothing."""
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [])
    with TelemetryClient(f"https://{NAME}", config(), auth=with_token) as client:
        send(client, 10)
    fault.settled(client.stats(), sent=10, arrived=[])
    assert fault.lost == {"failed": 10}


@pytest.mark.parametrize("name", ["x" * 70 + ".example", "a..example"])
def test_a_name_that_cannot_exist(fault: Scenario, name: str) -> None:
    """The endpoint's name breaks the rules of names, which the look-up tells by another kind of error."""
    with TelemetryClient(f"https://{name}", config(max_retries=1), auth=with_token) as client:
        send(client, 10)
    fault.settled(client.stats(), sent=10, arrived=[])
    assert fault.lost == {"failed": 10}


@pytest.fixture
def hanging_lookup(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Look-ups hang until the test is over; the event says that one has begun."""
    begun, over = threading.Event(), threading.Event()

    def getaddrinfo(*_: object, **__: object) -> None:
        begun.set()
        over.wait(20)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield begun
    over.set()


def test_a_close_while_the_look_up_hangs(fault: Scenario, hanging_lookup: threading.Event) -> None:
    """The look-up of the endpoint's name does not return, and the program wants to end."""
    client = TelemetryClient(f"https://{NAME}", config(), auth=with_token)
    for log in make_logs(101):
        client.enqueue(log)
    assert hanging_lookup.wait(10)
    started = time.monotonic()
    client.close(0.3)
    assert time.monotonic() - started < 0.3 + GRACE
    fault.settled(client.stats(), sent=101, arrived=[])
    assert set(fault.lost) <= {"failed", "dropped_closed"}


def test_an_export_with_a_deadline_while_the_look_up_hangs(
    fault: Scenario, hanging_lookup: threading.Event
) -> None:
    """The look-up of the endpoint's name does not return, and the export has a deadline."""
    exporter = DatabricksTelemetryExporter(f"https://{NAME}", config())
    results: list[ExportResult] = []
    deadline = time.monotonic() + 0.2
    thread = threading.Thread(
        target=lambda: results.append(exporter.export(make_logs(5), deadline=deadline)), daemon=True
    )
    thread.start()
    thread.join(0.2 + GRACE)
    assert [result.outcome for result in results] == [ExportOutcome.CANCELLED]
    exporter.close()
    fault.seen(sent=5, delivered=0, lost={"failed": 5})


# auth.


class _Ill(Mapping[str, str]):
    """A mapping that cannot be read."""

    def __getitem__(self, key: str) -> str:
        raise RuntimeError

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError

    def __len__(self) -> int:
        return 1


def _raise(error: BaseException) -> None:
    raise error


RUBBISH: dict[str, Callable[[], Any]] = {
    "raises": lambda: _raise(RuntimeError("sentinel")),
    "exits": lambda: _raise(SystemExit(3)),
    "returns a text": lambda: TOKEN,
    "returns bytes": lambda: {"Authorization": TOKEN.encode()},
    "returns pairs": lambda: [("Authorization", TOKEN)],
    "returns a value that is none": lambda: {"Authorization": None},
    "returns a mapping that cannot be read": _Ill,
    "returns a line break in a value": lambda: {"Authorization": "a\r\nX-Injected: b"},
    "returns a lone line feed in a value": lambda: {"Authorization": "a\nX-Injected: b"},
    "returns a line break in a name": lambda: {"Authorization: a\r\nX-Injected": "b"},
    "returns a colon in a name": lambda: {"Authorization: a": "b"},
    "returns an empty name": lambda: {"": "b"},
    "returns text beyond latin-1": lambda: {"Authorization": "Bearer 鍵"},
}


@pytest.mark.parametrize("rubbish", RUBBISH.values(), ids=RUBBISH)
def test_auth_that(fault: Scenario, server: TelemetryServer, rubbish: Callable[[], Any]) -> None:
    """auth returns what cannot be sent, or does not return; later it does."""
    ill = True

    def auth() -> Any:
        return rubbish() if ill else with_token()

    with TelemetryClient(server.url, config(), auth=auth) as client:
        send(client, 10)
        assert server.requests == []
        ill = False
        well = send(client, 5)
    fault.settled(client.stats(), sent=15, arrived=server.accepted)
    assert fault.lost == {"failed": 10}
    assert server.accepted == well


def test_auth_that_has_nothing_to_give(fault: Scenario, server: TelemetryServer) -> None:
    """auth returns None."""
    with TelemetryClient(server.url, config(), auth=lambda: None) as client:
        send(client, 10)
    fault.settled(client.stats(), sent=10, arrived=server.accepted)
    assert fault.delivered == 10
    assert [request.path for request in server.requests] == ["/telemetry-unauth"]


def test_auth_that_hangs(fault: Scenario, server: TelemetryServer) -> None:
    """auth does not return, and the program wants to end."""
    begun, over = threading.Event(), threading.Event()

    def auth() -> dict[str, str]:
        begun.set()
        over.wait(20)
        return with_token()

    client = TelemetryClient(server.url, config(), auth=auth)
    for log in make_logs(101):
        client.enqueue(log)
    assert begun.wait(10)
    started = time.monotonic()
    client.close(0.3)
    assert time.monotonic() - started < 0.3 + GRACE
    fault.settled(client.stats(), sent=101, arrived=[])
    over.set()
    wait_until(lambda: senders() == [])
    assert server.requests == []  # what has been counted as lost is not sent after all
