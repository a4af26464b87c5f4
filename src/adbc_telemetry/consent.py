"""Who says what about telemetry, and who wins: the one place that decides whether it is on.

Three modes: `off` records nothing, `local` writes events into a file of the user's or prints them and never sends
them, `on` sends them. The rules, in this order:

1. The most private word of the user wins: off before local before on. So no word overrules a no of the user's.
2. Without a word of the user's, the server's flags decide.
3. Without a word of the server's either, telemetry is off.

Each voice that may say something is a `Voice` of the decision, also when it said nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, Final

from msgspec import Struct

PROPERTY_PREFIX: Final = "adbc.databricks.telemetry."
ENVIRONMENT_PREFIX: Final = "DATABRICKS_TELEMETRY_"
DO_NOT_TRACK: Final = "DO_NOT_TRACK"
DEBUG_VARIABLE: Final = "ADBC_TELEMETRY_DEBUG"
"""Set to 1, it prints events to stderr instead of sending them."""

_VARIABLES: Final = (
    DO_NOT_TRACK,
    DEBUG_VARIABLE,
    f"{ENVIRONMENT_PREFIX}MODE",
    f"{ENVIRONMENT_PREFIX}ENABLED",
)

TRUE: Final = frozenset({"true", "1", "yes", "on"})
FALSE: Final = frozenset({"false", "0", "no", "off"})


class Mode(str, Enum):
    """What becomes of events."""

    OFF = "off"
    """None are recorded."""
    LOCAL = "local"
    """They go into a file of the user's, or to stderr. They are never sent."""
    ON = "on"
    """They are sent."""


_MOST_PRIVATE_FIRST: Final = (Mode.OFF, Mode.LOCAL, Mode.ON)


class Voice(Struct, frozen=True):
    """One of those who may say something about telemetry.

    Attributes:
        name: who: a variable of the environment, a property, an argument, or the server's flags.
        said: the mode that it asked for; None if it said nothing that makes sense.
        won: whether the decision follows it. At most one voice wins.
        is_user: whether it is the user's. Of the voices, only the server's is not.
    """

    name: str
    said: Mode | None = None
    won: bool = False
    is_user: bool = True


class Decision(Struct, frozen=True):
    """Whether telemetry is on, and why.

    Since 0.2.

    Attributes:
        mode: what becomes of events.
        reason: one sentence for people.
        voices: each voice, what it said and whether it won, in the order in which they were asked.
    """

    mode: Mode
    reason: str
    voices: tuple[Voice, ...]

    @property
    def enabled(self) -> bool:
        """Whether events are recorded: in the modes `on` and `local`."""
        return self.mode is not Mode.OFF

    @property
    def user_is_silent(self) -> bool:
        """Whether the user has said nothing, so that the server's flags decide."""
        return not any(voice.is_user and voice.said for voice in self.voices)

    def __str__(self) -> str:
        """The reason, and a line per voice."""
        lines = [self.reason]
        for voice in self.voices:
            said = "nothing" if voice.said is None else voice.said.value
            lines.append(f"  {voice.name}: {said}{' (decides)' if voice.won else ''}")
        return "\n".join(lines)


def users_voices(
    properties: Mapping[str, Any] | None = None, environ: Mapping[str, str] = os.environ
) -> list[Voice]:
    """What the user says in the environment and in a connection's properties. Never raises.

    Args:
        properties: of a connection; anything but a mapping counts as none.
        environ: variables of the environment.
    """
    track = str(look_up(environ, DO_NOT_TRACK) or "").strip().lower()
    debug = as_switch(look_up(environ, DEBUG_VARIABLE))
    voices = [
        Voice(DO_NOT_TRACK, Mode.OFF if track not in ("", *FALSE) else None),
        Voice(DEBUG_VARIABLE, Mode.LOCAL if debug else None),
    ]
    for source, prefix in ((environ, ENVIRONMENT_PREFIX), (properties, PROPERTY_PREFIX)):
        for setting, read in (("mode", as_mode), ("enabled", _mode_of_switch)):
            name = prefix + (setting.upper() if source is environ else setting)
            voices.append(Voice(name, read(look_up(source, name))))
    return voices


def mode_of_environment(environ: Mapping[str, str] = os.environ) -> Mode | None:
    """The most private word of the environment alone; None if it says nothing."""
    # Each client asks, and nearly always there is nothing.
    if isinstance(environ, Mapping) and environ.keys().isdisjoint(_VARIABLES):
        return None
    decision = decide(users_voices(None, environ))
    return None if decision.user_is_silent else decision.mode


def nothing_may_leave(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the environment keeps this process from making any request: by a no, or by the mode `local`."""
    return mode_of_environment(environ) in (Mode.OFF, Mode.LOCAL)


def argument_voice(name: str, *, enabled: object = None, mode: object = None) -> Voice:
    """What an argument says.

    Args:
        name: of the argument.
        enabled: True, False, or None for nothing.
        mode: a mode's name, or None for nothing.
    """
    said = [each for each in (as_mode(mode), _mode_of_switch(enabled)) if each is not None]
    return Voice(name, min(said, key=_MOST_PRIVATE_FIRST.index, default=None))


def server_voice(name: str, word: bool | None) -> Voice:
    """What the server's flags say; None for nothing."""
    return Voice(name, None if word is None else Mode.ON if word else Mode.OFF, is_user=False)


def decide(
    voices: Iterable[Voice], *, silence: str = "neither the user nor the server has said yes"
) -> Decision:
    """The decision that these voices come to, by the rules of this module.

    Args:
        voices: of the user and of the server, in the order in which they are to be shown.
        silence: the reason if all of them are silent.
    """
    heard = list(voices)
    for is_user in (True, False):
        for mode in _MOST_PRIVATE_FIRST:
            for index, voice in enumerate(heard):
                if voice.is_user is is_user and voice.said is mode:
                    heard[index] = Voice(voice.name, mode, True, is_user)
                    return Decision(mode, f"{mode.value}: {voice.name} says so", tuple(heard))
    return Decision(Mode.OFF, f"off: {silence}", tuple(heard))


def as_switch(value: object) -> bool | None:
    """True or False, of a bool, of 0 and 1, or of a text; None if it is none of them."""
    if isinstance(value, str):
        text = value.strip().lower()
        return True if text in TRUE else False if text in FALSE else None
    return {0: False, 1: True}.get(value) if isinstance(value, int) else None


def as_mode(value: object) -> Mode | None:
    """A mode, by its name in any case; None if it is none."""
    text = value.strip().lower() if isinstance(value, str) else None
    return next((mode for mode in Mode if mode.value == text), None)


def _mode_of_switch(value: object) -> Mode | None:
    switch = as_switch(value)
    return None if switch is None else Mode.ON if switch else Mode.OFF


def look_up(source: Mapping[str, Any] | None, key: str) -> object:
    """The value of `key`; None if there is none, or if `source` is no mapping."""
    return source.get(key) if isinstance(source, Mapping) else None
