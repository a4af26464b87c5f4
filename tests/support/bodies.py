"""Bodies that no sender should send, and what must hold whatever is sent."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from adbc_telemetry.collector.intake import Intake, InvalidRequest, read_request
from adbc_telemetry.collector.intake.liberal import read_liberally
from adbc_telemetry.collector.intake.limits import PUBLIC_WORDS
from adbc_telemetry.collector.intake.strict import event_id_if_canonical
from adbc_telemetry.collector.intake.unknown import MAX_NAMES

SECRET: Final = "SECRET"
"""Stands in names and values that are sent, and must not stand in an answer."""

_GOLDEN: Final = [
    json.loads(path.read_text())["log"]
    for path in sorted((Path(__file__).parents[1] / "data" / "drivers").glob("*.json"))
]
_VALUES: Final[list[Any]] = [
    None, True, False, 0, -1, 1.0, 12.5, 2**31, 2**63, -(2**63) - 1, 10**50, 1e300, "", "1", "1e3", "-0", "9" * 40,
    SECRET, SECRET * 30, "x" * 200, "\u0000", "é\U0001f600", "\ud800", '\\"', [], {}, [[]], [None], {"a": None},
    {"stack_trace": SECRET}, [{"StackTrace": SECRET}], {SECRET: SECRET}, "timeout", {"stack_trace": "timeout"},
]  # fmt: skip
_PIECES: Final = [
    b'"', b"\\", b'\\"', b"\\\\", b"{", b"}", b"[", b"]", b",", b":", b"null", b"true", b"NaN", b"-", b"1e999", b"0",
    b"9" * 50, b"\\ud800", b"\\\\ud83d", b"\\u0000", b"\x00", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b" ", b"\n",
    b'"protoLogs":', b'"stack_trace":', b'\\"stack_trace\\":\\"SECRET\\",', b"[" * 2000, b'{"a":' * 1500,
]  # fmt: skip


def random_body(seed: int) -> bytes:
    """A body that is nearly a request. The same for the same seed."""
    chance = random.Random(seed)
    logs = [_text(chance) for _ in range(chance.randrange(4))]
    body = json.dumps(
        {"uploadTime": 1, "items": chance.choice([[], None]), "protoLogs": logs},
        ensure_ascii=chance.random() < 0.5,
    ).encode("utf-8", "surrogatepass")
    for _ in range(chance.choice([0, 0, 1, 1, 2, 5, 20])):
        body = _damage(chance, body)
    return body


def _text(chance: random.Random) -> str:
    log = json.loads(json.dumps(chance.choice(_GOLDEN)))
    for _ in range(chance.choice([0, 1, 1, 2, 5])):
        _change(chance, log)
    text = json.dumps(log, ensure_ascii=chance.random() < 0.5, indent=chance.choice([None, None, 1]))
    if chance.random() < 0.2:
        text = _damage(chance, text.encode("utf-8", "surrogatepass")).decode("utf-8", "replace")
    return text


def _change(chance: random.Random, holder: dict[str, Any]) -> None:
    """Change a value, add one or take one away, at any depth."""
    while holder and chance.random() < 0.8:
        inner = [value for value in holder.values() if isinstance(value, dict)]
        if not inner:
            break
        holder = chance.choice(inner)
    names = [*holder, "stack_trace", SECRET, "", "newer"]
    name = chance.choice(names)
    if chance.random() < 0.2:
        holder.pop(name, None)
    elif chance.random() < 0.2:
        camel = "".join(part.title() if index else part for index, part in enumerate(name.split("_")))
        holder[camel] = holder.pop(name, None)
    else:
        holder[name] = copy.deepcopy(chance.choice(_VALUES))


def _damage(chance: random.Random, body: bytes) -> bytes:
    start = chance.randrange(len(body) + 1)
    end = min(len(body), start + chance.choice([0, 0, 1, 3, 30]))
    piece = chance.choice([b"", chance.choice(_PIECES), body[start:end] * 2])
    return body[:start] + piece + body[end:]


def read_soundly(body: bytes) -> Intake | InvalidRequest:
    """Read a body and check what must hold whatever it is.

    Raises:
        AssertionError: when it does not hold; or any exception that `read_request` must not raise.
    """
    try:
        intake = read_request(body)
    except InvalidRequest as refused:
        return refused
    assert SECRET not in f"{intake.errors}{intake.refusals}"
    assert len(intake.unknown) <= MAX_NAMES + 1
    assert all(times > 0 for times in intake.unknown.values())
    for event_id, text, canonical in intake.logs:
        assert 1 <= len(event_id) <= 128
        in_the_wires_form = text if canonical is None else canonical.decode()
        assert event_id_if_canonical(in_the_wires_form) == event_id
        assert set(_texts_of_errors(json.loads(text))) <= {*PUBLIC_WORDS}
        # Either way of reading gives the same, and what was read once is not changed when it is read again.
        again, findings = read_liberally(text)
        assert (again.event_id, again.text, findings.private) == (event_id, text, [])
        assert canonical is None or again.canonical == canonical
    indexes = [refusal.index for refusal in intake.refusals]
    assert indexes == sorted(set(indexes))
    return intake


def _texts_of_errors(value: Any) -> Iterator[str]:
    """What stands in fields for the text of an error, at any depth."""
    stack = [value]
    while stack:
        inner = stack.pop()
        if isinstance(inner, dict):
            yield from (
                f"{inner[name]}" for name in ("stack_trace", "stackTrace") if inner.get(name) is not None
            )
            stack += inner.values()
        elif isinstance(inner, list):
            stack += inner
