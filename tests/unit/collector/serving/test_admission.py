"""How many requests, and how many bytes of them, are let in at once."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("httptools")

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from adbc_telemetry.collector.serving import AdmissionControl, admission
from support.serving import ProbeApp, Served, clients, get, log_text, post, request_head, serving
from support.waiting import wait_until

BUSY = "The collector has too much to do; send it again later."


@contextmanager
def admitting(app: Any, **limits: int) -> Iterator[tuple[AdmissionControl, Served]]:
    control = AdmissionControl(app, **limits)
    with serving(control) as served:
        yield control, served
    assert (control.requests, control.bytes) == (0, 0)


def half_sent(sent: int, promised: int = 1000) -> bytes:
    return request_head(Content_Length=promised) + b"x" * sent


def refused(served: Served, request: bytes) -> bool:
    """Whether a request is refused in the form and with the headers that it must have."""
    with served.client() as client:
        answer = client.ask(request)
        if answer.status == 200:
            return False
        assert (answer.status, answer.error, answer.headers["retry-after"]) == (503, BUSY, "1")
        assert client.ended()
        return True


def test_requests_beyond_the_number_are_refused_without_reading_them() -> None:
    app = ProbeApp()
    with admitting(app, max_requests=2) as (control, served):
        with clients(served, 2, post(b"abc", path="/held")) as held:
            wait_until(lambda: control.requests == 2)
            assert control.bytes == 6
            assert refused(served, post(b"x" * 1_000_000))
            assert refused(served, half_sent(0)), "nothing of it has to come"
            assert control.refused == 2
            with served.client() as client:
                assert client.ask(get()).status == 200, "a GET passes"
            app.release()
            assert [client.answer().status for client in held] == [200, 200]
        assert not refused(served, post(b"x"))
        assert "/telemetry-ext" in app.requests


def test_a_request_whose_body_comes_when_there_is_no_place_any_more_is_refused() -> None:
    app = ProbeApp()
    with admitting(app, max_requests=1) as (control, served), served.client() as slow:
        slow.send(half_sent(999))
        wait_until(lambda: control.bytes == 999)
        with clients(served, 1, post(b"", path="/held")):
            wait_until(lambda: control.requests == 1)
            answer = slow.ask(b"x")
            assert (answer.status, answer.error) == (503, BUSY)
            app.release()


def test_half_sent_bodies_take_no_place_from_others() -> None:
    with admitting(ProbeApp(), max_requests=1) as (control, served), clients(served, 20, half_sent(10)):
        wait_until(lambda: control.bytes == 200)
        assert control.requests == 0
        assert not refused(served, post(b"x"))


def test_bytes_that_are_promised_take_no_room_but_bytes_that_do_not_fit_are_refused_up_front() -> None:
    app = ProbeApp()
    with (
        admitting(app, max_bytes=10_000) as (control, served),
        clients(served, 5, half_sent(1500, promised=2500)),
    ):
        wait_until(lambda: control.bytes == 7500)
        assert not refused(served, post(b"x" * 2500))
        assert refused(served, half_sent(0, promised=2501))
        assert len(app.requests) == 6


def test_bytes_are_counted_as_they_come_where_no_length_is_told() -> None:
    app = ProbeApp()
    with admitting(app, max_bytes=10_000) as (control, served), clients(served, 1, half_sent(9000, 9999)):
        wait_until(lambda: control.bytes == 9000)
        assert refused(served, request_head(Transfer_Encoding="chunked") + b"7d0\r\n" + b"x" * 2000)
        wait_until(lambda: control.bytes == 9000)
        assert app.disconnects == 1


def test_the_bodies_that_have_been_coming_for_longest_give_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "_PATIENCE", 0.0)
    app = ProbeApp()
    with admitting(app, max_bytes=10_000) as (control, served), served.client() as oldest:
        oldest.send(half_sent(5000, 5001))
        wait_until(lambda: control.bytes == 5000)
        with clients(served, 1, half_sent(4000, 5000)) as [younger]:
            wait_until(lambda: control.bytes == 9000)
            assert not refused(served, post(b"x" * 4000))
            assert oldest.answer().error == BUSY
            assert oldest.ended()
            assert younger.ask(b"x" * 1000).status == 200
    assert app.disconnects == 1


def test_a_request_that_is_worked_on_does_not_give_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "_PATIENCE", 0.0)
    app = ProbeApp()
    with (
        admitting(app, max_bytes=10_000) as (control, served),
        clients(served, 1, post(b"x" * 9000, path="/held")) as [held],
    ):
        wait_until(lambda: control.requests == 1)
        assert refused(served, post(b"x" * 2000))
        app.release()
        assert held.answer().status == 200


def test_a_body_that_can_never_be_held_is_answered_413() -> None:
    app = ProbeApp()
    with admitting(app, max_bytes=1000) as (control, served), served.client() as client:
        answer = client.ask(post(b"x" * 1001))
        assert (answer.status, answer.error) == (413, "The body is larger than 1000 bytes.")
        assert client.ended()
        assert (control.refused, app.requests) == (0, [])


def test_the_application_charges_what_it_makes_of_a_body() -> None:
    app = ProbeApp()
    with admitting(app, max_bytes=10_000) as (control, served):
        assert control.hold(9000)
        assert not control.hold(1001)
        assert control.bytes == 9000
        assert refused(served, post(b"x" * 1001))
        control.release(9000)
        assert not refused(served, post(b"x" * 1001))


def test_a_client_that_goes_on_sending_after_a_refusal_still_gets_the_answer() -> None:
    with admitting(ProbeApp(), max_bytes=1000) as (_, served), served.client() as client:
        client.send(half_sent(1000, promised=1_000_000))
        assert client.socket.recv(1, socket.MSG_PEEK) == b"H"  # the answer is there
        for _ in range(20):
            client.send(b"x" * 10_000)
        assert client.answer().status == 413
        assert client.ended()


def test_a_client_that_sends_for_ever_after_a_refusal_is_cut_off() -> None:
    began = time.monotonic()
    with admitting(ProbeApp(), max_bytes=1000) as (_, served), served.client() as client:
        with suppress(ConnectionError):
            client.send(half_sent(1000, promised=10**9))
            while time.monotonic() - began < 20:
                client.send(b"x" * 1000)
        assert time.monotonic() - began < 15
        served.wait_for_connections(0)


def test_a_client_that_goes_in_the_middle_of_its_body_leaves_nothing_held() -> None:
    with admitting(ProbeApp()) as (control, served):
        with clients(served, 1, half_sent(500)):
            wait_until(lambda: control.bytes == 500)
        wait_until(lambda: control.bytes == 0)
        assert control.refused == 0


def test_an_application_that_fails_leaves_nothing_held() -> None:
    with admitting(ProbeApp()) as (control, served), served.client() as client:
        assert client.ask(post(b"abc", path="/boom")).status == 500
        wait_until(lambda: control.bytes == 0)


def test_an_application_of_starlette_does_not_answer_in_its_stead(caplog: pytest.LogCaptureFixture) -> None:
    async def collect(request: Request) -> Response:
        return Response(str(len(await request.body())))

    app = Starlette(routes=[Route("/telemetry-ext", collect, methods=["POST"])])
    with admitting(app, max_bytes=10_000) as (control, served), clients(served, 1, half_sent(9000, 9999)):
        wait_until(lambda: control.bytes == 9000)
        assert refused(served, request_head(Transfer_Encoding="chunked") + b"7d0\r\n" + b"x" * 2000)
        assert not refused(served, post(b"x" * 10))
    assert log_text(caplog) == ""


def test_retry_after_is_as_told() -> None:
    with admitting(ProbeApp(), max_bytes=1, retry_after=7) as (control, served), served.client() as client:
        assert control.hold(1)
        assert client.ask(post(b"x")).headers["retry-after"] == "7"
        control.release(1)
