"""Fuzzes the collector's intake: damaged requests, one after the other, as long as one likes.

    python benchmarks/fuzz_intake.py [--seed N] [--seconds S]

Each body is checked as in `tests/unit/collector/intake/test_fuzz.py`. Every so often comes a large one that is made to
take memory. It exits with 1 when a body raised anything but `InvalidRequest`, when what was taken is not sound, or when
memory grew; the seed of a failing body is printed.
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from adbc_telemetry.collector.intake import InvalidRequest, read_request
from support.bodies import random_body, read_soundly

_MEBIBYTE: Final = 1024 * 1024
_LARGE: Final = 16 * _MEBIBYTE
_BETWEEN_LARGE_ONES: Final = 5_000
_UNITS: Final = [
    b'"",', b'"ab",', b"1,", b"{},", b"[],", b"[", b'{"a":', b'"\\\\",', b'"{\\"a\\":[[],{}]}",', b'"\\ud83d\\ude00",',
    b'{"protoLogs":[],', b'"' + b"x" * 2000 + b'",', b'"{\\"frontend_log_event_id\\":\\"1\\",\\"entry\\":{}}",',
]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=600)
    arguments = parser.parse_args()
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    memory: list[int] = []
    end = time.monotonic() + arguments.seconds
    seed = arguments.seed * 10**9
    while time.monotonic() < end:
        seed += 1
        large = seed % _BETWEEN_LARGE_ONES == 0
        try:
            if large:
                started = time.perf_counter()
                outcomes[_read_large(random.Random(seed))] += 1
                slowest = max(slowest, time.perf_counter() - started)
                memory.append(_peak_bytes())
            else:
                outcomes[_outcome(seed)] += 1
        except Exception:  # noqa: BLE001 - each is a finding
            traceback.print_exc()
            print(f"failed: {'a large body' if large else 'random_body'}, seed {seed}")
            return 1
    print(f"{outcomes.total():,} bodies: {dict(outcomes.most_common())}")
    if len(memory) > 3:
        peak, growth = memory[-1] / _MEBIBYTE, (memory[-1] - memory[len(memory) // 3]) / _MEBIBYTE
        print(
            f"slowest large body {slowest:.2f} s, peak memory {peak:.0f} MB, after a third grown by {growth:.0f} MB"
        )
        if growth > 50 or peak > 400:
            print("failed: it takes too much memory")
            return 1
    return 0


def _peak_bytes() -> int:
    """The most memory that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _outcome(seed: int) -> str:
    result = read_soundly(random_body(seed))
    if isinstance(result, InvalidRequest):
        return str(result)
    return f"{len(result.logs)} taken, {len(result.refusals)} refused"


def _read_large(chance: random.Random) -> str:
    unit = chance.choice(_UNITS)
    body = b'{"protoLogs":[' + unit * (_LARGE // len(unit)) + chance.choice([b"1]}", b'"x"]}', b""])
    try:
        read_request(body)
    except InvalidRequest:
        return "large, no request"
    return "large, read"


if __name__ == "__main__":
    sys.exit(main())
