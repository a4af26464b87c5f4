"""The folders and names of a store, and the lock that makes one process its writer.

store.json                      says that the folder is a store, and of what form
lock                            held by the process that writes
journal/N.DAY.jsonl             the newest events, one per line; N counts up
events/day=DAY/N.parquet        the events of journal segments from N on
ids/MICROSECONDS.u64            ids of the events received up to then, hashed and sorted
rollups/                        summaries that the page reads; made anew when they are missing
tmp/                            files that are not complete yet
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from adbc_telemetry.collector.destination import DestinationError

FORMAT: Final = 1
_MARKER: Final = "store.json"
_DUCKDB_MAGIC: Final = b"DUCK"
_LOCK_SECONDS: Final = 3.0


class StoreError(DestinationError):
    """A store cannot be used. The message says why, and what to do."""


class Segment(NamedTuple):
    """One file of the journal."""

    number: int
    day: str
    path: Path


class DataFile(NamedTuple):
    """One Parquet file. It holds the journal's segments from `first` to a last one that its metadata names."""

    first: int
    day: str
    path: Path


class StoreFolder:
    """The paths of a store."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.journal = self.path / "journal"
        self.events = self.path / "events"
        self.ids = self.path / "ids"
        self.rollups = self.path / "rollups"
        self.tmp = self.path / "tmp"

    def segment(self, number: int, day: str) -> Segment:
        """The segment of that number."""
        return Segment(number, day, self.journal / f"{number:012d}.{day}.jsonl")

    def data_file(self, first: int, day: str) -> DataFile:
        """The Parquet file that begins with the segment `first`."""
        return DataFile(first, day, self.events / f"day={day}" / f"{first:012d}.parquet")

    def segments(self) -> list[Segment]:
        """The journal's segments, oldest first."""
        found = []
        for entry in _entries(self.journal):
            number, _, rest = entry.name.partition(".")
            day, _, ending = rest.partition(".")
            if number.isdigit() and ending == "jsonl":
                found.append(Segment(int(number), day, Path(entry.path)))
        return sorted(found)

    def data_files(self) -> list[DataFile]:
        """The Parquet files, oldest first."""
        found = []
        for folder in _entries(self.events):
            if folder.name.startswith("day="):
                for entry in _entries(Path(folder.path)):
                    first, _, ending = entry.name.partition(".")
                    if first.isdigit() and ending == "parquet":
                        found.append(DataFile(int(first), folder.name[4:], Path(entry.path)))
        return sorted(found)


def open_store(path: str | os.PathLike[str]) -> StoreFolder:
    """The store in an existing folder.

    Raises:
        StoreError: there is no store.
    """
    folder = StoreFolder(path)
    _refuse_file(folder.path)
    if not folder.path.exists():
        raise StoreError(
            f"{folder.path} does not exist; give the folder that a collector writes, or its URL."
        )
    try:
        marker = json.loads((folder.path / _MARKER).read_bytes())
    except OSError:
        raise StoreError(f"{folder.path} is not a store; give the folder that a collector writes.") from None
    except ValueError:
        marker = None
    if not isinstance(marker, dict) or marker.get("format") != FORMAT:
        raise StoreError(f"{folder.path} is a store of another version; read it with that version.")
    return folder


def create_store(path: str | os.PathLike[str]) -> StoreFolder:
    """The store in a folder, made if the folder is new or empty. A folder with other content is not written into.

    Raises:
        StoreError: the path is a file, or a folder with other content, or cannot be written.
    """
    folder = StoreFolder(path)
    _refuse_file(folder.path)
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        if not (folder.path / _MARKER).exists():
            if any(folder.path.iterdir()):
                raise StoreError(
                    f"{folder.path} holds other files and is not a store; give a folder that is new or empty."
                )
            _write_durably(folder.path / _MARKER, json.dumps({"format": FORMAT}).encode() + b"\n")
        open_store(folder.path)
        for each in (folder.journal, folder.events, folder.ids, folder.rollups, folder.tmp):
            each.mkdir(exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"{folder.path} cannot be written: {error.strerror}; give a folder that this user may write."
        ) from None
    return folder


@contextlib.contextmanager
def locked(folder: StoreFolder) -> Iterator[int]:
    """Hold the store's lock; yields its descriptor, which a child may inherit to keep the lock for as long as it lives.

    A process that was killed may leave a child that is about to end, so this waits a few seconds for the lock.

    Raises:
        StoreError: another process holds the lock.
    """
    try:
        descriptor = os.open(folder.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StoreError(
            f"{folder.path} cannot be written: {error.strerror}; give a folder that this user may write."
        ) from None
    try:
        deadline = time.monotonic() + _LOCK_SECONDS
        while not _try_lock(descriptor):
            if time.monotonic() >= deadline:
                raise StoreError(
                    f"{folder.path} is in use by another collector; stop that one or give another folder."
                )
            time.sleep(0.05)
        yield descriptor
    finally:
        os.close(descriptor)


def fsync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    if os.name == "nt":
        return  # Windows opens no folders
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_durably(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fsync_folder(path.parent)


def _refuse_file(path: Path) -> None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreError(f"{path} cannot be opened: {error.strerror}; give another folder.") from None
    if stat.S_ISDIR(found.st_mode):
        return
    if is_old_database(path):
        raise StoreError(
            f"{path} is a database of an earlier version; give a folder, and read the database once with: "
            f"adbc-telemetry export {path} --to events.parquet"
        )
    raise StoreError(f"{path} is not a folder, as a store is; give a folder that is new, empty or a store.")


def is_old_database(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a DuckDB file, as collectors of version 0.1 wrote them."""
    try:
        # Only regular files: to open a FIFO waits for its other end.
        if not stat.S_ISREG(os.stat(path).st_mode):
            return False
        with open(path, "rb") as file:
            return file.read(12)[8:] == _DUCKDB_MAGIC
    except OSError:
        return False


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        return []  # not made yet, or deleted by the retention meanwhile


def _try_lock(descriptor: int) -> bool:
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
