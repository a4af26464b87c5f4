"""What one step of a checkup has found."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from adbc_telemetry.check.diagnoses import Diagnosis


class Status(Enum):
    """How a step ended."""

    OK = "ok"
    WARNING = "warning"
    """Events may arrive all the same."""
    FAILED = "failed"
    """Events do not arrive."""
    SKIPPED = "skipped"
    """Not tried, because of what failed before, or because there is nothing to try."""


class Finding(NamedTuple):
    """What a step has found.

    Attributes:
        status: how it ended.
        sentence: what was found, without a secret.
        diagnosis: what is wrong; None where nothing is.
    """

    status: Status
    sentence: str
    diagnosis: Diagnosis | None = None


def ok(sentence: str) -> Finding:
    """All is well."""
    return Finding(Status.OK, sentence)


def skipped(sentence: str) -> Finding:
    """There is nothing to look at."""
    return Finding(Status.SKIPPED, sentence)


def warning(diagnosis: Diagnosis, sentence: str) -> Finding:
    """Something is not as it should be, and events may arrive all the same."""
    return Finding(Status.WARNING, sentence, diagnosis)


def failed(diagnosis: Diagnosis, sentence: str) -> Finding:
    """Because of this, events do not arrive."""
    return Finding(Status.FAILED, sentence, diagnosis)
