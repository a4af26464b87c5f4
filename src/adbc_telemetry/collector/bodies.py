"""Reads a request's body: bounded as it comes, and bounded again when it is decompressed."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Final

from starlette.requests import Request

from adbc_telemetry.core import zstd

MAX_BODY_BYTES: Final = 8 * 1024 * 1024
"""The largest body, as it comes over the wire and decompressed."""
_PIECE: Final = 256 * 1024
_WINDOW: Final = 64 * 1024
_MAX_MEMBERS: Final = 1000
_ZSTD_WINDOW_LOG: Final = 23  # 8 MiB: what RFC 9659 allows over HTTP
_GZIP: Final = 31  # zlib's number for a gzip header and the largest window


class RefusedBody(Exception):
    """A body that is not read further.

    Args:
        status: of the answer.
        sentence: for the sender.
    """

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


async def read_body(request: Request) -> bytes:
    """The body as it came.

    Raises:
        RefusedBody: it is too large (413).
        ClientDisconnect: it did not come to its end.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > MAX_BODY_BYTES:
        raise _too_large()
    pieces = []
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size > MAX_BODY_BYTES:
            raise _too_large()
        pieces.append(piece)
    return b"".join(pieces)


def decompressed(body: bytes, encoding: str, hold: Callable[[int], None]) -> bytes:
    """A body without its content encoding.

    Args:
        body: as it came.
        encoding: the header `Content-Encoding`.
        hold: called with the bytes of each decompressed piece, before the next one; it may raise.

    Raises:
        RefusedBody: it is too large (413), damaged (400), or of an encoding that is not known (415).
    """
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding == "zstd" and zstd.is_available():
        return _of_zstd(body, hold)
    if encoding not in ("gzip", "x-gzip"):
        known = "gzip, zstd or identity" if zstd.is_available() else "gzip or identity"
        raise RefusedBody(415, f"The body's encoding must be {known}.")
    pieces = []
    size = 0
    stream = zlib.decompressobj(_GZIP)
    members = 1
    position = 0
    try:
        while position < len(body) or stream.unconsumed_tail:
            if stream.eof:  # a gzip body may have several members
                members += 1
                if members > _MAX_MEMBERS:
                    raise RefusedBody(400, f"The gzip body has more than {_MAX_MEMBERS} members; send one.")
                stream = zlib.decompressobj(_GZIP)
            # zlib copies what it leaves over. So it gets a little at a time: with the whole body, many small members
            # would take hours.
            window = stream.unconsumed_tail or body[position : position + _WINDOW]
            if not stream.unconsumed_tail:
                position += len(window)
            piece = stream.decompress(window, _PIECE)
            position -= len(stream.unused_data)
            size += len(piece)
            if size > MAX_BODY_BYTES:
                raise _too_large()
            hold(len(piece))
            pieces.append(piece)
    except zlib.error:
        raise RefusedBody(400, "The body is not gzip.") from None
    if body and not stream.eof:
        raise RefusedBody(400, "The gzip body is incomplete.")
    return b"".join(pieces)


def _of_zstd(body: bytes, hold: Callable[[int], None]) -> bytes:
    module = zstd.zstd()
    # Of a larger window, the decompressor would take its memory at once.
    window = {module.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG}
    stream = module.ZstdDecompressor(options=window)
    pieces = []
    size = 0
    left = body
    try:
        while not stream.eof and (left or not stream.needs_input):
            piece = stream.decompress(left, _PIECE)
            left = b""
            size += len(piece)
            if size > MAX_BODY_BYTES:
                raise _too_large()
            hold(len(piece))
            pieces.append(piece)
    except module.ZstdError:
        raise RefusedBody(400, "The body is not zstd, or its window is larger than 8 MiB.") from None
    if stream.unused_data:
        raise RefusedBody(400, "The zstd body has more than one frame; send one.")
    if body and not stream.eof:
        raise RefusedBody(400, "The zstd body is incomplete.")
    return b"".join(pieces)


def _too_large() -> RefusedBody:
    return RefusedBody(413, f"The body is larger than {MAX_BODY_BYTES} bytes; send fewer logs per request.")
