"""The HTTP server: requests, the application's life, and what it says when it does not come up."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("uvicorn")
pytest.importorskip("httptools")

from adbc_telemetry.collector.rarely import RareLog
from adbc_telemetry.collector.serving import BackgroundServer, ServingLimits
from adbc_telemetry.collector.serving.limits import connection_limit
from support.serving import ProbeApp, get, log_text, post, request_head, serving
from support.waiting import wait_until


def listener() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def test_one_connection_serves_request_after_request() -> None:
    with serving(ProbeApp()) as served, served.client() as client:
        for size in (0, 10, 200_000):
            answer = client.ask(post(b"x" * size))
            assert (answer.status, answer.body) == (200, b'{"size": %d}' % size)
            assert "date" in answer.headers
        assert served.server.open_connections == 1


def test_a_body_in_chunks_is_read() -> None:
    with serving(ProbeApp()) as served, served.client() as client:
        answer = client.ask(request_head(Transfer_Encoding="chunked") + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
        assert answer.body == b'{"size": 5}'
        assert client.ask(get()).status == 200


def test_a_client_that_asks_before_it_sends_is_told_to_go_on() -> None:
    with serving(ProbeApp()) as served, served.client() as client:
        client.send(request_head(Content_Length=3, Expect="100-continue"))
        assert client.socket.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert client.ask(b"abc").body == b'{"size": 3}'


def test_accepted_connections_do_not_wait_to_fill_packets() -> None:
    seen: list[int] = []

    class App(ProbeApp):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                [connection] = served.server._connections()
                found = connection._raw.get_extra_info("socket")
                seen.append(found.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            await super().__call__(scope, receive, send)

    with serving(App()) as served, served.client() as client:
        assert client.ask(get()).status == 200
    assert seen
    assert all(seen)


def test_a_request_that_comes_before_the_answer_to_the_last_one_closes_the_connection_after_that_answer() -> (
    None
):
    app = ProbeApp()
    with serving(app) as served, served.client() as client:
        client.send(post(b"a") * 1000)
        assert client.answer().body == b'{"size": 1}'
        assert client.ended()
        assert app.requests == ["/telemetry-ext"]


def test_the_application_starts_before_and_stops_after_the_requests() -> None:
    app = ProbeApp()
    with serving(app) as served, served.client() as client:
        assert app.events == ["started"]
        assert client.ask(get()).status == 200
    assert app.events == ["started", "stopped"]


def test_what_the_application_keeps_from_its_start_is_there_for_its_requests() -> None:
    found = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            scope["state"]["journal"] = "a journal"
        else:
            found.append(scope["state"]["journal"])
        await ProbeApp()(scope, receive, send)

    with serving(app) as served, served.client() as client:
        assert client.ask(get()).status == 200
    assert found == ["a journal"]


def test_work_of_ones_own_runs_on_the_loop() -> None:
    async def where() -> str:
        return threading.current_thread().name

    with serving(ProbeApp()) as served:
        ran = asyncio.run_coroutine_threadsafe(where(), served.server.loop).result(10)
        assert ran == "adbc-telemetry-collector"


def failing_with(error: Exception) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "a long traceback"})
        raise error

    return app


def test_an_application_that_does_not_start_is_told_with_its_reason() -> None:
    cause = OSError("the store is in use")
    server = BackgroundServer(failing_with(cause))
    at = listener()
    with pytest.raises(RuntimeError, match=r"^the store is in use$") as raised:
        server.start(at)
    assert raised.value.__cause__ is cause
    assert at.fileno() == -1, "the port is free again"


async def says_no(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no room"})


async def ends_at_once(scope: Any, receive: Any, send: Any) -> None:
    await receive()


@pytest.mark.parametrize(
    ("app", "reason"), [(says_no, "no room"), (ends_at_once, "the application ended when it should start")]
)
def test_an_application_may_fail_to_start_in_other_ways(app: Any, reason: str) -> None:
    with pytest.raises(RuntimeError, match=reason):
        BackgroundServer(app).start(listener())


def test_files_that_are_no_certificate_are_named(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("not a certificate")
    for name in ("cert.pem", "missing.pem"):
        server = BackgroundServer(ProbeApp(), tls=(str(tmp_path / name), str(tmp_path / "key.pem")))
        with pytest.raises(RuntimeError, match=rf"{name} and the key .* cannot be used"):
            server.start(listener())


def test_a_server_runs_once() -> None:
    with (
        serving(ProbeApp()) as served,
        listener() as another,
        pytest.raises(RuntimeError, match="a server runs once"),
    ):
        served.server.start(another)
    served.server.stop()  # once more


def test_an_exception_of_the_application_is_a_500_and_its_text_is_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with serving(ProbeApp()) as served:
        for _ in range(3):
            with served.client() as client:
                answer = client.ask(post(b"", path="/boom"))
                assert answer.status == 500
                assert answer.error == "The collector could not do this."
    assert log_text(caplog) == "A request failed with ValueError."


def test_an_exception_after_the_answer_has_begun_ends_the_connection() -> None:
    class App(ProbeApp):
        async def _answer(self, send: Any, size: int) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            raise ValueError

    with serving(App()) as served, served.client() as client:
        client.send(get())
        received = b""
        while piece := client.socket.recv(1000):
            received += piece
        assert received.startswith(b"HTTP/1.1 200")
        assert not received.endswith(b"0\r\n\r\n")


def test_an_exception_in_the_loop_is_one_line_in_ten_seconds(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise KeyError("secret of the loop")

    with serving(ProbeApp()) as served, served.client() as client:
        for _ in range(100):
            served.server.loop.call_soon_threadsafe(fail)
        assert client.ask(get()).status == 200
    assert log_text(caplog) == "Something went wrong in the server's loop: KeyError."


def test_the_access_log_names_routes_and_nothing_that_a_client_chose(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    routes = ["/telemetry-ext", "/flags/{client}/{version}"]
    with serving(ProbeApp(), access_log=True, routes=routes) as served, served.client() as client:
        client.ask(post(b"secret", path="/telemetry-ext?secret=1", X_Secret="secret"))
        client.ask(get("/flags/secret/1.2"))
        client.ask(get("/secret"))
        wait_until(lambda: len(caplog.records) == 3)
    lines = [record.getMessage().rsplit(" ", 2) for record in caplog.records]
    assert [line for line, *_ in lines] == [
        "POST /telemetry-ext 200",
        "GET /flags/{client}/{version} 200",
        "GET (other) 200",
    ]
    assert all(float(millis) >= 0 and unit == "ms" for _, millis, unit in lines)


def test_without_an_access_log_a_request_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with serving(ProbeApp()) as served, served.client() as client:
        client.ask(get())
    assert log_text(caplog) == ""


def test_trouble_of_one_kind_is_logged_every_ten_seconds_with_its_number(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = [0.0]
    rare = RareLog(logging.getLogger("test"), clock=lambda: now[0])
    for now[0] in (0.0, 1.0, 9.9, 10.0, 19.9, 30.0):
        rare.warn("a", "It happens.")
    rare.warn("b", "Another thing.")
    assert log_text(caplog).splitlines() == [
        "It happens.",
        "It happens. (2 more since the last line.)",
        "It happens. (1 more since the last line.)",
        "Another thing.",
    ]


def test_a_limit_is_above_zero() -> None:
    with pytest.raises(ValueError, match="idle_seconds must be above zero"):
        ServingLimits(idle_seconds=0)


@pytest.mark.parametrize(
    ("descriptors", "tls", "most"),
    [(100_000, False, 2000), (100_000, True, 800), (1024, False, 896), (100, False, 50), (1, False, 1)],
)
def test_connections_are_limited_by_the_descriptors_of_the_process(
    descriptors: int, tls: bool, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adbc_telemetry.collector.serving.limits._descriptors", lambda: descriptors)
    assert connection_limit(ServingLimits(), tls=tls) == most
    assert connection_limit(ServingLimits(max_connections=7), tls=tls) == 7
