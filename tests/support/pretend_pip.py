"""`pip install` of the documentation: looks whether each name exists, and installs nothing.

Ours are extras of the project; others are installed already, since the tests need what the pages need.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def main(project: str, command: str, *names: str) -> int:
    assert command == "install", command
    extras = set(
        re.findall(
            r"^(\w+) = \[",
            Path(project).read_text(encoding="utf-8").partition("[project.optional-dependencies]")[2],
            re.M,
        )
    )
    for name in names:
        found = re.fullmatch(r"(adbc-telemetry|\.|\S+\.whl)(?:\[(.*)\])?", name)
        if found:
            unknown = set(filter(None, (found[2] or "").split(","))) - extras
            if unknown:
                print(f"no such extra: {', '.join(sorted(unknown))}", file=sys.stderr)
                return 1
        elif not name.startswith("-"):
            try:
                version(re.split(r"[\[<>=~!]", name)[0])
            except PackageNotFoundError:
                print(f"not among the packages of the tests: {name}", file=sys.stderr)
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
