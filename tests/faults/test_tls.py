"""TLS."""

from __future__ import annotations

import datetime
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from adbc_telemetry import (
    TelemetryClient,
)
from faults.network import GRACE, TOKEN, close_in_the_middle, config, faulty_endpoint, send, with_token
from faults.scenario import Scenario
from support.endpoints import (
    RawService,
    TlsTelemetryServer,
    https,
    over_tls,
    server_context,
)
from support.server import (
    TelemetryServer,
    black_hole,
    raw_endpoint,
    trickle,
)


def test_tls_with_a_trusted_private_authority(fault: Scenario, tls_server: TlsTelemetryServer) -> None:
    """The certificate comes from a private authority that SSL_CERT_FILE names."""
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
def test_a_certificate_that_is_not_trusted(
    fault: Scenario, trusted: trustme.CA, issue: Callable[[trustme.CA], trustme.LeafCert]
) -> None:
    """The certificate does not prove that the server is the endpoint."""
    with TlsTelemetryServer(server_context(issue(trusted))) as server:
        with TelemetryClient(server.url, config(), auth=with_token) as client:
            send(client, 10)
        assert server.requests == []  # no request, so no token either
        assert len(server.connections) == 1  # a retry would not help
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
    """SSL_CERT_FILE names a file that is missing, is empty, or holds no certificate."""
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
    """The server accepts the connection and never answers the client's hello."""
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


def test_tls_to_a_server_that_speaks_plain_http(fault: Scenario, server: TelemetryServer) -> None:
    """The URL says https, and the server speaks plain HTTP."""
    with TelemetryClient(https(server.url), config(), auth=with_token) as client:
        send(client, 5)
    fault.settled(client.stats(), sent=5, arrived=server.accepted)
    assert fault.lost == {"failed": 5}
    assert server.requests == []


def test_plain_http_to_a_tls_port(fault: Scenario, tls_server: TlsTelemetryServer) -> None:
    """The URL says http, and the server speaks TLS."""
    url = tls_server.url.replace("https://", "http://")
    with TelemetryClient(url, config()) as client:
        send(client, 5)
    fault.settled(client.stats(), sent=5, arrived=tls_server.accepted)
    assert fault.lost == {"failed": 5}


def test_a_tls_server_that_wants_a_client_certificate(fault: Scenario, trusted: trustme.CA) -> None:
    """The server asks for a client certificate, gets none, and ends the connection with an alert."""
    context = server_context(trusted.issue_cert("127.0.0.1"))
    context.verify_mode = ssl.CERT_REQUIRED
    trusted.configure_trust(context)
    with TlsTelemetryServer(context) as server:
        with TelemetryClient(server.url, config(), auth=with_token) as client:
            send(client, 5)
        assert server.requests == []
    fault.settled(client.stats(), sent=5, arrived=server.accepted)
    assert fault.lost == {"failed": 5}


def test_a_tls_answer_cut_off_without_a_closing_alert(fault: Scenario, trusted: trustme.CA) -> None:
    """The server sends half an answer without a length and ends the connection without the closing TLS alert."""
    service = RawService()

    def cut(inside: socket.socket) -> None:
        service.read(inside)
        inside.sendall(b'HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{"numProtoSuccess": 5')
        inside.shutdown(socket.SHUT_RDWR)  # closes the connection without a closing TLS alert

    context = server_context(trusted.issue_cert("127.0.0.1"))
    with (
        raw_endpoint(over_tls(context, cut)) as url,
        TelemetryClient(https(url), config(), auth=with_token) as client,
    ):
        send(client, 5)
    fault.settled(client.stats(), sent=5, arrived=[])
    assert fault.lost == {"rejected": 5}
    assert len(service.requests) == 1


def test_a_close_in_the_middle_of_a_tls_handshake(fault: Scenario) -> None:
    """The handshake hangs, and the program closes the client."""
    with faulty_endpoint(black_hole) as (url, reached):
        settings = config(request_timeout_ms=60_000, max_request_bytes=16_000_000)
        client = TelemetryClient(https(url), settings, auth=with_token)
        close_in_the_middle(client, reached)
    fault.settled(client.stats(), sent=101, arrived=[])


def test_a_close_in_the_middle_of_a_tls_answer(fault: Scenario, trusted: trustme.CA) -> None:
    """The answer trickles through TLS, and the program closes the client."""
    context = server_context(trusted.issue_cert("127.0.0.1"))
    with faulty_endpoint(over_tls(context, trickle)) as (url, reached):
        client = TelemetryClient(https(url), config(request_timeout_ms=60_000, max_request_bytes=16_000_000))
        close_in_the_middle(client, reached)
    fault.settled(client.stats(), sent=101, arrived=[])
