"""Clients that take their time, or send what is no request: each meets a deadline or a limit."""

from __future__ import annotations

import socket
import time
from contextlib import suppress

import pytest

pytest.importorskip("uvicorn")
pytest.importorskip("httptools")

from adbc_telemetry.collector.serving import ServingLimits
from support.serving import PIECE, ProbeApp, RawClient, get, log_text, post, request_head, serving
from support.waiting import wait_until

SHORT = 0.3
LATE = "The request did not come in time."


def limits(**short: float) -> ServingLimits:
    """Limits that no test meets, except those given."""
    names = ("header_seconds", "idle_seconds", "body_seconds", "answer_seconds")
    return ServingLimits(**{**dict.fromkeys(names, 60.0), **short})  # type: ignore[arg-type]


def drip(client: RawClient, data: bytes = b"x", pause: float = 0.02) -> int:
    """Send a piece at a time until the server has something to say or ends; returns the number sent."""
    client.socket.settimeout(pause)
    sent = 0
    with suppress(ConnectionError):
        while True:
            client.send(data)
            sent += 1
            with suppress(TimeoutError):
                client.socket.recv(1, socket.MSG_PEEK)
                break
    client.socket.settimeout(20)
    return sent


def test_half_sent_headers_are_answered_408() -> None:
    with serving(ProbeApp(), limits(header_seconds=SHORT)) as served, served.client() as client:
        began = time.monotonic()
        client.send(b"POST /telemetry-ext HTTP/1.1\r\nHost: loc")
        answer = client.answer()
        assert (answer.status, answer.error) == (408, LATE)
        assert answer.headers["connection"] == "close"
        assert SHORT <= time.monotonic() - began < 5
        assert client.ended()
        client.close()
        served.wait_for_connections(0)


def test_headers_that_come_byte_by_byte_are_answered_408() -> None:
    with serving(ProbeApp(), limits(header_seconds=SHORT)) as served, served.client() as client:
        client.send(b"POST /telemetry-ext HTTP/1.1\r\nX-Slow: ")
        assert drip(client) > 3
        assert client.answer().status == 408


def test_half_sent_headers_of_a_later_request_are_answered_408() -> None:
    with serving(ProbeApp(), limits(header_seconds=SHORT)) as served, served.client() as client:
        assert client.ask(get()).status == 200
        assert client.ask(b"POST /telemetry-ext HTTP/1.1\r\n").error == LATE


def test_a_connection_on_which_nothing_is_said_is_closed() -> None:
    with serving(ProbeApp(), limits(header_seconds=SHORT)) as served, served.client() as client:
        assert client.ended()


def test_a_connection_that_idles_between_requests_is_closed() -> None:
    with serving(ProbeApp(), limits(idle_seconds=SHORT)) as served, served.client() as client:
        assert client.ask(get()).status == 200
        began = time.monotonic()
        assert client.ended()
        assert SHORT - 0.1 <= time.monotonic() - began < 5


def test_empty_lines_do_not_keep_an_idle_connection() -> None:
    with serving(ProbeApp(), limits(idle_seconds=SHORT)) as served, served.client() as client:
        assert client.ask(get()).status == 200
        assert drip(client, b"\r\n") > 3
        assert client.ended()


def test_a_connection_in_use_outlives_the_deadlines() -> None:
    short = ServingLimits(header_seconds=SHORT, idle_seconds=SHORT, body_seconds=SHORT, answer_seconds=SHORT)
    with serving(ProbeApp(), short) as served, served.client() as client:
        until = time.monotonic() + 4 * SHORT
        while time.monotonic() < until:
            assert client.ask(post(b"x" * 1000)).status == 200


def test_a_half_sent_body_is_answered_408_and_the_application_learns_that_the_client_is_gone() -> None:
    app = ProbeApp()
    with serving(app, limits(body_seconds=SHORT)) as served, served.client() as client:
        began = time.monotonic()
        client.send(request_head(Content_Length=100) + b"half of it")
        answer = client.answer()
        assert (answer.status, answer.error) == (408, LATE)
        assert SHORT <= time.monotonic() - began < 5
        wait_until(lambda: app.disconnects == 1)
        assert client.ended()


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        pytest.param(request_head(Content_Length=10**6), b"x", id="by length"),
        pytest.param(request_head(Transfer_Encoding="chunked"), b"1\r\nx\r\n", id="in chunks"),
    ],
)
def test_a_body_that_comes_byte_by_byte_is_answered_408(head: bytes, piece: bytes) -> None:
    with serving(ProbeApp(), limits(body_seconds=SHORT)) as served, served.client() as client:
        client.send(head)
        assert drip(client, piece) > 3
        assert client.answer().error == LATE


def test_an_application_that_reads_slowly_is_not_taken_for_a_slow_client() -> None:
    class Slow(ProbeApp):
        async def __call__(self, scope: object, receive: object, send: object) -> None:
            if scope["type"] == "http":  # type: ignore[index]
                await self._released.wait()
            await super().__call__(scope, receive, send)

    app = Slow()
    with serving(app, limits(body_seconds=SHORT)) as served, served.client() as client:
        client.socket.settimeout(4 * SHORT)
        with pytest.raises(TimeoutError):
            client.ask(post(b"x" * 10_000_000))  # more than the buffers of both ends
        app.release()
        # What was not sent is not sent any more: the client gives up, the server has not.
        served.wait_for_connections(1)


def test_an_application_may_take_its_time() -> None:
    app = ProbeApp()
    short = ServingLimits(header_seconds=SHORT, idle_seconds=SHORT, body_seconds=SHORT, answer_seconds=SHORT)
    with serving(app, short) as served, served.client() as client:
        client.socket.settimeout(4 * SHORT)
        with pytest.raises(TimeoutError):
            client.ask(post(b"", path="/held"))
        client.socket.settimeout(20)
        app.release()
        assert client.answer().status == 200


def test_a_stream_of_small_pieces_outlives_the_deadlines() -> None:
    short = ServingLimits(
        header_seconds=SHORT,
        idle_seconds=SHORT,
        body_seconds=SHORT,
        answer_seconds=SHORT,
        graceful_seconds=SHORT,
    )
    with serving(ProbeApp(), short) as served, served.client() as client:
        client.send(get("/stream"))
        until = time.monotonic() + 4 * SHORT
        while time.monotonic() < until:
            assert client.socket.recv(100)


def test_a_client_that_does_not_read_its_answer_is_cut_off_and_the_answer_is_not_piled_up() -> None:
    app = ProbeApp(pieces=1000)
    with (
        serving(app, limits(answer_seconds=SHORT)) as served,
        served.client(small_buffer=True) as client,
    ):
        client.send(get("/big"))
        wait_until(lambda: app.sent_pieces > 0)
        sent = 0
        while served.server.open_connections:
            sent = (
                pieces if (pieces := app.sent_pieces) < app.pieces else sent
            )  # after the end they go nowhere
            time.sleep(0.01)
        assert 0 < sent * len(PIECE) < 20_000_000


def test_a_client_that_leaves_the_end_of_its_answer_unread_is_cut_off() -> None:
    class Whole(ProbeApp):
        async def _answer(self, send: object, size: int) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})  # type: ignore[operator]
            await send({"type": "http.response.body", "body": PIECE * 200})  # type: ignore[operator]

    with (
        serving(Whole(), limits(answer_seconds=SHORT, idle_seconds=SHORT)) as served,
        served.client(small_buffer=True) as client,
    ):
        client.send(get())
        served.wait_for_connections(1)
        served.wait_for_connections(0)


def large(size: int) -> bytes:
    return request_head("GET", "/", X_Large="x" * size)


@pytest.mark.parametrize(
    "request_of_it",
    [
        pytest.param(large(100_000), id="one value"),
        pytest.param(request_head("GET", "/" + "x" * 100_000), id="the path"),
        pytest.param(
            request_head("GET", "/", **{f"X-{number}": "x" * 100 for number in range(500)}), id="many"
        ),
        pytest.param(large(100_000)[:60_000], id="half sent"),
    ],
)
def test_headers_that_are_too_large_are_answered_431(request_of_it: bytes) -> None:
    app = ProbeApp()
    with serving(app) as served, served.client() as client:
        answer = client.ask(request_of_it)
        assert (answer.status, answer.error) == (431, "The headers are too large.")
        assert client.ended()
        assert app.requests == []


def test_headers_of_the_size_allowed_are_taken() -> None:
    with serving(ProbeApp()) as served, served.client() as client:
        assert client.ask(large(30_000)).status == 200


@pytest.mark.parametrize(
    "endless",
    [
        pytest.param(b"0\r\nX-Trailer: ", id="a trailer"),
        pytest.param(b"1;x=", id="an extension of a chunk"),
    ],
)
def test_what_stands_beside_the_chunks_of_a_body_is_limited_as_well(endless: bytes) -> None:
    with serving(ProbeApp()) as served, served.client() as client:
        client.send(request_head(Transfer_Encoding="chunked") + b"3\r\nabc\r\n" + endless)
        with suppress(ConnectionError):
            for _ in range(200):
                client.send(b"x" * 1000)
        with suppress(ConnectionError):
            assert client.answer().status == 431
        client.close()
        served.wait_for_connections(0)


def test_trailers_are_read_and_left_out() -> None:
    with serving(ProbeApp()) as served, served.client() as client:
        client.send(request_head(Transfer_Encoding="chunked") + b"3\r\nabc\r\n0\r\nX-Trailer: a\r\n\r\n")
        assert client.answer().body == b'{"size": 3}'
        assert client.ask(get()).status == 200


@pytest.mark.parametrize(
    "nonsense",
    [
        pytest.param(b"secret\r\n\r\n", id="no request"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00", id="TLS"),
        pytest.param(b"GET / HTTP/1.1\r\nsecret header\r\n\r\n", id="no header"),
        pytest.param(request_head(Content_Length="secret"), id="no length"),
        pytest.param(request_head(Content_Length=1, Transfer_Encoding="chunked"), id="two lengths"),
        pytest.param(request_head("CONNECT", "secret:443"), id="a proxy's request"),
        pytest.param(request_head("GET", "/%ff\xff"), id="bytes in the path"),
    ],
)
def test_what_is_no_http_is_answered_400_and_not_logged(
    nonsense: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    with serving(ProbeApp()) as served, served.client() as client:
        answer = client.ask(nonsense)
        assert (answer.status, answer.error) == (400, "This is not HTTP.")
        assert client.ended()
    assert log_text(caplog).replace("Using selector: EpollSelector", "").strip() == ""


def test_a_body_that_breaks_in_the_middle_is_answered_400() -> None:
    with serving(ProbeApp()) as served, served.client() as client:
        answer = client.ask(request_head(Transfer_Encoding="chunked") + b"3\r\nabc\r\nno number\r\n")
        assert answer.error == "This is not HTTP."


def test_a_request_to_speak_another_protocol_is_answered_as_http_and_the_connection_ends() -> None:
    with serving(ProbeApp()) as served, served.client() as client:
        request = request_head("GET", "/", Connection="Upgrade", Upgrade="websocket")
        assert client.ask(request).status == 200
        client.send(b"\x81\x05hello")
        assert client.ended()


def test_a_client_that_ends_in_the_middle_leaves_nothing_behind() -> None:
    app = ProbeApp()
    with serving(app) as served:
        for beginning in (b"", b"POST ", request_head(Content_Length=9) + b"x"):
            with served.client() as client:
                client.send(beginning)
        served.wait_for_connections(0)
        wait_until(lambda: app.disconnects == 1)
