"""How many connections a server takes, and connections over TLS."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import trustme

pytest.importorskip("uvicorn")
pytest.importorskip("httptools")

from adbc_telemetry.collector.serving import ServingLimits
from support.serving import ProbeApp, RawClient, clients, get, log_text, post, serving
from support.waiting import wait_until

SHORT = 0.3


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[tuple[str, str], ssl.SSLContext]:
    """Files of a certificate for `localhost` and of its key, and the context of a client that trusts it."""
    folder: Path = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    issued.private_key_pem.write_to_path(str(folder / "key.pem"))
    for pem in issued.cert_chain_pems:
        pem.write_to_path(str(folder / "cert.pem"), append=True)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return (str(folder / "cert.pem"), str(folder / "key.pem")), context


def test_connections_beyond_the_limit_are_answered_503_at_once(caplog: pytest.LogCaptureFixture) -> None:
    with serving(ProbeApp(), ServingLimits(max_connections=3)) as served, clients(served, 3) as first:
        served.wait_for_connections(3)
        for number in range(1, 6):
            with served.client() as client:
                answer = client.ask(post(b"x" * 70_000))
                assert (answer.status, answer.error) == (503, "The collector has too many connections.")
                assert answer.headers["retry-after"] == "1"
                assert answer.headers["connection"] == "close"
                assert client.ended()
            assert served.server.refused_connections == number
        assert [client.ask(get()).status for client in first] == [200, 200, 200]
        first[0].close()
        served.wait_for_connections(2)
        with served.client() as client:
            assert client.ask(get()).status == 200
    assert log_text(caplog) == "Connections are refused: 3 are open."


def test_a_refused_client_that_sends_later_still_gets_the_answer() -> None:
    with serving(ProbeApp(), ServingLimits(max_connections=1)) as served, clients(served, 1):
        served.wait_for_connections(1)
        with served.client() as late:
            wait_until(lambda: served.server.refused_connections == 1)
            late.send(b"x" * 1000)
            late.send(b"x" * 1000)
            assert late.answer().status == 503


def test_a_flood_of_connections_beyond_the_limit_holds_few_descriptors() -> None:
    with serving(ProbeApp(), ServingLimits(max_connections=1)) as served, served.client():
        served.wait_for_connections(1)
        with clients(served, 200):
            wait_until(lambda: served.server.refused_connections == 200)
            acceptor = served.server._acceptor
            assert acceptor is not None
            assert len(acceptor._leaving) <= 32


def test_requests_come_over_tls(certificate: tuple[tuple[str, str], ssl.SSLContext]) -> None:
    files, context = certificate
    with serving(ProbeApp(), tls=files, context=context) as served, served.client() as client:
        assert client.ask(post(b"x" * 300_000)).body == b'{"size": 300000}'
        assert client.ask(get()).status == 200


def test_tls_before_version_1_2_is_refused(certificate: tuple[tuple[str, str], ssl.SSLContext]) -> None:
    files, _ = certificate
    with serving(ProbeApp(), tls=files) as served:
        assert served.server._acceptor is not None
        context = served.server._acceptor._context
        assert context is not None
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_plain_http_to_a_tls_server_is_cut_off_without_a_log_line(
    certificate: tuple[tuple[str, str], ssl.SSLContext], caplog: pytest.LogCaptureFixture
) -> None:
    files, context = certificate
    with serving(ProbeApp(), tls=files, context=context) as served:
        with RawClient(served.port) as client:
            client.send(get("/secret"))
            with suppress(ConnectionError):
                while client.socket.recv(1000):  # TLS may say in its own words why
                    pass
        served.wait_for_connections(0)
        with served.client() as honest:
            assert honest.ask(get()).status == 200
    assert log_text(caplog) == ""


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01\x02\x00\x01\x00\x01"], ids=["silent", "half sent"])
def test_a_handshake_that_does_not_come_is_cut_off(
    said: bytes, certificate: tuple[tuple[str, str], ssl.SSLContext]
) -> None:
    files, context = certificate
    with (
        serving(ProbeApp(), ServingLimits(header_seconds=SHORT), tls=files, context=context) as served,
        RawClient(served.port) as client,
    ):
        client.send(said)
        served.wait_for_connections(1)
        assert client.ended()
        served.wait_for_connections(0)


def test_deadlines_and_limits_hold_over_tls(certificate: tuple[tuple[str, str], ssl.SSLContext]) -> None:
    files, context = certificate
    limits = ServingLimits(header_seconds=SHORT, body_seconds=SHORT, idle_seconds=SHORT, max_connections=2)
    with serving(ProbeApp(), limits, tls=files, context=context) as served:
        with served.client() as client:
            assert client.ask(post(b"x" * 100)[:-1]).status == 408
        with served.client() as client:
            assert client.ask(b"POST / HT").status == 408
        with served.client() as idle:
            assert idle.ask(get()).status == 200
            assert idle.ended()
        served.wait_for_connections(0)


def test_a_tls_client_that_never_says_goodbye_is_let_go(
    certificate: tuple[tuple[str, str], ssl.SSLContext],
) -> None:
    files, context = certificate
    limits = ServingLimits(idle_seconds=SHORT, answer_seconds=SHORT)
    with serving(ProbeApp(), limits, tls=files, context=context) as served, served.client() as client:
        assert client.ask(get()).status == 200
        served.wait_for_connections(0)  # the client does not read, so it does not answer


def test_the_end_does_not_wait_for_handshakes(
    certificate: tuple[tuple[str, str], ssl.SSLContext], caplog: pytest.LogCaptureFixture
) -> None:
    files, _ = certificate
    caplog.set_level(logging.INFO)
    with ExitStack() as stack:
        with serving(ProbeApp(), tls=files) as served:
            for _ in range(5):
                stack.enter_context(RawClient(served.port))
            served.wait_for_connections(5)
            began = time.monotonic()
        assert time.monotonic() - began < 5
    assert log_text(caplog) == ""


def test_a_socket_of_ipv6_is_served_as_well() -> None:
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    from adbc_telemetry.collector.serving import BackgroundServer

    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6 on loopback")
    server = BackgroundServer(ProbeApp())
    address = listener.getsockname()
    server.start(listener)
    with socket.create_connection(address[:2]) as client:
        client.sendall(get())
        assert client.recv(100).startswith(b"HTTP/1.1 200")
    server.stop()
    assert "adbc-telemetry-collector" not in [thread.name for thread in threading.enumerate()]
