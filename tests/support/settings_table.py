"""The table of settings in `docs/configuration.md`, made from `TelemetryConfiguration` and its docstring.

PYTHONPATH=tests python tests/support/settings_table.py    writes it into the page
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

from adbc_telemetry import TelemetryConfiguration

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
_TABLE = re.compile(r"(?<=<!-- table: settings -->\n).*?(?=<!-- end -->)", re.S)


def described() -> dict[str, str]:
    """What the docstring says of each setting."""
    _, _, attributes = (TelemetryConfiguration.__doc__ or "").partition("Attributes:\n")
    found = re.findall(r"^ {8}(\w+): (.*?)(?=^ {8}\w+: |\Z)", attributes, re.M | re.S)
    return {name: " ".join(text.split()) for name, text in found}


def settings_table() -> str:
    """Each setting with its default and what it does."""
    texts = described()
    rows = [
        f"| `{each.name}` | {_default(each.name, each.default)} | {texts[each.name]} |"
        for each in dataclasses.fields(TelemetryConfiguration)
        if each.init
    ]
    return "\n".join(["| setting | default | |", "| --- | --- | --- |", *rows, ""])


def table_of_the_page() -> str:
    """The table as the page has it."""
    found = _TABLE.search(PAGE.read_text(encoding="utf-8"))
    assert found, "no table of settings"
    return found[0]


def _default(name: str, default: Any) -> str:
    if name == "enabled":
        return "false"  # not set, which counts as no
    if isinstance(default, bool):
        return str(default).lower()
    return "none" if default is None else f"{default:,}" if isinstance(default, int) else str(default)


def main() -> None:
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(_TABLE.sub(lambda _: settings_table(), text), encoding="utf-8")


if __name__ == "__main__":
    main()
