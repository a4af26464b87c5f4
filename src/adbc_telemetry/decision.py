"""`explain`: whether telemetry is on, who decided it, and what everyone said.

The rules are those of `consent`. This adds the server's voice, as far as this process knows it by now: to explain makes
no request. `docs/decision.md` has the truth table.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, Final

from adbc_telemetry.consent import Decision, Mode, Voice, argument_voice, decide, server_voice, users_voices
from adbc_telemetry.core.guard import never_raises
from adbc_telemetry.feature_flags import FeatureFlagManager, FeatureFlags

SERVER: Final = "the server's flag"
"""The name of the server's voice."""


def _unreadable(error: Exception, *_: object, **__: object) -> Decision:
    voice = Voice("what cannot be read", Mode.OFF, won=True)
    return Decision(Mode.OFF, f"off: what the user says cannot be read ({type(error).__name__})", (voice,))


@never_raises(_unreadable)
def explain(
    properties: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] = os.environ,
    *,
    enabled: bool | None = None,
    host: str | None = None,
) -> Decision:
    """Whether telemetry is on, and why. Never raises, makes no request, changes nothing.

    Since 0.2.

    Args:
        properties: of a connection: `adbc.databricks.telemetry.enabled` and `.mode`.
        environ: variables of the environment: `DO_NOT_TRACK`, `DATABRICKS_TELEMETRY_ENABLED` and `_MODE`, and
            `ADBC_TELEMETRY_DEBUG`.
        enabled: what an argument says, such as that of `TelemetryConfiguration`; None for nothing.
        host: whose flags count if the user has said nothing: what this process knows of them by now.

    Returns:
        The decision. `str()` of it lists every voice.
    """
    voices = [*users_voices(properties, environ), argument_voice("the argument", enabled=enabled)]
    return with_server(voices, host)


def with_server(voices: Iterable[Voice], host: str | None) -> Decision:
    """The decision of the user's voices and of the flags of `host` that are known by now."""
    flags = None if host is None else _known_flags(host)
    answered = flags is not None and flags.answered
    if host is None:
        silence = "the user has said nothing, and there is no host to ask"
    elif answered:
        silence = "the user has said nothing, and the server's flags do not turn it on"
    else:
        silence = "the user has said nothing, and the server's flags are not known yet"
    word = flags.word() if flags is not None else None
    return decide([*voices, server_voice(SERVER, word)], silence=silence)


def _not_known(error: Exception, host: str) -> FeatureFlags | None:
    return None


@never_raises(_not_known)
def _known_flags(host: str) -> FeatureFlags | None:
    return FeatureFlagManager.get_instance().known(host)
