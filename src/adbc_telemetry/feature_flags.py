"""Feature flags of the server: whether it turns telemetry on for users who have not decided, and how.

    FeatureFlagManager.get_instance().telemetry_enabled(host, config, auth=...)

If the user has decided, either way, the server is not even asked. A look-up only reads memory. If it finds the flags
missing or stale, it starts a fetch on the sender's side and goes by what it has. At first it has nothing, so telemetry
is off.

The flags of a host, in one process:

    state       what it means                                   goes on when
    unasked     no look-up yet                                  a look-up starts the first fetch
    asking      the first answer is under way                   it comes, fails, or takes `FIRST_ANSWER_SECONDS`
    answered    there is an answer, or a failure that counts    a look-up finds it old and starts another fetch;
                as one: no flag is known                        meanwhile the old answer holds

A no in the environment, also one that comes late, ends the requests; what watches the flags is told by the next fetch,
which makes none.

There is one first answer per host and process, and only that one is ever waited for, by those who have events to keep
until it comes (`flagged`). A forked child of a process that knows flags keeps them; any other child is unasked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final, Protocol
from urllib.parse import quote

import msgspec
from msgspec import Struct

from adbc_telemetry.config import PROPERTY_PREFIX, TelemetryConfiguration, checked_config, opted_out
from adbc_telemetry.consent import Mode, as_mode, as_switch, nothing_may_leave
from adbc_telemetry.core.fork import fork_gate, renew_in_child
from adbc_telemetry.core.guard import never_raises
from adbc_telemetry.core.hosts import normalize_host
from adbc_telemetry.core.native import RLock
from adbc_telemetry.core.reentrant import ReentrantEvent, WeakRegistry
from adbc_telemetry.core.version import __version__
from adbc_telemetry.export.endpoints import normalize_endpoint
from adbc_telemetry.pipeline.sender import sender
from adbc_telemetry.schema import FeatureFlagsResponse
from adbc_telemetry.transport.auth import Auth, checked_auth, credentials
from adbc_telemetry.transport.errors import HttpStatusError

TELEMETRY_FLAG: Final = "databricks.partnerplatform.clientConfigsFeatureFlags.enableTelemetryForAdbc"
"""The flag that turns telemetry on, named as in the C# ADBC driver. Other drivers have their own:
databricks-sql-connector uses `enableTelemetryForPythonDriver`."""

CLIENT_NAME: Final = "ADBC"
"""The client name in the request for flags, as the C# ADBC driver sends it; databricks-sql-connector sends `PYTHON`."""

DEFAULT_TTL_SECONDS: Final = FeatureFlagsResponse().ttl_seconds
MAX_TTL_SECONDS: Final = 86_400.0
BACKOFF_SECONDS: Final = 60.0
"""Seconds until the next fetch after one that failed, unless the server asks for more."""

FIRST_ANSWER_SECONDS: Final = 3.0
"""How long the first answer may take. No later answer is waited for."""

WAITING_AT_MOST: Final = 1_000
"""How many events of a host may wait for its first answer."""

_ENABLED_FLAG: Final = f"{PROPERTY_PREFIX}enabled"
_MODE_FLAG: Final = f"{PROPERTY_PREFIX}mode"


class FlagWatcher(Protocol):
    """What wants to know when the flags of a host have changed."""

    def on_flags(self) -> None:
        """A fetch is over. Called on the sender's side, and must not raise."""
        ...


class _Fetched(Struct, frozen=True):
    """How a fetch ended: the new flags, or None to keep the old ones, and how many seconds they hold."""

    flags: Mapping[str, str] | None = None
    seconds: float = BACKOFF_SECONDS


def _not_fetched(error: Exception, *_: object) -> _Fetched:
    retry_after = error.retry_after if isinstance(error, HttpStatusError) else None
    return _Fetched(seconds=max(BACKOFF_SECONDS, retry_after or 0.0))


def _not_started(error: Exception, flags: FeatureFlags, auth: Auth | None) -> None:
    flags._settle(_Fetched())


class FeatureFlags:
    """The flags of one host. Thread-safe; survives a fork. A look-up never blocks and never raises.

    Args:
        host: a host or an http(s) URL.
        config: `request_timeout_ms` bounds a fetch.
        client_name: the driver that the flags are for.
        client_version: the driver's version; None for this package's.
        auth: returns the headers that authenticate a fetch, unless the look-up brings its own `auth`; called on the
            sender's side.
        clock: returns seconds; tells the age of the flags.

    Raises:
        ValueError: `host` names no host, or `auth` is given and `host` is plain HTTP to another machine.
        TypeError: `host` is no string, or `auth` cannot be called.
    """

    def __init__(
        self,
        host: str,
        config: TelemetryConfiguration,
        *,
        client_name: str = CLIENT_NAME,
        client_version: str | None = None,
        auth: Auth | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._host = normalize_host(host)
        version = __version__ if client_version is None else client_version
        names = f"{quote(client_name, safe='')}/{quote(version, safe='')}"
        self._path = f"/api/2.0/connector-service/feature-flags/{names}"
        self._timeout = checked_config(config).request_timeout_ms / 1000
        self._auth = checked_auth(self._host, auth)
        self._clock = clock
        self._flags: Mapping[str, str] | None = None  # by their names in lower case; None before the first
        self._watchers: WeakRegistry[FlagWatcher] = WeakRegistry()
        self.after_fork_in_child()
        renew_in_child(self)

    def after_fork_in_child(self) -> None:
        """The child keeps the flags. It has no thread that would end a fetch under way."""
        self._lock = RLock()  # guards _flags, _fetch_after, _fetching and answered
        self._fetching = False
        if self._flags is None:
            # Also if the parent's first fetch has failed: under uWSGI, the master may start no thread for it.
            self._fetch_after = float("-inf")
            self.answered = False
            self.first_answer = ReentrantEvent()
            self.answer_due = float("inf")
            # For those who keep events until then: a token for each event that may wait, and calls to make after it.
            # Both change by single steps.
            self.room: list[None] = [None] * WAITING_AT_MOST
            self.when_answered: list[Callable[[], object]] = []

    @property
    def host(self) -> str:
        """The host, normalised."""
        return self._host

    def get(self, name: str, *, auth: Auth | None = None) -> str | None:
        """The value of a flag as far as it is known by now, else None.

        Args:
            name: the flag's full name.
            auth: authenticates the fetch if this look-up starts one. It is not kept after that: a connection that
                has looked up a flag must not be kept alive, nor its credentials used for another.
        """
        if opted_out():
            return None
        self.refresh_if_old(auth)
        return self._known(name)

    def refresh_if_old(self, auth: Auth | None = None) -> None:
        """Start a fetch on the sender's side, if the flags are missing or old and none is under way.

        Args:
            auth: see `get`.
        """
        if self._clock() < self._fetch_after:
            return
        with self._lock:
            start = not self._fetching and self._clock() >= self._fetch_after
            self._fetching = self._fetching or start
            if start and not self.answered:
                self.answer_due = time.monotonic() + FIRST_ANSWER_SECONDS
        if start:
            self._fetch_soon(auth or self._auth)

    def word(self, flag: str = TELEMETRY_FLAG) -> bool | None:
        """What the flags that are known by now say about telemetry; None for nothing. A no of any of them wins.

        Args:
            flag: the driver's own flag. The property's flags `adbc.databricks.telemetry.enabled` and `.mode` count too.
        """
        own = self._known(flag)
        words = [None if own is None else _is_true(own), as_switch(self._known(_ENABLED_FLAG))]
        if as_mode(self._known(_MODE_FLAG)) is Mode.OFF:
            words.append(False)
        return False if False in words else True if True in words else None

    def settings(self) -> Mapping[str, str]:
        """All flags that are known by now, by their names in lower case; see `config.from_properties`."""
        return self._flags or {}

    def watch(self, watcher: FlagWatcher) -> None:
        """Have `watcher.on_flags()` called after each fetch, for as long as it lives."""
        self._watchers.add(watcher)

    def wait_for_first_answer(self, deadline: float) -> bool:
        """Wait until the first answer is there, or due, or `deadline` (`time.monotonic()`) has come.

        Returns:
            Whether it is there.
        """
        return self.first_answer.wait(min(deadline, self.answer_due) - time.monotonic())

    def _known(self, name: str) -> str | None:
        return self.settings().get(name.lower())

    def is_on(self, name: str, *, auth: Auth | None = None) -> bool:
        """Whether a flag is known to be `true`. It takes the arguments of `get`."""
        return _is_true(self.get(name, auth=auth))

    def telemetry_enabled(
        self, config: TelemetryConfiguration, *, auth: Auth | None = None, flag: str = TELEMETRY_FLAG
    ) -> bool:
        """Whether events may be recorded: what the user has decided, else what `flag` says.

        Args:
            config: its `consent` is the user's decision. A no in the environment beats it.
            auth: see `get`.
            flag: the flag that decides if the user has not.
        """
        if config.consent is False or opted_out():
            return False
        return config.consent is True or self.is_on(flag, auth=auth)

    @never_raises(_not_started)
    def _fetch_soon(self, auth: Auth | None) -> None:
        user = object()
        threads = sender.attach(
            user
        )  # until the fetch is over: there may be no client yet that keeps the threads

        def fetch() -> None:
            fetched = _Fetched()  # in case a SystemExit of `auth` ends it
            try:
                fetched = self._fetch(auth)
            finally:
                self._settle(fetched)
                sender.detach(user, threads, deadline=time.monotonic())

        threads.run_soon(fetch)

    @never_raises(_not_fetched)
    def _fetch(self, auth: Auth | None) -> _Fetched:
        if nothing_may_leave():  # said since the last look-up; the watchers are told all the same
            return _Fetched()
        with fork_gate:
            from adbc_telemetry.transport.http import HttpTransport

        headers = {"Accept": "application/json", "User-Agent": f"adbc-telemetry/{__version__}"}
        headers.update(credentials(self._host, auth) or {})
        transport = HttpTransport(self._host)
        try:
            timeout = self._timeout if self.answered else min(self._timeout, FIRST_ANSWER_SECONDS)
            answer = transport.get(self._path, headers, timeout=timeout, deadline=None)
        finally:
            transport.close()
        return _parsed(answer.body)

    def _settle(self, fetched: _Fetched) -> None:
        with self._lock:
            if fetched.flags is not None:
                self._flags = fetched.flags
            self._fetch_after = self._clock() + min(fetched.seconds, MAX_TTL_SECONDS)
            self._fetching = False
            # Before the watchers are told: one that comes now reads the answer itself.
            self.answered = True
        for watcher in self._watchers.living():
            watcher.on_flags()
        # After the watchers have made of it what they make: those who wait want that.
        self.first_answer.set()
        while self.when_answered:
            self.when_answered.pop()()


def _is_true(value: str | None) -> bool:
    return (value or "").strip().lower() == "true"


def _parsed(body: bytes | None) -> _Fetched:
    """The flags of an answer and how long they hold. An entry that makes no sense is skipped.

    Raises:
        ValueError, msgspec.MsgspecError: the whole answer makes no sense.
    """
    if body is None:
        raise ValueError("the answer is too long")
    answer = msgspec.json.decode(body)
    listed = answer.get("flags") if isinstance(answer, dict) else None
    if not isinstance(listed, list):
        raise ValueError("the answer has no flags")
    flags: dict[str, str] = {}
    for entry in listed:
        match entry:
            case {"name": str(name), "value": str() | bool() as value}:
                flags[name.lower()] = str(value)
    ttl = answer.get("ttl_seconds")
    valid = isinstance(ttl, (int, float)) and not isinstance(ttl, bool) and ttl > 0
    return _Fetched(flags, ttl if valid else DEFAULT_TTL_SECONDS)


class FeatureFlagManager:
    """The flags of this process, one set per host. They outlive connections, and keep none alive."""

    def __init__(self) -> None:
        self._flags: dict[str, FeatureFlags] = {}
        self.after_fork_in_child()
        renew_in_child(self)

    def after_fork_in_child(self) -> None:
        """Another thread of the parent may have held the lock."""
        self._lock = RLock()  # guards _flags

    @staticmethod
    def get_instance() -> FeatureFlagManager:
        """The manager of this process."""
        return _instance

    def get_feature_flags(
        self,
        host: str,
        config: TelemetryConfiguration,
        *,
        client_name: str = CLIENT_NAME,
        client_version: str | None = None,
    ) -> FeatureFlags:
        """The flags of `host`, one set for all drivers; made with these arguments if there are none yet.

        Raises:
            ValueError, TypeError: `host` names no host.
        """
        name = normalize_endpoint(host)
        with self._lock:
            flags = self._flags.get(name)
            if flags is None:
                flags = self._flags[name] = FeatureFlags(
                    name, config, client_name=client_name, client_version=client_version
                )
            return flags

    def telemetry_enabled(
        self, host: str, config: TelemetryConfiguration, *, auth: Auth | None = None
    ) -> bool:
        """Whether events for `host` may be recorded; see `FeatureFlags.telemetry_enabled`.

        Raises:
            ValueError: `host` names no host, or `auth` is given and `host` is plain HTTP to another machine.
            TypeError: `host` is no string, or `auth` cannot be called.
        """
        flags = self.get_feature_flags(host, config)
        return flags.telemetry_enabled(config, auth=checked_auth(flags.host, auth))

    def known(self, host: str) -> FeatureFlags | None:
        """The flags of `host`, if anything in this process has asked for them.

        Raises:
            ValueError, TypeError: `host` names no host.
        """
        with self._lock:
            return self._flags.get(normalize_endpoint(host))

    def remove_feature_flags(self, host: str) -> None:
        """Forget the flags of `host`. Does nothing if there are none."""
        name = normalize_endpoint(host)
        with self._lock:
            self._flags.pop(name, None)

    def hosts(self) -> list[str]:
        """The hosts that have flags, sorted."""
        with self._lock:
            return sorted(self._flags)


_instance = FeatureFlagManager()
