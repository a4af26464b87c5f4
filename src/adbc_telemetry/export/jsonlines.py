"""JsonLinesTelemetryExporter: one log per line into a file, to look at or to ship by other means."""

from __future__ import annotations

import os
from collections.abc import Sequence

from adbc_telemetry.core.fork import renew_in_child
from adbc_telemetry.core.guard import never_raises
from adbc_telemetry.core.native import Lock
from adbc_telemetry.events.encoding import LogEncoder
from adbc_telemetry.export.base import (
    NOT_ENCODABLE,
    NOTHING_EXPORTED,
    AbleExporter,
    ExportOutcome,
    ExportResult,
    failed_export,
)
from adbc_telemetry.schema import TelemetryFrontendLog


class JsonLinesTelemetryExporter(AbleExporter):
    """Appends to the file at `path`, which it creates readable only for its owner (0600).

    Each batch is one write at the end of the file, so several processes may share it. The file is opened for each
    batch, so it may be rotated at any time. An export fails if the file cannot be written.

    Since 0.1.

    Raises:
        TypeError: `path` is no path.
        ValueError: no file can have this path.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)
        if not self._path or "\0" in os.fsdecode(self._path):
            raise ValueError(f"not a path of a file: {self._path!r}")
        self._encoder = LogEncoder()
        self._closed = False
        self.after_fork_in_child()
        renew_in_child(self)

    def after_fork_in_child(self) -> None:
        """Another thread of the parent may have held the lock."""
        self._lock = Lock()  # one writer per process: guards _encoder and _closed, and keeps batches in order

    @never_raises(failed_export)
    def export(self, logs: Sequence[TelemetryFrontendLog], *, deadline: float | None = None) -> ExportResult:
        """Append `logs`. Only a log that cannot be encoded is rejected. Never raises."""
        if not logs:
            return NOTHING_EXPORTED
        with self._lock:
            if self._closed:
                return ExportResult(outcome=ExportOutcome.CANCELLED, reason="the exporter is closed")
            encoded = self._encoder.encode_lines(logs)
            lines = [line for line in encoded if line is not None]
            self._append(b"".join(line + b"\n" for line in lines))
        rejected = len(encoded) - len(lines)
        return ExportResult(
            outcome=ExportOutcome.DELIVERED if lines else ExportOutcome.REJECTED,
            delivered=len(lines),
            rejected=rejected,
            reason=NOT_ENCODABLE if rejected else None,
        )

    def hold_nothing_open(self) -> bool:
        """True: the file is open only while a batch is written."""
        return True

    def close(self) -> None:
        """Later exports are cancelled. Idempotent."""
        with self._lock:
            self._closed = True

    def _append(self, data: bytes) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            while data:
                data = data[os.write(descriptor, data) :]
        finally:
            os.close(descriptor)
