"""TelemetryConfiguration: every setting, where it may come from, and the user's last word."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, cast

PROPERTY_PREFIX: Final = "adbc.databricks.telemetry."
ENVIRONMENT_PREFIX: Final = "DATABRICKS_TELEMETRY_"

_TRUE: Final = frozenset({"true", "1", "yes", "on"})
_FALSE: Final = frozenset({"false", "0", "no", "off"})

# The least value that makes sense for each number, and the words that each choice accepts.
_MINIMUM: Final[dict[str, int]] = {
    "batch_size": 1,
    "flush_interval_ms": 1,
    "max_retries": 0,
    "retry_delay_ms": 0,
    "circuit_breaker_threshold": 1,
    "circuit_breaker_timeout_ms": 1,
    "max_queue_size": 1,
    "max_request_bytes": 1,
    "request_timeout_ms": 1,
    "close_timeout_ms": 0,
    "spool_max_bytes": 1,
}
_MAXIMUM: Final = 2**31 - 1
_CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "compression": ("none", "gzip"),
    "circuit_open": ("drop", "retain"),
}


@dataclass(frozen=True, kw_only=True)
class TelemetryConfiguration:
    """How telemetry is batched, sent and given up. Immutable; times are in milliseconds, sizes in bytes.

    Attributes:
        enabled: whether events are recorded at all. An explicit False, here, as a property or in the
            environment, beats everything; see also `consent`.
        batch_size: events sent together at the most, and how many waiting ones start a sending.
        flush_interval_ms: how long an event waits for others before it is sent.
        max_retries: how often a failed request is tried again (0: never).
        retry_delay_ms: the first back-off's upper bound; it doubles with each retry, with full jitter.
        circuit_breaker_enabled: whether a failing endpoint is left alone for a while.
        circuit_breaker_threshold: consecutive failed exports that open the circuit.
        circuit_breaker_timeout_ms: how long an open circuit waits before it lets one export through.
        max_queue_size: events that may wait for one host; a new one beyond that is dropped and counted.
        max_request_bytes: the largest body of a request, before compression.
        request_timeout_ms: how long one request may take, from connecting to the last byte of the answer.
        close_timeout_ms: how long `close`, and the end of the process, wait for delivery.
        compression: "none" or "gzip", of request bodies.
        circuit_open: what becomes of events while the circuit is open, "drop" or "retain".
        spool_dir: a folder for events that could not be delivered, to be sent when the endpoint is well again,
            also by another process; or None. Needs POSIX file locks, which Windows has not.
        spool_max_bytes: how large that folder may grow; beyond it the oldest events are dropped.
    """

    enabled: bool = cast(bool, None)  # tells "nobody said" from False; always a bool after __post_init__
    batch_size: int = 100
    flush_interval_ms: int = 5000
    max_retries: int = 3
    retry_delay_ms: int = 100
    circuit_breaker_enabled: bool = True
    circuit_breaker_threshold: int = 5
    circuit_breaker_timeout_ms: int = 60_000
    max_queue_size: int = 10_000
    max_request_bytes: int = 1_000_000
    request_timeout_ms: int = 10_000
    close_timeout_ms: int = 5_000
    compression: str = "none"
    circuit_open: str = "drop"
    spool_dir: str | os.PathLike[str] | None = None
    spool_max_bytes: int = 64 * 1024 * 1024
    consent: bool | None = field(init=False, repr=False, compare=False)
    """What the user said: True, False, or None where nobody said a word and a server's flag decides."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "consent", self.enabled)
        object.__setattr__(self, "enabled", False if self.enabled is None else self.enabled)

    @classmethod
    def from_properties(
        cls, properties: Mapping[str, Any] | None = None, environ: Mapping[str, str] = os.environ
    ) -> TelemetryConfiguration:
        """The settings in a connection's properties and in the environment. Never raises.

        A property (`adbc.databricks.telemetry.batch_size`) beats the environment
        (`DATABRICKS_TELEMETRY_BATCH_SIZE`), the environment beats the default; a value that cannot be read or
        makes no sense counts as absent. For `enabled` a clear no in either place wins, as does `DO_NOT_TRACK`.
        """
        values: dict[str, Any] = {}
        for name in _SETTINGS:
            for source, key in (
                (environ, ENVIRONMENT_PREFIX + name.upper()),
                (properties, PROPERTY_PREFIX + name),
            ):
                value = _parse(name, _look_up(source, key))
                if value is not None and not (name == "enabled" and values.get(name) is False):
                    values[name] = value
        if opted_out(environ):
            values["enabled"] = False
        return cls(**values)

    def validate(self) -> list[str]:
        """What is wrong with the settings, a sentence each; empty when they are sound."""
        return [problem for name in _SETTINGS if (problem := _problem(name, getattr(self, name)))]


_SETTINGS: Final = tuple(f.name for f in fields(TelemetryConfiguration) if f.init)


def checked_config(config: TelemetryConfiguration) -> TelemetryConfiguration:
    """`config`, if it is one and makes sense.

    Raises:
        TypeError: it is no `TelemetryConfiguration`.
        ValueError: a setting makes no sense.
    """
    if not isinstance(config, TelemetryConfiguration):
        raise TypeError(f"config must be a TelemetryConfiguration, not {type(config).__name__}")
    problems = config.validate()
    if problems:
        raise ValueError("; ".join(problems))
    return config


def opted_out(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the user said no in the environment: `DO_NOT_TRACK` or `DATABRICKS_TELEMETRY_ENABLED=false`."""
    do_not_track = str(_look_up(environ, "DO_NOT_TRACK") or "").strip().lower()
    if do_not_track not in ("", *_FALSE):
        return True
    return _parse("enabled", _look_up(environ, ENVIRONMENT_PREFIX + "ENABLED")) is False


def _look_up(source: Mapping[str, Any] | None, key: str) -> object:
    return source.get(key) if isinstance(source, Mapping) else None


def _parse(name: str, value: object) -> object:
    """The value as the setting's type, or None where it cannot be one."""
    if name == "spool_dir":
        parsed: object = value if isinstance(value, (str, os.PathLike)) and str(value) else None
    elif isinstance(value, bool):
        parsed = value
    elif isinstance(value, (int, str)):
        text = str(value).strip().lower() if isinstance(value, str) or abs(value) <= _MAXIMUM else ""
        if name in _MINIMUM:
            try:
                parsed = int(text) if len(text) <= 12 else None
            except ValueError:
                parsed = None
        elif name in _CHOICES:
            parsed = text
        else:
            parsed = True if text in _TRUE else False if text in _FALSE else None
    else:
        parsed = None
    return None if parsed is None or _problem(name, parsed) else parsed


def _problem(name: str, value: object) -> str | None:
    if name in _MINIMUM:
        if not isinstance(value, int) or isinstance(value, bool):
            return f"{name} must be a whole number, not {value!r}"
        if not _MINIMUM[name] <= value <= _MAXIMUM:
            return f"{name} must be from {_MINIMUM[name]} to {_MAXIMUM}, not {value}"
    elif name in _CHOICES:
        if value not in _CHOICES[name]:
            return f"{name} must be one of {', '.join(_CHOICES[name])}, not {value!r}"
    elif name == "spool_dir":
        if value is not None and not isinstance(value, (str, os.PathLike)):
            return f"spool_dir must be a path or None, not {value!r}"
        if value is not None and sys.platform == "win32":
            return "spool_dir needs POSIX file locks, which Windows has not: leave it out"
    elif not isinstance(value, bool):
        return f"{name} must be True or False, not {value!r}"
    return None
