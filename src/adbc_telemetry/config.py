"""TelemetryConfiguration: every setting, where it comes from, and the user's right to turn telemetry off."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Final, Literal, TypeAlias, get_type_hints

import msgspec

from adbc_telemetry.consent import (
    ENVIRONMENT_PREFIX,
    PROPERTY_PREFIX,
    Mode,
    Voice,
    argument_voice,
    as_switch,
    decide,
    look_up,
    mode_of_environment,
    users_voices,
)
from adbc_telemetry.core import zstd
from adbc_telemetry.core.guard import never_raises

__all__ = ["ENVIRONMENT_PREFIX", "PROPERTY_PREFIX", "TelemetryConfiguration", "checked_config", "opted_out"]

_MAXIMUM: Final = 2**31 - 1

# What each setting may be. msgspec checks the type; the description completes "... must be".
_Switch: TypeAlias = Annotated[bool, msgspec.Meta(description="True or False")]
_Positive: TypeAlias = Annotated[
    int, msgspec.Meta(ge=1, le=_MAXIMUM, description=f"from 1 to {_MAXIMUM} (a whole number)")
]
_NotNegative: TypeAlias = Annotated[
    int, msgspec.Meta(ge=0, le=_MAXIMUM, description=f"from 0 to {_MAXIMUM} (a whole number)")
]
_PositiveOrNone: TypeAlias = Annotated[
    _Positive | None, msgspec.Meta(description=f"from 1 to {_MAXIMUM} (a whole number), or None")
]
Compression: TypeAlias = Annotated[
    Literal["none", "gzip", "zstd"], msgspec.Meta(description="none, gzip or zstd")
]
_Mode: TypeAlias = Annotated[
    Literal["off", "local", "on"] | None, msgspec.Meta(description="off, local, on or None")
]
_CircuitOpen: TypeAlias = Annotated[Literal["drop", "retain"], msgspec.Meta(description="drop or retain")]


def _unreadable(
    error: Exception, cls: type[TelemetryConfiguration], *_: object, **__: object
) -> TelemetryConfiguration:
    return cls(enabled=False)


@dataclass(frozen=True, kw_only=True)
class TelemetryConfiguration:
    """How telemetry is batched, sent and given up. Immutable. Times are in milliseconds, sizes in bytes.

    Since 0.1.

    Attributes:
        enabled: whether events are recorded at all. An explicit False beats everything, whether it is given here,
            as a property or in the environment. See also `consent`.
        batch_size: a batch is sent as soon as this many events wait. Set to another number than 100, it is also the
            most events in one batch, unless `max_batch_size` is set.
        max_batch_size: the most events in one batch of a busy client, which sends what has come meanwhile in fewer and
            larger requests. None is `batch_size`; while that is 100, it is 1,000 once full batches have followed each
            other for a second. A batch is never larger than `max_request_bytes`.
        flush_interval_ms: how long an event waits for others before it is sent.
        max_retries: how often a failed request is tried again (0: never).
        retry_delay_ms: the upper bound of the first back-off. It doubles with each retry, with full jitter.
        circuit_breaker_enabled: whether a failing endpoint is left alone for a while.
        circuit_breaker_threshold: consecutive failed exports that open the circuit.
        circuit_breaker_timeout_ms: how long an open circuit waits before it lets one export through.
        max_queue_size: how many events may wait for one host. Beyond it the newest is dropped and counted.
        max_request_bytes: the largest body of a request, before compression.
        request_timeout_ms: how long one request may take, from connecting to the last byte of the response.
        close_timeout_ms: how long `close` and the exit of the process wait for delivery.
        compression: how request bodies are compressed: "none", "gzip", or "zstd", which is smaller and faster and needs
            Python 3.14 or `adbc-telemetry[zstd]`. An endpoint that does not take it (415) gets bodies as they are.
        circuit_open: what happens to events while the circuit is open: "drop" or "retain".
        spool_dir: a folder for events that could not be delivered, or None. They are sent when the endpoint works
            again, possibly by another process. Needs POSIX file locks, which Windows does not have.
        spool_max_bytes: how large that folder may grow. Beyond it the oldest events are dropped.
        mode: "off", "local" or "on", or None to leave that to `enabled`. If the two differ, the more private one
            holds. In mode "local", events are written to `local_path` and never sent.
        local_path: a file, or a folder that exists, for the events of mode "local"; None for
            `adbc-telemetry.jsonl` in the user's folder for state (`$XDG_STATE_HOME`, else `~/.local/state`).
    """

    enabled: _Switch = None  # type: ignore[assignment]  # tells "not set" from False; a bool after __post_init__
    batch_size: _Positive = 100
    flush_interval_ms: _Positive = 5000
    max_retries: _NotNegative = 3
    retry_delay_ms: _NotNegative = 100
    circuit_breaker_enabled: _Switch = True
    circuit_breaker_threshold: _Positive = 5
    circuit_breaker_timeout_ms: _Positive = 60_000
    max_queue_size: _Positive = 10_000
    max_batch_size: _PositiveOrNone = None
    max_request_bytes: _Positive = 1_000_000
    request_timeout_ms: _Positive = 10_000
    close_timeout_ms: _NotNegative = 5_000
    compression: Compression = "none"
    circuit_open: _CircuitOpen = "drop"
    spool_dir: str | os.PathLike[str] | None = None
    spool_max_bytes: _Positive = 64 * 1024 * 1024
    mode: _Mode = None
    local_path: str | os.PathLike[str] | None = None
    consent: bool | None = field(init=False, repr=False, compare=False)
    """What the user said: True, False, or None if the user said nothing and a server's flag decides."""

    def __post_init__(self) -> None:
        enabled = self.enabled
        object.__setattr__(self, "consent", enabled if isinstance(enabled, bool) else None)
        said = self.voice().said
        if said is not None:
            object.__setattr__(self, "consent", said is not Mode.OFF)
        if enabled is None or self.consent is not None:  # else it is a mistake, which `validate` names
            object.__setattr__(self, "enabled", bool(self.consent))

    def voice(self, name: str = "the configuration") -> Voice:
        """What this configuration says about telemetry, as the voice `name`, for `consent.decide`."""
        return argument_voice(name, enabled=self.consent, mode=self.mode)

    @property
    def is_local(self) -> bool:
        """Whether events are written to `local_path` and never sent."""
        return self.enabled is True and self.mode == Mode.LOCAL.value

    @classmethod
    @never_raises(_unreadable)
    def from_properties(
        cls,
        properties: Mapping[str, Any] | None = None,
        environ: Mapping[str, str] = os.environ,
        *,
        flags: Mapping[str, str] | None = None,
    ) -> TelemetryConfiguration:
        """The settings in a connection's properties and in the environment. Never raises.

        A property (`adbc.databricks.telemetry.batch_size`) beats the environment
        (`DATABRICKS_TELEMETRY_BATCH_SIZE`), the environment beats a flag, and a flag beats the default. A bad value
        counts as absent. About `enabled` and `mode`, the user's most private word wins; see `consent`. What raises when
        it is read may be a no: telemetry is off then.

        Args:
            properties: of a connection.
            environ: variables of the environment.
            flags: the server's flags, named as properties in lower case. They decide neither `enabled` and `mode`
                nor where files are written.

        Returns:
            A sound configuration.
        """
        values = _flagged(flags)
        for name in _SETTINGS:
            for source, key in (
                (environ, ENVIRONMENT_PREFIX + name.upper()),
                (properties, PROPERTY_PREFIX + name),
            ):
                value = _read(name, look_up(source, key))
                if value is not None:
                    values[name] = value
        decision = decide(users_voices(properties, environ))
        said = None if decision.user_is_silent else decision.mode
        values["enabled"] = None if said is None else decision.enabled
        values["mode"] = Mode.LOCAL.value if said is Mode.LOCAL else None
        return cls(**values)

    def with_flags(self, flags: Mapping[str, str]) -> TelemetryConfiguration:
        """These settings, with those of `flags` in the place of defaults; see `from_properties`."""
        told = {
            name: value for name, value in _flagged(flags).items() if getattr(self, name) == _DEFAULTS[name]
        }
        if self.consent is None:
            told["enabled"] = None  # else `replace` would take the silence for a no
        return dataclasses.replace(self, **told)

    def validate(self) -> list[str]:
        """One sentence per bad setting, which says what it must be. Empty if all are sound."""
        return [
            _problem(name, value) for name in _SETTINGS if not _is_sound(name, value := getattr(self, name))
        ]


_SETTINGS: Final = tuple(f.name for f in fields(TelemetryConfiguration) if f.init)
_DEFAULTS: Final = {f.name: f.default for f in fields(TelemetryConfiguration) if f.init}
_PATHS: Final = frozenset({"spool_dir", "local_path"})
# A server must not decide about consent, nor where files are written.
_NOT_BY_FLAG: Final = _PATHS | {"enabled", "mode"}
# What a flag may ask for at most: it must not hold up the program's end for long, nor fill its memory.
_MOST_BY_FLAG: Final = {"close_timeout_ms": 60_000, "max_queue_size": 1_000_000}
_TYPES: Final = get_type_hints(TelemetryConfiguration, include_extras=True)


def checked_config(config: TelemetryConfiguration) -> TelemetryConfiguration:
    """Return `config` if it is sound.

    Raises:
        TypeError: `config` is not a `TelemetryConfiguration`.
        ValueError: a setting is bad. The message is the sentences of `validate`.
    """
    if not isinstance(config, TelemetryConfiguration):
        raise TypeError(f"config must be a TelemetryConfiguration, not {type(config).__name__}")
    problems = config.validate()
    if problems:
        raise ValueError("; ".join(problems))
    return config


def opted_out(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the environment turns telemetry off: by `DO_NOT_TRACK`, or a mode `off` or `enabled=false` there."""
    return mode_of_environment(environ) is Mode.OFF


def _flagged(flags: Mapping[str, str] | None) -> dict[str, Any]:
    """The settings that the server's flags give."""
    values: dict[str, Any] = {}
    for name in _SETTINGS:
        if name not in _NOT_BY_FLAG:
            value: Any = _read(name, look_up(flags, PROPERTY_PREFIX + name))
            if value is not None and not (name in _MOST_BY_FLAG and value > _MOST_BY_FLAG[name]):
                values[name] = value
    return values


def _read(name: str, value: object) -> object:
    """A property or an environment variable as the setting's type; None if it is missing or makes no sense."""
    if isinstance(value, str):
        value = _read_text(name, value)
    elif isinstance(value, int) and _TYPES[name] == _Switch:
        value = as_switch(value)
    return value if value is not None and _is_sound(name, value) else None


def _read_text(name: str, text: str) -> object:
    if name in _PATHS:
        return text or None
    text = text.strip().lower()
    kind = _TYPES[name].__origin__
    if kind is bool:
        return as_switch(text)
    if kind is int or _TYPES[name] == _PositiveOrNone:
        try:
            return int(text)
        except ValueError:
            return None
    return text


def _is_sound(name: str, value: object) -> bool:
    if name in _PATHS:
        is_path = isinstance(value, (str, os.PathLike))
        return value is None or (is_path and (name != "spool_dir" or sys.platform != "win32"))
    if name == "compression" and value == "zstd" and not zstd.is_available():
        return False
    try:
        msgspec.convert(value, _TYPES[name])
    except msgspec.ValidationError:
        return False
    return True


def _problem(name: str, value: object) -> str:
    """What to do about a value that is not sound."""
    if name == "local_path":
        return f"local_path must be a path or None, not {value!r}"
    if name == "compression" and value == "zstd":
        return "compression zstd needs Python 3.14, or: pip install 'adbc-telemetry[zstd]'"
    if name != "spool_dir":
        (meta,) = _TYPES[name].__metadata__
        return f"{name} must be {meta.description}, not {value!r}"
    if isinstance(value, (str, os.PathLike)):
        return "spool_dir needs POSIX file locks, which Windows does not have: leave it out"
    return f"spool_dir must be a path or None, not {value!r}"


def environment_problems(environ: Mapping[str, str] = os.environ) -> list[str]:
    """One sentence for each setting in the environment that makes no sense and counts as absent."""
    problems = []
    for name in _SETTINGS:
        variable = ENVIRONMENT_PREFIX + name.upper()
        text = environ.get(variable)
        if text and _read(name, text) is None:
            what = "a path" if name == "spool_dir" else _TYPES[name].__metadata__[0].description
            problems.append(f"{variable} must be {what}")
    return problems


def unknown_settings(environ: Mapping[str, str] = os.environ) -> dict[str, list[str]]:
    """Variables of the environment that look like settings and are none, and the names of those that are."""
    known = [ENVIRONMENT_PREFIX + name.upper() for name in _SETTINGS]
    return {name: known for name in environ if name.startswith(ENVIRONMENT_PREFIX) and name not in known}
