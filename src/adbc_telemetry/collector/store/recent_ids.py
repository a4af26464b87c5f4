"""Which event ids were received in the last hour, at a cost that does not grow with the store.

Ids are hashed to 64 bits. The newest are in a set. When the set is full it becomes a generation: a sorted file, and in
memory a Bloom filter of 16 bits per id. Small generations are merged, and old ones are deleted whole. An id is looked
up in the file only if the filter knows it.

Two ids with one hash would cost an event. With ten million ids in an hour that is one in 1.8 million million events.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xxhash

from adbc_telemetry.collector.store.layout import StoreFolder

Hashes = npt.NDArray[np.uint64]

WINDOW_SECONDS: Final = 3600
MAX_NEWEST: Final = 250_000
"""Ids in the set: some 20 MB."""
_SMALL: Final = 1_000_000
_MERGED_AT: Final = 8
"""Small generations that are merged into one."""
_BITS_PER_ID: Final = 16
_REACH: Final = 4096
_BITS_SET: Final = 4


def hash_id(event_id: str) -> int:
    """The hash of an event id; the same in every process and version."""
    return xxhash.xxh3_64_intdigest(event_id.encode())


class Generation:
    """Ids that were received up to some moment: a sorted file, and a filter in memory.

    Args:
        path: a file of sorted 64-bit numbers; its name is the Unix time in microseconds when the newest was received.

    Raises:
        ValueError: the file is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.newest_us = int(path.stem)
        hashes: Hashes = np.fromfile(path, dtype=np.uint64)
        self.size = len(hashes)
        if not self.size:
            raise ValueError("a generation has ids")
        words = 1 << max(0, (self.size * _BITS_PER_ID - 1).bit_length() - 6)
        self._shift = np.uint64(64 - words.bit_length() + 1) if words > 1 else None
        self._filter: Hashes = np.zeros(words, dtype=np.uint64)
        np.bitwise_or.at(self._filter, self._words_of(hashes), filter_bits(hashes))
        self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))

    def known(self, hashes: Hashes, bits: Hashes) -> npt.NDArray[np.bool_]:
        """Which of the hashes are in this generation; `bits` are their `filter_bits`."""
        maybe: npt.NDArray[np.bool_] = (self._filter[self._words_of(hashes)] & bits) == bits
        if maybe.any():
            maybe[maybe] = [self._holds(each) for each in hashes[maybe].tolist()]
        return maybe

    def _holds(self, number: int) -> bool:
        # The numbers are spread evenly, so a look near the place that follows from a number finds it. The file is not
        # mapped into memory: look-ups would make all of it resident in time.
        expected = number * self.size >> 64
        reach = _REACH
        while True:
            first = max(0, expected - reach)
            last = min(self.size, expected + reach)
            found: Hashes = np.frombuffer(self._read(first, last), dtype=np.uint64)
            if (first == 0 or found[0] <= number) and (last == self.size or found[-1] >= number):
                place = int(np.searchsorted(found, np.uint64(number)))
                return place < len(found) and int(found[place]) == number
            reach *= 8

    def _read(self, first: int, last: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self._descriptor, (last - first) * 8, first * 8)
        os.lseek(self._descriptor, first * 8, os.SEEK_SET)
        return os.read(self._descriptor, (last - first) * 8)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def hashes(self) -> Hashes:
        """All ids, sorted."""
        return np.fromfile(self.path, dtype=np.uint64)

    def delete(self) -> None:
        """Delete the file."""
        self.close()
        self.path.unlink(missing_ok=True)

    def _words_of(self, hashes: Hashes) -> Any:
        return np.zeros(len(hashes), dtype=np.intp) if self._shift is None else hashes >> self._shift


def filter_bits(hashes: Hashes) -> Hashes:
    """The bits that each hash sets in its word of a filter. The word itself is chosen by other bits of the hash."""
    bits: Hashes = np.zeros(len(hashes), dtype=np.uint64)
    for number in range(_BITS_SET):
        bits |= np.uint64(1) << ((hashes >> np.uint64(6 * number)) & np.uint64(63))
    return bits


class RecentIds:
    """The ids of the last hour. Methods are called by one thread, except `write_generation` and `merge`."""

    def __init__(self, folder: StoreFolder) -> None:
        self._folder = folder
        self._newest: set[int] = set()
        self._closing: set[int] = set()  # being written as a generation
        self.generations: list[Generation] = []

    def __len__(self) -> int:
        return len(self._newest) + len(self._closing) + sum(each.size for each in self.generations)

    def load(self) -> int:
        """Take up the generations on disk. Returns until when they are complete, in Unix microseconds, or 0."""
        damaged = False
        for path in sorted(self._folder.ids.glob("*.u64")):
            if not path.stem.isdigit():
                continue
            try:
                self.generations.append(Generation(path))
            except ValueError:
                path.unlink()
                damaged = True
        if damaged:
            return 0  # all ids of the last hour are collected from the events
        return max((each.newest_us for each in self.generations), default=0)

    def known(self, hashes: Sequence[int]) -> set[int]:
        """Those of the hashes that are ids of the last hour."""
        found = self._newest.intersection(hashes)
        if self._closing:
            found |= self._closing.intersection(hashes)
        if self.generations:
            array: Hashes = np.array(hashes, dtype=np.uint64)
            bits = filter_bits(array)
            for generation in self.generations:
                hits = generation.known(array, bits)
                if hits.any():
                    found.update(array[hits].tolist())
        return found

    def add(self, hashes: Iterable[int]) -> None:
        """Remember ids whose events are durable."""
        self._newest.update(hashes)

    def add_file(self, path: Path, newest_us: int) -> None:
        """Make a generation of a file of sorted numbers, which is moved. An empty file is deleted."""
        if not path.stat().st_size:
            path.unlink()
            return
        target = self._folder.ids / f"{newest_us:016d}.u64"
        os.replace(path, target)
        self.generations.append(Generation(target))

    def close(self) -> None:
        """Close all files."""
        for each in self.generations:
            each.close()

    @property
    def is_full(self) -> bool:
        """Whether the newest ids should become a generation."""
        return len(self._newest) >= MAX_NEWEST and not self._closing

    def begin_generation(self) -> set[int] | None:
        """Set the newest ids apart for `write_generation`; None if there are none, or some are apart already."""
        if self._closing or not self._newest:
            return None
        self._closing, self._newest = self._newest, set()
        return self._closing

    def write_generation(self, hashes: set[int], newest_us: int) -> Generation:
        """Write ids to disk. Slow, and safe to run on another thread.

        Raises:
            OSError: the disk is full, or fails.
        """
        array: Hashes = np.fromiter(hashes, dtype=np.uint64, count=len(hashes))
        array.sort()
        return self._write(array, newest_us)

    def end_generation(self, generation: Generation | None) -> None:
        """Use what `write_generation` returned; None if it failed: then the ids stay in memory."""
        if generation is None:
            self._newest |= self._closing
        else:
            self.generations.append(generation)
        self._closing = set()

    def small_generations(self) -> list[Generation]:
        """The generations to merge now; empty if they are few."""
        small = [each for each in self.generations if each.size < _SMALL]
        return small if len(small) >= _MERGED_AT else []

    def merge(self, generations: list[Generation]) -> Generation:
        """One generation of several. Slow, and safe to run on another thread.

        Raises:
            OSError: the disk is full, or fails.
        """
        array = np.concatenate([each.hashes() for each in generations])
        array.sort()
        # Its name is free: no other generation was written at that microsecond.
        return self._write(array, max(each.newest_us for each in generations) + 1)

    def replace(self, old: list[Generation], merged: Generation) -> None:
        """Use a merged generation in place of its parts."""
        self.generations = [each for each in self.generations if each not in old] + [merged]
        for each in old:
            each.delete()

    def forget_old(self, now_us: int) -> None:
        """Delete the generations in which all ids are older than an hour."""
        for each in list(self.generations):
            if each.newest_us < now_us - WINDOW_SECONDS * 1_000_000:
                self.generations.remove(each)
                each.delete()

    def _write(self, sorted_hashes: Hashes, newest_us: int) -> Generation:
        path = self._folder.ids / f"{newest_us:016d}.u64"
        part = self._folder.tmp / f"{path.name}.part"
        with open(part, "wb") as file:
            sorted_hashes.tofile(file)
            file.flush()
            os.fsync(file.fileno())  # an empty file under this name would count as all ids up to then
        os.replace(part, path)
        return Generation(path)
