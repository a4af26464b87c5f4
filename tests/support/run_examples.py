"""Runs the python blocks of a page, one after the other: `run_examples.py FILE`, by `support.page_examples`.

Each has names of its own, unless it continues the one before it. After each one, what it has left behind is delivered.
A traceback names the page and the line.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def main(file: str) -> None:
    names: dict[str, Any] = {}
    sys.path[0] = ""  # files of the page's folder, as for a reader's own Python
    for program in json.loads(Path(file).read_text(encoding="utf-8")):
        print("\x1e", flush=True)
        if not program["continues"]:
            _tidy_up()
            names = {"__name__": "__main__"}
        code = "\n" * (program["line"] - 1) + program["code"]
        exec(compile(code, program["name"], "exec"), names)
    _tidy_up()


def _tidy_up() -> None:
    package = sys.modules.get("adbc_telemetry")
    if package is not None:
        package.uninstall()
        package.TelemetryClientManager.get_instance().close_all()


if __name__ == "__main__":
    main(sys.argv[1])
