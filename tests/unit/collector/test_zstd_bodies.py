"""Bodies in zstd: decompressed within bounds, as those in gzip."""

from __future__ import annotations

import tracemalloc

import pytest

from adbc_telemetry.collector.bodies import MAX_BODY_BYTES, RefusedBody, decompressed
from adbc_telemetry.core import zstd

pytestmark = pytest.mark.skipif(not zstd.is_available(), reason="needs zstd")


def refused(body: bytes) -> int:
    with pytest.raises(RefusedBody) as refusal:
        decompressed(body, "zstd", lambda _: None)
    return refusal.value.status


def test_a_body_is_read_piece_by_piece() -> None:
    plain = bytes(range(256)) * 10_000
    held: list[int] = []
    assert decompressed(zstd.zstd().compress(plain), " ZSTD ", held.append) == plain
    assert sum(held) == len(plain)
    assert len(held) > 5
    assert decompressed(b"", "zstd", held.append) == b""


def test_a_body_that_is_not_zstd_or_torn_is_a_bad_request() -> None:
    whole = zstd.zstd().compress(b"a body" * 100)
    for body in (b"not zstd", whole[:-1], whole[:9], whole[:-4] + b"\0\0\0\0", whole + whole, whole + b"x"):
        assert refused(body) == 400


def test_a_bomb_is_too_large_and_costs_little_memory() -> None:
    bomb = zstd.zstd().compress(bytes(50 * MAX_BODY_BYTES))
    tracemalloc.start()
    try:
        assert refused(bomb) == 413
        assert tracemalloc.get_traced_memory()[1] < 3 * MAX_BODY_BYTES
    finally:
        tracemalloc.stop()


def test_a_window_that_is_too_large_is_refused() -> None:
    module = zstd.zstd()
    options = {module.CompressionParameter.window_log: 27, module.CompressionParameter.content_size_flag: 0}
    compressor = module.ZstdCompressor(options=options)
    body = compressor.compress(b"a body" * 1000) + compressor.flush()
    assert refused(body) == 400


def test_without_zstd_it_is_an_unknown_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zstd, "is_available", lambda: False)
    assert refused(b"") == 415
