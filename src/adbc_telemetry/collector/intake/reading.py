"""Reads the body of a request, and tells the good logs from the bad ones."""

from __future__ import annotations

import re
from typing import Final, NamedTuple, cast

import msgspec

from adbc_telemetry.collector.intake.depth import MAX_DEPTH, is_too_deep
from adbc_telemetry.collector.intake.fields import Refused
from adbc_telemetry.collector.intake.liberal import read_liberally
from adbc_telemetry.collector.intake.limits import MAX_LOG
from adbc_telemetry.collector.intake.results import AcceptedLog, Intake, InvalidRequest, Refusal, TooManyLogs
from adbc_telemetry.collector.intake.strict import event_id_if_canonical
from adbc_telemetry.collector.intake.unknown import UnknownNames

MAX_LOGS: Final = 10_000
"""Logs of one request."""

# A body up to this size may hold as many strings as fit, at some 12 bytes of memory each byte of it.
_SMALL_BODY: Final = 4 * 1024 * 1024
# Quotes in a larger body beside those of its logs.
_QUOTES_OF_OTHERS: Final = 2_000
# Logs that are no strings take up to 30 bytes of memory each byte of the body, so count them before.
_MAX_COMMAS: Final = 1_000_000
# Objects and arrays of all logs. A log has some ten; without a limit, a body could keep a core busy for seconds.
_MAX_BRACKETS: Final = 1_000_000


class _Request(msgspec.Struct, forbid_unknown_fields=True):
    """A `TelemetryRequest` as drivers send it. What may stand in it is flat: decoding it does not recurse."""

    uploadTime: int | str | None = None
    items: list[str] | None = None
    protoLogs: list[str] | None = None
    upload_time: int | str | None = None
    proto_logs: list[str] | None = None


class _AnyRequest(msgspec.Struct):
    """The part of any other request that is read, not yet decoded. msgspec skips the rest without building it."""

    protoLogs: list[msgspec.Raw] | None = None
    proto_logs: list[msgspec.Raw] | None = None


_decode_request: Final = msgspec.json.Decoder(_Request).decode
_decode_any_request: Final = msgspec.json.Decoder(_AnyRequest).decode
_decode_texts: Final = msgspec.json.Decoder(list[str]).decode
_OUR_HEAD: Final = re.compile(rb'\{"uploadTime":\d{1,19},"items":\[\],"protoLogs":(?=\[)')
_decode_text: Final = msgspec.json.Decoder(str).decode


def read_request(body: bytes) -> Intake:
    """Read a request's JSON and every log in it.

    Args:
        body: the body, decompressed. Its size is the caller's to limit; 16 MiB take some 100 MB beside it at the most.

    Raises:
        TooManyLogs: when it holds more than `MAX_LOGS` logs, or values enough for many times as many.
        InvalidRequest: when it is not a `TelemetryRequest`.
    """
    array, texts = _split(body)
    logs: list[AcceptedLog] = []
    refusals: list[Refusal] = []
    unknown = UnknownNames()
    dropped_private = 0
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            array = None
            refusals.append(Refusal(index, text.reason))
            continue
        if (
            len(text) > MAX_LOG // 4 and len(text.encode()) > MAX_LOG
        ):  # UTF-8 takes at most 4 bytes a character
            array = None
            refusals.append(Refusal(index, f"larger than {MAX_LOG} bytes"))
            continue
        event_id = event_id_if_canonical(text)
        if event_id is not None:
            logs.append(AcceptedLog(event_id, text, None))
            continue
        array = None
        texts[index] = ""  # two copies of each text would be too much at once
        try:
            log, findings = read_liberally(text)
        except Refused as refused:
            refusals.append(Refusal(index, str(refused)))
            continue
        logs.append(log)
        unknown.merge(findings.unknown)
        dropped_private += len(findings.private)
    return Intake(logs, refusals, unknown.counts, dropped_private, array)


def read_log(text: str) -> AcceptedLog:
    """Read one log by itself.

    Args:
        text: JSON, of any size.

    Raises:
        Refused: it cannot be taken; the message says why.
    """
    event_id = event_id_if_canonical(text)
    if event_id is not None:
        return AcceptedLog(event_id, text, None)
    return read_liberally(text).accepted


class _NoText(NamedTuple):
    """Stands for a log that is no string, or none that can be decoded."""

    reason: str


def _split(body: bytes) -> tuple[bytes | None, list[str | _NoText]]:
    """The logs of a request, and their array as it came if the request is written as our own sender writes it."""
    head = _OUR_HEAD.match(body)
    # An array on one line, with nothing behind it.
    if head and len(body) <= _SMALL_BODY and body.endswith(b"]}") and not (b"\n" in body or b"\r" in body):
        array = body[head.end() : -1]
        try:
            # All of it must be the array: no second key may stand behind it, under which readers would find other logs.
            texts = _decode_texts(array)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None, _texts(body)
        if len(texts) > MAX_LOGS:
            raise _too_many()
        return array, cast("list[str | _NoText]", texts)
    return None, _texts(body)


def _texts(body: bytes) -> list[str | _NoText]:
    if len(body) > _SMALL_BODY and _quotes(body) > 2 * MAX_LOGS + _QUOTES_OF_OTHERS:
        raise _too_many()
    if len(body) > _MAX_BRACKETS and body.count(b"[") + body.count(b"{") > _MAX_BRACKETS:
        raise TooManyLogs(f"The body holds more than {_MAX_BRACKETS} objects and arrays.")
    try:
        request = _decode_request(body)
    except (msgspec.ValidationError, UnicodeDecodeError):
        return _texts_one_by_one(body)
    except msgspec.DecodeError:
        raise InvalidRequest("The body is not JSON.") from None
    texts: list[str | _NoText] = [*(request.protoLogs or ()), *(request.proto_logs or ())]
    if len(texts) > MAX_LOGS:
        raise _too_many()
    return texts


def _quotes(body: bytes) -> int:
    """How many quotes open and close strings, not counting those that follow a backslash."""
    return body.count(b'"') - body.count(b'\\"')


def _texts_one_by_one(body: bytes) -> list[str | _NoText]:
    """The logs of a request with further keys, or with a log that is no string or not UTF-8: neither costs a log."""
    if body.count(b",") > _MAX_COMMAS:
        raise TooManyLogs(f"The body holds more than {_MAX_COMMAS} values.")
    if is_too_deep(body):
        raise InvalidRequest(f"The body holds more than {MAX_DEPTH} objects and arrays inside one another.")
    try:
        request = _decode_any_request(body)
    except msgspec.ValidationError:
        raise InvalidRequest("The body is not an object in which protoLogs is an array.") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise InvalidRequest("The body is not JSON.") from None
    raws = [*(request.protoLogs or ()), *(request.proto_logs or ())]
    if len(raws) > MAX_LOGS:
        raise _too_many()
    return [_text(raw) for raw in raws]


def _text(raw: msgspec.Raw) -> str | _NoText:
    try:
        return _decode_text(raw)
    except msgspec.DecodeError:
        return _NoText("not a string")
    except UnicodeDecodeError:
        return _NoText("not UTF-8")


def _too_many() -> TooManyLogs:
    return TooManyLogs(f"The request holds more than {MAX_LOGS} logs.")
