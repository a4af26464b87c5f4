"""Events that never leave the machine: into a file of the user's, or to stderr as they would travel.

`as_the_user_wants` puts one of these exporters in the place of any other one, also of a driver's own, where the user
has asked for it: by the mode `local`, or by `ADBC_TELEMETRY_DEBUG=1`. Neither opens a socket.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from adbc_telemetry.config import TelemetryConfiguration
from adbc_telemetry.consent import DEBUG_VARIABLE, Mode, as_switch, mode_of_environment
from adbc_telemetry.core.fork import renew_in_child
from adbc_telemetry.core.guard import never_raises
from adbc_telemetry.core.native import Lock
from adbc_telemetry.events.anonymous import AnonymousLogEncoder
from adbc_telemetry.events.encoding import LogEncoder
from adbc_telemetry.export.base import (
    NOT_ENCODABLE,
    NOTHING_EXPORTED,
    AbleExporter,
    ExportOutcome,
    ExportResult,
    TelemetryExporter,
    failed_export,
)
from adbc_telemetry.export.jsonlines import JsonLinesTelemetryExporter
from adbc_telemetry.schema import TelemetryFrontendLog
from adbc_telemetry.transport.auth import Auth, may_authenticate

FILE_NAME: Final = "adbc-telemetry.jsonl"


class StderrTelemetryExporter(AbleExporter):
    """Prints each event to stderr: a line of JSON, as it would travel to the service.

    Args:
        auth: would authenticate the request. Without it, events would travel without ids. It is not called.
    """

    def __init__(self, auth: Auth | None = None) -> None:
        self._auth = auth
        self.after_fork_in_child()
        renew_in_child(self)

    def after_fork_in_child(self) -> None:
        """Another thread of the parent may have held the lock."""
        self._lock = Lock()  # guards both encoders, and keeps the lines of batches together
        self._encoder = LogEncoder()
        self._anonymous_encoder = AnonymousLogEncoder()

    @never_raises(failed_export)
    def export(self, logs: Sequence[TelemetryFrontendLog], *, deadline: float | None = None) -> ExportResult:
        """Print `logs`. Only a log that cannot be encoded is rejected. Never raises."""
        if not logs:
            return NOTHING_EXPORTED
        with self._lock:
            encoder = self._encoder if may_authenticate(self._auth) else self._anonymous_encoder
            encoded = encoder.encode_lines(logs)
            lines = [line.decode() for line in encoded if line is not None]
            if sys.stderr is not None:  # there is none under pythonw
                sys.stderr.write("".join(f"{line}\n" for line in lines))
                sys.stderr.flush()
        rejected = len(encoded) - len(lines)
        return ExportResult(
            outcome=ExportOutcome.DELIVERED if lines else ExportOutcome.REJECTED,
            delivered=len(lines),
            rejected=rejected,
            reason=NOT_ENCODABLE if rejected else None,
        )

    def hold_nothing_open(self) -> bool:
        """True: stderr is the program's."""
        return True

    def close(self) -> None:
        """There is nothing to release."""


class LocalTelemetryExporter(JsonLinesTelemetryExporter):
    """Writes events to the file of the mode `local`, and makes its folder when it is missing.

    Args:
        path: a file, or a folder that exists; None for `adbc-telemetry.jsonl` in the user's folder for state.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        super().__init__(local_file(path))

    def _append(self, data: bytes) -> None:
        try:
            super()._append(data)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(os.fsdecode(self._path)), mode=0o700, exist_ok=True)
            super()._append(data)


def local_file(path: str | os.PathLike[str] | None = None) -> str:
    """The file that events of the mode `local` go to; see `LocalTelemetryExporter`."""
    if path is None:
        state = os.environ.get("XDG_STATE_HOME") or os.path.join("~", ".local", "state")
        return os.path.join(os.path.expanduser(state), "adbc-telemetry", FILE_NAME)
    text = os.path.abspath(os.path.expanduser(os.fspath(path)))
    return os.path.join(text, FILE_NAME) if os.path.isdir(text) else text


def environment_is_local() -> bool:
    """Whether the environment keeps all events of this process on the machine."""
    return mode_of_environment() is Mode.LOCAL


def as_the_user_wants(
    config: TelemetryConfiguration, exporter: TelemetryExporter | None, auth: Auth | None = None
) -> tuple[TelemetryConfiguration, TelemetryExporter | None]:
    """`config` and `exporter`, or those that keep events on the machine if the user has asked for that.

    Args:
        config: of a client that is enabled.
        exporter: where its events go; None for the service.
        auth: would authenticate its requests. It is not called.
    """
    here = environment_is_local()
    if not (here or config.is_local):
        return config, exporter
    # No breaker and no spool: nothing is sent, neither now nor later.
    local = replace(config, circuit_breaker_enabled=False, spool_dir=None)
    if here and as_switch(os.environ.get(DEBUG_VARIABLE)):
        return replace(local, batch_size=1), StderrTelemetryExporter(
            auth
        )  # at once, among the program's own lines
    path = config.local_path or TelemetryConfiguration.from_properties().local_path
    return local, LocalTelemetryExporter(path)
