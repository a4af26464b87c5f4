"""An object in a process of its own, for the tests of `workers`."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from adbc_telemetry.collector import workers


class Target:
    """Does what a test asks."""

    def add(self, first: int, second: int) -> int:
        return first + second

    def fail(self, text: str) -> None:
        raise ValueError(text)

    def end(self) -> None:
        os._exit(3)

    def hang(self) -> None:
        time.sleep(3600)

    def niceness(self) -> int:
        return os.nice(0)

    def write_when_asked(self, path: str) -> None:
        Path(path).write_text("begun")
        time.sleep(3600)


if __name__ == "__main__":
    assert sys.argv[1:] == ["an argument"]
    workers.serve(Target())
