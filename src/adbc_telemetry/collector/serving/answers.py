"""Answers of the server itself, in the wire's form."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import msgspec

from adbc_telemetry.collector.serving.asgi import Send
from adbc_telemetry.schema import TelemetryResponse


async def send_answer(
    send: Send, status: int, sentence: str, *, retry_after: int | None = None, close: bool = False
) -> None:
    """Send a whole answer that tells one error.

    Args:
        send: the request's.
        status: of the answer.
        sentence: for `errors`.
        retry_after: seconds for `Retry-After`; None for no such header.
        close: whether the connection ends with this answer.
    """
    body = _body(sentence)
    headers = _headers(body, retry_after=retry_after, close=close)
    start: dict[str, Any] = {"type": "http.response.start", "status": status, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": body})


def raw_answer(status: int, sentence: str, *, retry_after: int | None = None) -> bytes:
    """The same as bytes, for a connection that is closed behind it."""
    body = _body(sentence)
    lines = [b"HTTP/1.1 %d %s" % (status, HTTPStatus(status).phrase.encode())]
    lines += [b"%s: %s" % header for header in _headers(body, retry_after=retry_after, close=True)]
    return b"\r\n".join([*lines, b"", body])


def _body(sentence: str) -> bytes:
    return msgspec.json.encode(TelemetryResponse(errors=[sentence]))


def _headers(body: bytes, *, retry_after: int | None, close: bool) -> list[tuple[bytes, bytes]]:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if retry_after is not None:
        headers.append((b"retry-after", b"%d" % retry_after))
    if close:
        headers.append((b"connection", b"close"))
    return headers
