"""What a sender may send: reads a request's body, takes every log that can be understood, refuses the others alone.

A log in the wire's own form is recognised by one strict decode (`strict`). Every other log is read by the rules of
protobuf's JSON (`liberal`), and then also given in the wire's own form.
"""

from adbc_telemetry.collector.intake.fields import Refused
from adbc_telemetry.collector.intake.reading import MAX_LOGS, read_log, read_request
from adbc_telemetry.collector.intake.results import (
    MAX_ERRORS,
    AcceptedLog,
    Intake,
    InvalidRequest,
    Refusal,
    TooManyLogs,
)

__all__ = [
    "MAX_ERRORS",
    "MAX_LOGS",
    "AcceptedLog",
    "Intake",
    "InvalidRequest",
    "Refusal",
    "Refused",
    "TooManyLogs",
    "read_log",
    "read_request",
]
