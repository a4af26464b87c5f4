"""The slow path: reads any log that can be understood, and brings it into the wire's own form."""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

import msgspec

from adbc_telemetry.collector.intake.depth import is_too_deep
from adbc_telemetry.collector.intake.duplicates import has_repeated_names
from adbc_telemetry.collector.intake.fields import Findings, Refused
from adbc_telemetry.collector.intake.limits import MAX_EVENT_ID
from adbc_telemetry.collector.intake.messages import LOG
from adbc_telemetry.collector.intake.results import AcceptedLog

_decode: Final = msgspec.json.Decoder().decode
_encode: Final = msgspec.json.Encoder().encode

# Escaped backslashes, a whole pair of surrogates, or half a pair.
_SURROGATES: Final = re.compile(
    r"(?:\\\\)+|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
)


class LiberalLog(NamedTuple):
    """A log that was taken, and what was noticed in it."""

    accepted: AcceptedLog
    findings: Findings


def read_liberally(text: str) -> LiberalLog:
    """Read a log by the rules of protobuf's JSON.

    Raises:
        Refused: the log cannot be taken; the message says why.
    """
    if is_too_deep(text.encode()):
        raise Refused("nested too deeply")
    text, plain = _parse(text)
    if type(plain) is not dict:
        raise Refused("not a JSON object")
    findings = Findings()
    message = LOG.read(plain, findings)
    event_id = _event_id(message)
    if "sql_driver_log" not in message.get("entry", {}):
        raise Refused("no entry.sql_driver_log")
    _move_timestamp(message)
    canonical = _encode(message)
    as_it_came = _encode(plain)
    if findings.private or has_repeated_names(text, as_it_came):
        for holder, name in findings.private:
            del holder[name]
        as_it_came = _encode(plain)
        text = as_it_came.decode()
    return LiberalLog(
        AcceptedLog(event_id, text, None if canonical == as_it_came else canonical),
        findings,
    )


def _parse(text: str) -> tuple[str, Any]:
    """The values of a JSON text, and the text itself. Lone surrogates become U+FFFD, as everywhere in this package."""
    try:
        return text, _decode(text)
    except msgspec.ValidationError:
        raise Refused("number out of range") from None
    except (msgspec.DecodeError, UnicodeError):
        # Half a pair of surrogates, as Java and JavaScript may cut texts, is the one fault that is worth a repair.
        repaired = _SURROGATES.sub(lambda match: r"\ufffd" if match[1] else match[0], text)
    try:
        return repaired, _decode(repaired)
    except msgspec.ValidationError:
        raise Refused("number out of range") from None
    except (msgspec.DecodeError, UnicodeError):
        raise Refused("not JSON") from None


def _event_id(message: dict[str, Any]) -> str:
    event_id: str = message.get("frontend_log_event_id", "")
    if not event_id:
        raise Refused("no event id")
    if len(event_id) > MAX_EVENT_ID:
        raise Refused(f"event id longer than {MAX_EVENT_ID} characters")
    return event_id


def _move_timestamp(message: dict[str, Any]) -> None:
    """Bring the time to where the schema has it, unless there is one already."""
    context = message.get("context", {})
    if "timestamp_millis" in context:
        timestamp = context.pop("timestamp_millis")
        context.setdefault("client_context", {}).setdefault("timestamp_millis", timestamp)
