"""`adbc-telemetry check`: why events do not arrive."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from adbc_telemetry.cli.collect import TOKEN_VARIABLE
from adbc_telemetry.cli.errors import CommandError, write

if TYPE_CHECKING:
    from adbc_telemetry.check import Status
    from adbc_telemetry.check.checkup import StepReport

_MARKS: Final = {"ok": "✓", "warning": "!", "failed": "✗", "skipped": "-"}
_PLAIN_MARKS: Final = {"ok": "ok", "warning": "!", "failed": "FAILED", "skipped": "-"}
_WIDTH: Final = 14


def add_check(parser: argparse.ArgumentParser) -> None:
    """The options of `check`."""
    parser.add_argument(
        "endpoint",
        nargs="?",
        help="where events are to go (default: the environment's ADBC_TELEMETRY_ENDPOINT)",
    )
    parser.add_argument(
        "--token-file", type=Path, metavar="F", help=f"file with the bearer token; else {TOKEN_VARIABLE}"
    )
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=10.0,
        metavar="S",
        help="seconds for each step (default: %(default)g)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 600:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 0 to 600")
    return seconds


def run_check(options: argparse.Namespace) -> int:
    """Take the steps and print each; 1 when one has failed."""
    from adbc_telemetry.check import Checkup
    from adbc_telemetry.check.target import Target
    from adbc_telemetry.config import TelemetryConfiguration
    from adbc_telemetry.instrumentation.settings import ENDPOINT_VARIABLE

    target = Target(
        options.endpoint or os.environ.get(ENDPOINT_VARIABLE, "").strip() or None,
        token=_token(options.token_file),
        timeout=options.timeout,
        config=TelemetryConfiguration.from_properties(),
    )
    if options.json:
        report = Checkup(target).run()
        write(json.dumps(report.as_json(), indent=2).encode() + b"\n")
        return 0 if report.arrives else 1
    with _Progress() as progress:
        report = Checkup(target, before=progress.begin, after=progress.end).run()
    write(_verdict(report.arrives).encode())
    return 0 if report.arrives else 1


def _token(file: Path | None) -> str | None:
    if file is None:
        return os.environ.get(TOKEN_VARIABLE, "").strip() or None
    try:
        token = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(
            f"{file} cannot be read as a token: {type(error).__name__}; see --token-file."
        ) from error
    if not token:
        raise CommandError(f"{file} is empty; write the token into it.")
    return token


def _verdict(arrives: bool) -> str:
    return "\nEvents arrive.\n" if arrives else "\nEvents do not arrive; what to do stands above.\n"


class _Progress:
    """Prints each step when it is taken, and on a terminal a spinner meanwhile, where rich is installed."""

    def __init__(self) -> None:
        self._spinner: Any = None
        self._marks = _MARKS if _prints(_MARKS.values()) else _PLAIN_MARKS

    def __enter__(self) -> _Progress:
        if sys.stderr is not None and sys.stderr.isatty():
            try:
                from rich.console import Console
            except ImportError:
                return self
            self._spinner = Console(stderr=True).status("")
            self._spinner.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._spinner is not None:
            self._spinner.stop()

    def begin(self, name: str) -> None:
        """A step is about to be taken."""
        if self._spinner is not None:
            self._spinner.update(f"{name} ...")

    def end(self, report: StepReport) -> None:
        """A step has been taken."""
        status, sentence, diagnosis = report.finding
        took = "" if self._was_skipped(status) else f"{report.took_ms:,.0f} ms"
        lines = [f"{self._marks[status.value]:<2}{report.name:<{_WIDTH}}{took:>9}  {sentence}"]
        if diagnosis is not None:
            indent = " " * (_WIDTH + 13)
            lines += [
                f"{indent}{diagnosis.label}: {diagnosis.value.cause}.",
                f"{indent}What to do: {diagnosis.value.remedy}.",
            ]
        write(("\n".join(lines) + "\n").encode(_encoding(), "replace"))

    @staticmethod
    def _was_skipped(status: Status) -> bool:
        return status.value == "skipped"


def _encoding() -> str:
    return (sys.stdout and sys.stdout.encoding) or "utf-8"


def _prints(texts: Any) -> bool:
    try:
        "".join(texts).encode(_encoding())
    except UnicodeEncodeError:
        return False
    return True
