"""Broken ways to the endpoint, each diagnosed by name: proxy, name, connection, TLS."""

from __future__ import annotations

import datetime
import errno
import socket
import threading
from email.utils import format_datetime

import pytest
import trustme

from support.endpoints import (
    ConnectProxy,
    TlsTelemetryServer,
    full_backlog,
    garbage,
    https,
    over_tls,
    read_head,
    server_context,
    write_answer,
)
from support.server import Reply, TelemetryServer, raw_endpoint, refused_url
from unit.check.conftest import NAME, Check

DAY = datetime.timedelta(days=1)


def today() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)


def test_a_proxy_whose_name_is_not_known(
    diagnosed: Check, resolver: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    assert diagnosed(f"https://{NAME}") == {"name": "proxy-unknown"}


def test_a_proxy_that_does_not_run(diagnosed: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", refused_url())
    assert diagnosed(f"https://{NAME}") == {"connection": "proxy-refuses-connection"}


def test_a_proxy_that_wants_a_password(diagnosed: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    with raw_endpoint(ConnectProxy(9, authorization="Basic eA==").serve) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        assert diagnosed(f"https://{NAME}") == {"connection": "proxy-wants-credentials"}


def test_a_proxy_that_does_not_let_the_endpoint_through(
    diagnosed: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbid(connection: socket.socket) -> None:
        read_head(connection)
        write_answer(connection, "403 Forbidden", b"not allowed")

    with raw_endpoint(forbid) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        assert diagnosed(f"https://{NAME}") == {"connection": "proxy-forbids"}


def test_a_proxy_that_is_none(diagnosed: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    with raw_endpoint(garbage) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        assert diagnosed(f"https://{NAME}") == {"connection": "proxy-is-none"}


def test_a_proxy_that_works_is_no_trouble(
    diagnosed: Check, trusted: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TlsTelemetryServer(server_context(trusted.issue_cert(NAME))) as server:
        server.always = lambda request: Reply() if request.raw else Reply(404)
        proxy = ConnectProxy(server.port)
        with raw_endpoint(proxy.serve) as url:
            monkeypatch.setenv("HTTPS_PROXY", url.replace("http://", "http://user:secret@"))
            assert diagnosed(f"https://{NAME}") == {}
        assert len(server.accepted) == 1
        assert all(asked.startswith(f"CONNECT {NAME}:443 ") for asked in proxy.asked)


def test_a_host_that_is_not_known(diagnosed: Check, resolver: None) -> None:
    assert diagnosed("https://no-such-host.example") == {"name": "unknown-host"}


def test_a_name_server_that_does_not_answer(diagnosed: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def hang(*arguments: object, **options: object) -> object:
        released.wait(30)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    try:
        assert diagnosed(f"https://{NAME}", timeout=0.2) == {"name": "resolver-does-not-answer"}
    finally:
        released.set()


def test_a_machine_without_a_name_server(diagnosed: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> object:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    assert diagnosed(f"https://{NAME}") == {"name": "resolver-does-not-answer"}


def test_a_collector_that_does_not_run(diagnosed: Check) -> None:
    assert diagnosed(refused_url()) == {"connection": "connection-refused"}


def test_an_address_without_a_way_to_it(diagnosed: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> object:
        raise OSError(errno.EHOSTUNREACH, "No route to host")

    monkeypatch.setattr(socket, "create_connection", fail)
    assert diagnosed("http://127.0.0.1:8317") == {"connection": "host-unreachable"}


def test_a_firewall_that_drops_packets(diagnosed: Check) -> None:
    with full_backlog() as url:
        assert diagnosed(url, timeout=0.5) == {"connection": "connection-times-out"}


def test_a_certificate_that_has_expired(diagnosed: Check, trusted: trustme.CA) -> None:
    expired = trusted.issue_cert("127.0.0.1", not_before=today() - 2 * DAY, not_after=today() - DAY)
    with TlsTelemetryServer(server_context(expired)) as server:
        assert diagnosed(server.url) == {"TLS": "certificate-expired"}


def test_a_certificate_that_is_not_valid_yet(diagnosed: Check, trusted: trustme.CA) -> None:
    early = trusted.issue_cert("127.0.0.1", not_before=today() + DAY, not_after=today() + 2 * DAY)
    with TlsTelemetryServer(server_context(early)) as server:
        assert diagnosed(server.url) == {"TLS": "certificate-not-yet-valid"}


def test_a_clock_that_is_wrong_makes_a_certificate_seem_expired(
    diagnosed: Check, trusted: trustme.CA
) -> None:
    in_its_time = format_datetime(today() - 36 * datetime.timedelta(hours=1), usegmt=True)

    def answer(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(f"HTTP/1.1 404 Not Found\r\nDate: {in_its_time}\r\n\r\n".encode())

    expired = trusted.issue_cert("127.0.0.1", not_before=today() - 2 * DAY, not_after=today() - DAY)
    with raw_endpoint(over_tls(server_context(expired), answer)) as url:
        assert diagnosed(https(url)) == {"TLS": "clock-is-wrong"}


def test_a_certificate_for_another_host(diagnosed: Check, trusted: trustme.CA) -> None:
    with TlsTelemetryServer(server_context(trusted.issue_cert("other.example"))) as server:
        assert diagnosed(server.url) == {"TLS": "certificate-of-another-host"}


def test_a_certificate_that_is_signed_by_itself(diagnosed: Check, trusted: trustme.CA) -> None:
    # An authority's own certificate, used by a server.
    alone = trustme.CA()
    certificate = trustme.LeafCert(alone.private_key_pem.bytes(), alone.cert_pem.bytes(), [])
    with TlsTelemetryServer(server_context(certificate)) as server:
        assert diagnosed(server.url) == {"TLS": "certificate-self-signed"}


def test_a_certificate_of_an_unknown_authority(diagnosed: Check, trusted: trustme.CA) -> None:
    with TlsTelemetryServer(server_context(trustme.CA().issue_cert("127.0.0.1"))) as server:
        assert diagnosed(server.url) == {"TLS": "certificate-issuer-unknown"}


def test_https_to_a_port_that_speaks_plain_http(diagnosed: Check) -> None:
    with TelemetryServer() as server:
        assert diagnosed(https(server.url)) == {"TLS": "speaks-no-tls"}


def test_plain_http_to_a_port_that_speaks_tls(diagnosed: Check, trusted: trustme.CA) -> None:
    with TlsTelemetryServer(server_context(trusted.issue_cert("127.0.0.1"))) as server:
        assert diagnosed(server.url.replace("https://", "http://")) == {"authentication": "wants-tls"}


def test_something_in_between_that_breaks_tls(diagnosed: Check) -> None:
    def break_off(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.shutdown(socket.SHUT_RDWR)

    with raw_endpoint(break_off) as url:
        assert diagnosed(https(url)) == {"TLS": "tls-fails"}
