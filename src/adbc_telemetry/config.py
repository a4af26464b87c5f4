"""TelemetryConfiguration: every setting, where it comes from, and the user's right to turn telemetry off."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Final, Literal, TypeAlias, get_type_hints

import msgspec

PROPERTY_PREFIX: Final = "adbc.databricks.telemetry."
ENVIRONMENT_PREFIX: Final = "DATABRICKS_TELEMETRY_"

_TRUE: Final = frozenset({"true", "1", "yes", "on"})
_FALSE: Final = frozenset({"false", "0", "no", "off"})
_MAXIMUM: Final = 2**31 - 1

# What each setting may be. msgspec checks the type; the description completes "... must be".
_Switch: TypeAlias = Annotated[bool, msgspec.Meta(description="True or False")]
_Positive: TypeAlias = Annotated[
    int, msgspec.Meta(ge=1, le=_MAXIMUM, description=f"from 1 to {_MAXIMUM} (a whole number)")
]
_NotNegative: TypeAlias = Annotated[
    int, msgspec.Meta(ge=0, le=_MAXIMUM, description=f"from 0 to {_MAXIMUM} (a whole number)")
]
Compression: TypeAlias = Annotated[Literal["none", "gzip"], msgspec.Meta(description="none or gzip")]
_CircuitOpen: TypeAlias = Annotated[Literal["drop", "retain"], msgspec.Meta(description="drop or retain")]


@dataclass(frozen=True, kw_only=True)
class TelemetryConfiguration:
    """How telemetry is batched, sent and given up. Immutable. Times are in milliseconds, sizes in bytes.

    Since 0.1.

    Attributes:
        enabled: whether events are recorded at all. An explicit False beats everything, whether it is given here,
            as a property or in the environment. See also `consent`.
        batch_size: the most events in one batch. A batch is sent as soon as this many events wait.
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
        compression: how request bodies are compressed: "none" or "gzip".
        circuit_open: what happens to events while the circuit is open: "drop" or "retain".
        spool_dir: a folder for events that could not be delivered, or None. They are sent when the endpoint works
            again, possibly by another process. Needs POSIX file locks, which Windows does not have.
        spool_max_bytes: how large that folder may grow. Beyond it the oldest events are dropped.
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
    max_request_bytes: _Positive = 1_000_000
    request_timeout_ms: _Positive = 10_000
    close_timeout_ms: _NotNegative = 5_000
    compression: Compression = "none"
    circuit_open: _CircuitOpen = "drop"
    spool_dir: str | os.PathLike[str] | None = None
    spool_max_bytes: _Positive = 64 * 1024 * 1024
    consent: bool | None = field(init=False, repr=False, compare=False)
    """What the user said: True, False, or None if the user said nothing and a server's flag decides."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "consent", self.enabled)
        object.__setattr__(self, "enabled", False if self.enabled is None else self.enabled)

    @classmethod
    def from_properties(
        cls, properties: Mapping[str, Any] | None = None, environ: Mapping[str, str] = os.environ
    ) -> TelemetryConfiguration:
        """The settings in a connection's properties and in the environment. Never raises.

        A property (`adbc.databricks.telemetry.batch_size`) beats the environment
        (`DATABRICKS_TELEMETRY_BATCH_SIZE`), and the environment beats the default. A bad value counts as absent.
        For `enabled`, a clear no in either place wins, and so does `DO_NOT_TRACK`.

        Args:
            properties: the connection's properties; those that are no settings of ours are passed over.
            environ: the environment.

        Returns:
            A sound configuration.
        """
        values: dict[str, Any] = {}
        for name in _SETTINGS:
            for source, key in (
                (environ, ENVIRONMENT_PREFIX + name.upper()),
                (properties, PROPERTY_PREFIX + name),
            ):
                value = _read(name, _look_up(source, key))
                if value is not None and not (name == "enabled" and values.get(name) is False):
                    values[name] = value
        if opted_out(environ):
            values["enabled"] = False
        return cls(**values)

    def validate(self) -> list[str]:
        """One sentence per bad setting, which says what it must be. Empty if all are sound."""
        return [
            _problem(name, value) for name in _SETTINGS if not _is_sound(name, value := getattr(self, name))
        ]


_SETTINGS: Final = tuple(f.name for f in fields(TelemetryConfiguration) if f.init)
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
    """Whether the environment turns telemetry off: `DO_NOT_TRACK` or `DATABRICKS_TELEMETRY_ENABLED=false`."""
    do_not_track = str(_look_up(environ, "DO_NOT_TRACK") or "").strip().lower()
    if do_not_track not in ("", *_FALSE):
        return True
    return _read("enabled", _look_up(environ, ENVIRONMENT_PREFIX + "ENABLED")) is False


def _look_up(source: Mapping[str, Any] | None, key: str) -> object:
    return source.get(key) if isinstance(source, Mapping) else None


def _read(name: str, value: object) -> object:
    """A property or an environment variable as the setting's type; None if it is missing or makes no sense."""
    if isinstance(value, str):
        value = _read_text(name, value)
    elif isinstance(value, int) and _TYPES[name] == _Switch:
        value = {0: False, 1: True}.get(value)
    return value if value is not None and _is_sound(name, value) else None


def _read_text(name: str, text: str) -> object:
    if name == "spool_dir":
        return text or None
    text = text.strip().lower()
    kind = _TYPES[name].__origin__
    if kind is bool:
        return True if text in _TRUE else False if text in _FALSE else None
    if kind is int:
        try:
            return int(text)
        except ValueError:
            return None
    return text


def _is_sound(name: str, value: object) -> bool:
    if name == "spool_dir":
        return value is None or (isinstance(value, (str, os.PathLike)) and sys.platform != "win32")
    try:
        msgspec.convert(value, _TYPES[name])
    except msgspec.ValidationError:
        return False
    return True


def _problem(name: str, value: object) -> str:
    """What to do about a value that is not sound."""
    if name != "spool_dir":
        (meta,) = _TYPES[name].__metadata__
        return f"{name} must be {meta.description}, not {value!r}"
    if isinstance(value, (str, os.PathLike)):
        return "spool_dir needs POSIX file locks, which Windows does not have: leave it out"
    return f"spool_dir must be a path or None, not {value!r}"
