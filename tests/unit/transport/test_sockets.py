"""Sockets of requests that are cancelled."""

from __future__ import annotations

import gc
import socket
import time
import warnings
from typing import Any

import pytest

from adbc_telemetry.transport.sockets import RequestUnderWay, connect, under_way


def test_a_request_that_is_cancelled_while_it_connects_leaves_no_socket_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The program has a class of sockets of its own, so that the connection is taken over when it is made."""
    request = RequestUnderWay(time.monotonic() + 10)

    class ProgramsSocket(socket.socket):
        def connect(self, address: Any) -> None:
            super().connect(address)
            request.cancel()

    monkeypatch.setattr(socket, "socket", ProgramsSocket)
    monkeypatch.setattr(under_way, "request", request)
    with socket.create_server(("127.0.0.1", 0)) as listener, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with pytest.raises(TimeoutError):
            connect("127.0.0.1", listener.getsockname()[1])
        request.socket = None
        gc.collect()
    assert [str(warning.message) for warning in warned] == []
