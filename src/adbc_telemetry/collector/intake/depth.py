"""How deep JSON is nested, found before it is decoded.

A decoder recurses in C. It counts its recursion, but for a stack of the usual size: in a thread with a small one, a few
kilobytes of brackets end the process.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Final

MAX_DEPTH: Final = 100
"""Objects and arrays inside one another, as in protobuf's own parsers."""

_OPENING: Final = b"[{"
_CLOSING: Final = b"]}"
_STEP: Final = bytes.maketrans(_OPENING + _CLOSING, b"\2\2\0\0")
_OTHERS: Final = bytes(set(range(256)) - {*_OPENING, *_CLOSING})


def is_too_deep(json: bytes) -> bool:
    """Whether a decoder would meet more than `MAX_DEPTH` objects and arrays inside one another.

    Args:
        json: what may be JSON. Behind its first fault, no decoder reads on.
    """
    if json.count(b"[") + json.count(b"{") <= MAX_DEPTH:
        return False
    pieces = json.replace(rb"\\", b"").replace(rb"\"", b"").split(b'"')
    outside_of_strings = b"".join(pieces[::2])
    steps = outside_of_strings.translate(_STEP, _OTHERS)
    return max(accumulate(step - 1 for step in steps), default=0) > MAX_DEPTH
