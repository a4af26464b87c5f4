"""How bodies of requests are compressed, in the time of a host program: the cheapest level that is worth it.

Measured on requests of 1,000 events of 1,150 bytes, per event: gzip takes 1.9 µs at level 3 and leaves 17 bytes, and
takes 13.6 µs at level 6 and leaves 12; zstd takes 0.3 µs at level 3 and leaves 6.
"""

from __future__ import annotations

import gzip
from typing import Final

from adbc_telemetry.config import Compression
from adbc_telemetry.core.fork import fork_gate
from adbc_telemetry.core.zstd import zstd

_GZIP_LEVEL: Final = 3
_ZSTD_LEVEL: Final = 3


def compressed(body: bytes, compression: Compression) -> bytes:
    """A body in the encoding that `compression` names; as it is for "none"."""
    if compression == "gzip":
        return gzip.compress(body, compresslevel=_GZIP_LEVEL, mtime=0)
    if compression == "zstd":
        with fork_gate:  # the first time this imports the module
            compress = zstd().compress
        packed: bytes = compress(body, _ZSTD_LEVEL)
        return packed
    return body
