"""Feature flags out of a file that may change while the collector runs."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Final

import msgspec

from adbc_telemetry.schema import FeatureFlag, FeatureFlagsResponse

MAX_FILE_BYTES: Final = 1_000_000

_logger = logging.getLogger(__name__)
_Scalar = str | int | float | bool


class FlagsError(Exception):
    """The file cannot be used. The message says why, and what to do."""


class _WireForm(FeatureFlagsResponse, forbid_unknown_fields=True):
    pass


class FlagsFile:
    """The flags of a file: an object of names and values, or the service's own answer with `flags` and `ttl_seconds`.

    Args:
        path: the file, or None for a collector without flags.

    Raises:
        FlagsError: the file cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        self._path = None if path is None else Path(path)
        self._seen: tuple[int, int, int] | None = None
        self._flags = FeatureFlagsResponse()
        self.problem: str | None = None
        """Why the file cannot be read at the moment; the flags stay as they were."""
        if self._path is not None:
            self._seen = _state(self._path)
            self._flags = _read(self._path)

    def current(self) -> FeatureFlagsResponse:
        """The flags now. The file is read again when it has changed; while it cannot be read, its last flags hold."""
        if self._path is None:
            return self._flags
        seen = _state(self._path)
        if seen != self._seen:
            self._seen = seen
            try:
                self._flags = _read(self._path)
                self.problem = None
            except FlagsError as error:
                self.problem = str(error)
                _logger.error("%s The flags stay as they were.", error)
        return self._flags


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _read(path: Path) -> FeatureFlagsResponse:
    try:
        if not path.is_file():
            raise FlagsError(f"{path} is not a file; give a file of JSON with --flags.")
        content = path.read_bytes()[: MAX_FILE_BYTES + 1]
    except OSError as error:
        raise FlagsError(
            f"{path} cannot be read: {error.strerror}; give another file with --flags."
        ) from None
    if len(content) > MAX_FILE_BYTES:
        raise FlagsError(f"{path} is larger than {MAX_FILE_BYTES} bytes; give a smaller file with --flags.")
    try:
        plain = msgspec.json.decode(content, type=dict[str, msgspec.Raw])
        if "flags" in plain and bytes(plain["flags"]).lstrip()[:1] == b"[":
            return msgspec.json.decode(content, type=_WireForm)
        named = msgspec.json.decode(content, type=dict[str, _Scalar])
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise FlagsError(
            f'{path} is not a list of flags; write them as JSON, such as {{"a.flag": "true"}}.'
        ) from None
    return FeatureFlagsResponse(
        flags=[FeatureFlag(name=name, value=_text(value)) for name, value in named.items()]
    )


def _text(value: _Scalar) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)
