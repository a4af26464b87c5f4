"""The truth table of `docs/decision.md`. To write it anew: python tests/support/decision_table.py docs/decision.md"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import NamedTuple

from adbc_telemetry.consent import Decision, argument_voice, decide, server_voice, users_voices
from adbc_telemetry.decision import SERVER

BEGIN, END = "<!-- table -->\n", "<!-- end of table -->"


class Case(NamedTuple):
    """What each voice says; None for nothing."""

    track: str | None = None
    environment: str | None = None
    property: str | None = None
    argument: bool | None = None
    server: bool | None = None

    def environ(self) -> dict[str, str]:
        found = {} if self.track is None else {"DO_NOT_TRACK": self.track}
        return {**found, **_settings("DATABRICKS_TELEMETRY_", self.environment, str.upper)}

    def properties(self) -> dict[str, str]:
        return _settings("adbc.databricks.telemetry.", self.property, str.lower)

    def decide(self) -> Decision:
        voices = users_voices(self.properties(), self.environ())
        voices += [argument_voice("the argument", enabled=self.argument), server_voice(SERVER, self.server)]
        return decide(voices)


def _settings(prefix: str, word: str | None, case: object) -> dict[str, str]:
    if word is None:
        return {}
    name = "mode" if word in ("local", "off", "on") else "enabled"
    return {prefix + (name.upper() if case is str.upper else name): word}


def all_cases() -> Iterator[Case]:
    words = (None, "true", "false", "local", "off", "on")
    for values in product((None, "0", "1"), words, words, (None, True, False), (None, True, False)):
        yield Case(*values)


SHOWN = (
    Case(),
    Case(server=True),
    Case(server=False),
    Case(property="true"),
    Case(property="true", server=False),
    Case(property="false", server=True),
    Case(environment="true"),
    Case(environment="false", property="true", argument=True, server=True),
    Case(environment="true", property="false"),
    Case(environment="off", property="on"),
    Case(environment="local", property="true", server=True),
    Case(environment="true", property="local"),
    Case(environment="local", property="false"),
    Case(argument=True, server=False),
    Case(argument=False, property="true", server=True),
    Case(track="1", environment="true", property="true", argument=True, server=True),
    Case(track="1", environment="local"),
    Case(track="0", property="true"),
)


def truth_table() -> str:
    """The table in Markdown."""
    lines = [
        "| `DO_NOT_TRACK` | environment | property | argument | server's flags | mode | who decides |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for case in SHOWN:
        decision = case.decide()
        winner = next((voice.name for voice in decision.voices if voice.won), "")
        words = ["" if word is None else str(word).lower() for word in case]
        lines.append("| " + " | ".join([*words, f"**{decision.mode.value}**", winner]) + " |")
    return "\n".join(lines) + "\n"


def with_table(text: str) -> str:
    """The page's text with the table of today in it."""
    before, _, rest = text.partition(BEGIN)
    return before + BEGIN + "\n" + truth_table() + "\n" + END + rest.partition(END)[2]


def main(arguments: Mapping[int, str] | list[str]) -> None:
    page = Path(arguments[1])
    page.write_text(with_table(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv)
