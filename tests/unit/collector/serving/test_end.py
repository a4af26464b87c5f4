"""The end of a server: graceful, and by its deadline whatever clients do."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
import time
from contextlib import ExitStack
from typing import Any

import pytest

pytest.importorskip("uvicorn")
pytest.importorskip("httptools")

from adbc_telemetry.collector.serving import ServingLimits
from support.serving import ProbeApp, RawClient, Served, get, log_text, post, request_head, serving
from support.waiting import wait_until

GRACE = 0.5
STOPPING = "The collector is stopping."


def refuses_connections(served: Served) -> bool:
    try:
        with RawClient(served.port):
            return False
    except ConnectionRefusedError:
        return True


def test_idle_connections_do_not_hold_the_end_up() -> None:
    with ExitStack() as stack:
        with serving(ProbeApp()) as served:
            fresh, used = stack.enter_context(served.client()), stack.enter_context(served.client())
            assert used.ask(get()).status == 200
            served.wait_for_connections(2)
            began = time.monotonic()
        assert time.monotonic() - began < 4  # of 8
        assert fresh.ended()
        assert used.ended()


def test_a_request_under_way_gets_its_answer_and_new_connections_are_refused() -> None:
    app = ProbeApp()
    with serving(app) as served, served.client() as client:
        client.send(post(b"abc", path="/held"))
        wait_until(lambda: app.requests == ["/held"])
        served.server.handle_signal(signal.SIGTERM, None)
        wait_until(lambda: refuses_connections(served))
        assert app.events == ["started"]
        app.release()
        answer = client.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert client.ended()
        served.server.join()
    assert app.events == ["started", "stopped"]


def test_the_rest_of_a_body_is_taken_while_the_server_ends() -> None:
    app = ProbeApp()
    with serving(app) as served, served.client() as slow_head, served.client() as slow_body:
        slow_head.send(b"POST / HTTP/1.1\r\n")
        slow_body.send(request_head(Content_Length=3) + b"a")
        wait_until(lambda: len(app.requests) == 1)
        served.wait_for_connections(2)
        served.server.handle_signal(signal.SIGTERM, None)
        wait_until(lambda: refuses_connections(served))
        assert slow_body.ask(b"bc").body == b'{"size": 3}'
        assert slow_head.ask(b"Host: x\r\nContent-Length: 1\r\n\r\nx").headers["connection"] == "close"
        assert slow_head.ended()


def test_the_end_comes_by_its_deadline_whatever_clients_do(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    app = ProbeApp(pieces=10_000)
    with ExitStack() as stack:
        with serving(app, ServingLimits(graceful_seconds=GRACE)) as served:
            half_head, half_body, held, streaming, unread = (
                stack.enter_context(served.client(small_buffer=number == 4)) for number in range(5)
            )
            half_head.send(b"POST / HTTP/1.1\r\nX: ")
            half_body.send(request_head(Content_Length=100) + b"half")
            held.send(post(b"x", path="/held"))
            streaming.send(get("/stream"))
            unread.send(get("/big"))
            wait_until(lambda: len(app.requests) == 4)
            served.wait_for_connections(5)
            began = time.monotonic()
        taken = time.monotonic() - began
        assert GRACE <= taken < GRACE + 2
        for client in (half_head, half_body, held):
            answer = client.answer()
            assert (answer.status, answer.error, answer.headers["retry-after"]) == (503, STOPPING, "1")
    assert app.events == ["started", "stopped"]
    assert log_text(caplog) == ""


def test_an_application_that_cannot_be_cancelled_does_not_hold_the_end_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    go_on = threading.Event()

    class Stubborn(ProbeApp):
        async def _answer(self, send: Any, size: int) -> None:
            while not go_on.is_set():
                try:
                    await asyncio.sleep(0.01)
                except asyncio.CancelledError:
                    continue

    app = Stubborn()
    limits = ServingLimits(graceful_seconds=GRACE)
    with serving(app, limits) as served, served.client() as client:
        client.send(get())
        wait_until(lambda: len(app.requests) == 1)
        began = time.monotonic()
        served.server.stop()
        assert time.monotonic() - began < GRACE + 3
        go_on.set()
    assert log_text(caplog) == "1 tasks do not end and are left behind."


def test_a_second_signal_cuts_requests_off() -> None:
    app = ProbeApp()
    with serving(app, ServingLimits(graceful_seconds=60)) as served, served.client() as client:
        client.send(post(b"", path="/held"))
        wait_until(lambda: app.requests == ["/held"])
        began = time.monotonic()
        served.server.handle_signal(signal.SIGINT, None)
        wait_until(lambda: refuses_connections(served))
        served.server.handle_signal(signal.SIGINT, None)
        assert client.answer().error == STOPPING
        served.server.join()
        assert time.monotonic() - began < 10
    assert app.events == ["started", "stopped"]


def test_a_request_that_the_application_gives_up_when_cancelled_ends_quietly(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Began(ProbeApp):
        async def _answer(self, send: Any, size: int) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await self._released.wait()

    app = Began()
    with serving(app, ServingLimits(graceful_seconds=GRACE)) as served, served.client() as client:
        client.send(get())
        assert client.socket.recv(10) == b"HTTP/1.1 2"
        served.server.stop()
    assert log_text(caplog) == ""


def test_an_application_that_fails_to_stop_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        raise OSError("secret of the disk")

    with serving(app):
        pass
    assert log_text(caplog) == "The application ended with OSError."
