"""Connections whose user has said neither yes nor no: their events wait for the host's flags, and follow them.

`FlaggedClient` stands before the host's client. It is a client and a lease in one.

    state       what it means                              an event            goes on when
    undecided   the host's first answer is under way       waits, bounded      the answer is there: on or off
    on          the server says yes; it has a lease        to the host's       a later answer says no: off, and the
                of the host's client                       client              lease goes back
    off         the server says no, or nothing, or could   dropped, like       a later answer says yes: on
                not be asked                               that of a disabled
                                                           client
    closed      the connection is closed                   dropped             never

All `FlaggedClient`s of a host share one first answer, and the room for events that wait for it. `flush`, `close` and
the end of the process wait for that answer, until it is due at most. So while the endpoint is down, nothing waits
longer than `FIRST_ANSWER_SECONDS`, and nothing waits a second time. An event that finds the flags old starts a fetch on
the sender's side and goes by the old ones.

In a forked child, events that wait are the parent's. The child goes on in the parent's state if the parent knew flags;
else it is undecided, and its first event asks.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import Enum
from typing import Final, Protocol

import msgspec

from adbc_telemetry.config import TelemetryConfiguration
from adbc_telemetry.consent import nothing_may_leave
from adbc_telemetry.core.fork import renew_in_child
from adbc_telemetry.core.guard import never_raises
from adbc_telemetry.core.native import RLock
from adbc_telemetry.core.reentrant import AtomicCounter
from adbc_telemetry.export.base import TelemetryExporter
from adbc_telemetry.export.endpoints import has_flags
from adbc_telemetry.feature_flags import TELEMETRY_FLAG, FeatureFlagManager, FeatureFlags
from adbc_telemetry.manager import TelemetryClientManager
from adbc_telemetry.pipeline.shutdown import settle_at_exit
from adbc_telemetry.protocols import ClientStats, NoopTelemetryClient, TelemetryClientProtocol
from adbc_telemetry.schema import TelemetryFrontendLog
from adbc_telemetry.transport.auth import Auth

_LONGEST_WAIT_SECONDS: Final = 100_000_000.0


class Lease(Protocol):
    """A connection's right to a client, as `TelemetryClientLease` gives it."""

    @property
    def client(self) -> TelemetryClientProtocol:
        """Where the connection's events go."""
        ...

    def release(self, timeout: float | None = None) -> bool:
        """Give it back. Idempotent, never raises; see `TelemetryClientLease.release`."""
        ...

    def release_soon(self) -> None:
        """`release` on the sender's side, for destructors."""
        ...


class NoLease:
    """Stands in for a lease while telemetry is off, and after a close: a lease keeps credentials."""

    def __init__(self, client: TelemetryClientProtocol) -> None:
        self.client = client

    def release(self, timeout: float | None = None) -> bool:
        """There is nothing to give back; True."""
        return True

    def release_soon(self) -> None:
        """There is nothing to give back."""


Acquire = Callable[[TelemetryConfiguration], Lease]
"""Takes a lease of the host's client, with these settings."""

Configure = Callable[[Mapping[str, str]], TelemetryConfiguration]
"""The settings of an enabled client, with the server's flags taken into account."""


class FlagState(Enum):
    """See the module."""

    UNDECIDED = "undecided"
    ON = "on"
    OFF = "off"
    CLOSED = "closed"


def _cannot_turn_on(error: Exception, client: FlaggedClient) -> None:
    client.errors.increment()
    client._turn_off()  # the next answer tries again


class FlaggedClient:
    """A client that does what the host's flags say. Thread-safe; survives a fork; never raises.

    Args:
        host: the host, normalised.
        flags: of the host.
        configure: the settings, once the flags are known.
        acquire: takes the lease of the host's client.
        close_seconds: how long `release` waits at most, if its caller does not say.
        auth: authenticates a request for flags. It is let go of at the end.
        flag: the name of the flag that decides.
    """

    def __init__(
        self,
        host: str,
        flags: FeatureFlags,
        *,
        configure: Configure,
        acquire: Acquire,
        close_seconds: float,
        auth: Auth | None = None,
        flag: str = TELEMETRY_FLAG,
    ) -> None:
        self._host = host
        self._flags = flags
        self._configure = configure
        self._acquire: Acquire | None = acquire
        self._auth = auth
        self._flag = flag
        self._close_seconds = close_seconds
        self._state = FlagState.UNDECIDED
        self._lease: Lease | None = None
        self._client: TelemetryClientProtocol | None = None  # of the lease
        self._last_client: TelemetryClientProtocol | None = None
        self.errors = AtomicCounter()
        self._reset()
        renew_in_child(self)
        settle_at_exit(self)
        # In this order: an answer that comes in between is noticed twice rather than never.
        flags.watch(self)
        if flags.answered:
            self.on_flags()
        flags.refresh_if_old(auth)

    def _reset(self) -> None:
        # Guards _state, _lease and _client. Events are added and passed on without it, by single steps.
        self._lock = RLock()
        self._waiting: deque[TelemetryFrontendLog] = deque()
        self._dropped = AtomicCounter()

    def after_fork_in_child(self) -> None:
        """See the module. The flags have been renewed before this."""
        self._reset()
        if self._state is FlagState.CLOSED:
            return
        if not self._flags.answered:
            self._state = FlagState.UNDECIDED
        elif self._state is FlagState.UNDECIDED:  # the fork came between the answer and what was made of it
            self.on_flags()

    @property
    def host(self) -> str:
        """The host, normalised."""
        return self._host

    @property
    def state(self) -> FlagState:
        """See the module."""
        return self._state

    @property
    def client(self) -> FlaggedClient:
        """This: as a lease, it has itself as its client."""
        return self

    # The way in.

    def enqueue(self, log: TelemetryFrontendLog) -> None:
        """Take an event. Never blocks, never raises; from any thread, destructor or signal handler."""
        if self._state is not FlagState.CLOSED:
            self._flags.refresh_if_old(self._auth)
        client = self._client
        if client is not None:
            client.enqueue(log)
        elif self._state is FlagState.UNDECIDED:
            self._keep(log)

    enqueue_statement = enqueue  # see `events.handover.StatementReceiver`

    def _keep(self, log: TelemetryFrontendLog) -> None:
        try:
            self._flags.room.pop()
        except IndexError:
            self._dropped.increment()
            return
        self._waiting.append(log)
        # The answer may have come since the state was read.
        if self._state is not FlagState.UNDECIDED:
            self._pass_on()

    def _pass_on(self) -> None:
        """Have the events that wait go where they belong by now: to the client, or nowhere."""
        while True:
            try:
                log = self._waiting.popleft()
            except IndexError:
                return
            self._flags.room.append(None)
            client = self._client
            if client is not None:
                client.enqueue(log)

    # The flags have changed.

    @never_raises(_cannot_turn_on)
    def on_flags(self) -> None:
        """Turn on or off as the flags say now. Called on the sender's side, or by the thread that makes this.

        A user who was silent may have said no in the environment since, which beats the flags.
        """
        if self._flags.word(self._flag) and not nothing_may_leave():
            self._turn_on()
        else:
            self._turn_off()

    def _turn_on(self) -> None:
        acquire = self._acquire
        if self._client is not None or acquire is None:
            return
        # Without the lock: it may wait for the host's client to close.
        lease: Lease | None = acquire(self._configure(self._flags.settings()))
        with self._lock:
            if self._state is not FlagState.CLOSED and self._lease is None and lease is not None:
                self._lease, self._client, lease = lease, lease.client, None
                self._state = FlagState.ON
        if lease is not None:  # closed meanwhile, or turned on by another thread
            lease.release_soon()
        self._pass_on()

    def _turn_off(self) -> None:
        lease = self._end(FlagState.OFF)
        self._pass_on()
        if lease is not None:
            lease.release_soon()

    def _end(self, state: FlagState) -> Lease | None:
        """Go to a state without a client; the lease that is to be given back."""
        with self._lock:
            if self._state is FlagState.CLOSED:
                return None
            lease, self._lease, client, self._client = self._lease, None, self._client, None
            self._state = state
            if state is FlagState.CLOSED:
                self._acquire = self._auth = None
        if client is not None:
            self._last_client = client
        return lease

    # Waiting.

    def settle(self, deadline: float) -> None:
        """Wait for the first answer, until it is due or `deadline` (`time.monotonic()`) has come."""
        # In a child that has asked for nothing, no answer will come.
        if self._state is FlagState.UNDECIDED and self._waiting:
            self._flags.wait_for_first_answer(deadline)

    async def asettle(self, timeout: float | None = None) -> float:
        """`settle` for asyncio. It needs no thread: there may be as many waiting as there are connections.

        Args:
            timeout: seconds to wait at most; None for those of a close.

        Returns:
            The seconds that are left.
        """
        from adbc_telemetry.pipeline.asyncio_support import LoopSignal

        deadline = _deadline(timeout, self._close_seconds)
        flags = self._flags
        seconds = min(deadline, flags.answer_due) - time.monotonic()
        if self._state is FlagState.UNDECIDED and self._waiting and seconds > 0:
            signal = LoopSignal()
            flags.when_answered.append(signal.send)
            # In this order: an answer that comes in between is noticed twice rather than never.
            if not flags.first_answer.is_set():
                await signal.wait(seconds)
        return max(0.0, deadline - time.monotonic())

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all events so far are finished; see `TelemetryClient.flush`.

        Returns:
            False also if events wait for the first answer still.
        """
        deadline = _deadline(timeout, _LONGEST_WAIT_SECONDS)
        self.settle(deadline)
        client = self._client
        if client is None:
            return not self._waiting
        return client.flush(None if timeout is None else max(0.0, deadline - time.monotonic()))

    async def aflush(self, timeout: float | None = None) -> bool:
        """`flush` for asyncio."""
        from adbc_telemetry.pipeline.asyncio_support import value_from_thread

        left = await self.asettle(_LONGEST_WAIT_SECONDS if timeout is None else timeout)
        timeout = None if timeout is None else left
        return await value_from_thread(
            lambda: self.flush(timeout), "adbc-telemetry-flush", without_thread=lambda: self.flush(0)
        )

    def release(self, timeout: float | None = None) -> bool:
        """The connection is closed: deliver what it has, as far as the flags allow it. Idempotent.

        Args:
            timeout: seconds that this may take, the wait for the first answer included.

        Returns:
            True when nothing was lost for want of time.
        """
        deadline = _deadline(timeout, self._close_seconds)
        self.settle(deadline)
        lease = self._end(FlagState.CLOSED)
        lost = bool(self._waiting)
        self._pass_on()
        return not lost if lease is None else lease.release(max(0.0, deadline - time.monotonic()))

    def release_soon(self) -> None:
        """`release` that neither waits nor blocks: what waits for the first answer is passed on when that comes."""
        if self._state is FlagState.UNDECIDED:
            self._flags.when_answered.append(self.release_soon)
            if not self._flags.answered:
                return
        lease = self._end(FlagState.CLOSED)
        if lease is not None:
            lease.release_soon()

    def close(self, timeout: float | None = None) -> bool:
        """`release`."""
        return self.release(timeout)

    async def aclose(self, timeout: float | None = None) -> bool:
        """`close` for asyncio."""
        from adbc_telemetry.pipeline.asyncio_support import value_from_thread

        try:
            timeout = await self.asettle(timeout)
        except BaseException:  # cancelled: it closes all the same
            self.release_soon()
            raise
        return await value_from_thread(
            lambda: self.close(timeout), "adbc-telemetry-close", without_thread=lambda: self.close(0)
        )

    def stats(self) -> ClientStats:
        """The account of the host's client; what waits here counts as queued. Events while off are not counted."""
        client = self._client or self._last_client
        stats = ClientStats() if client is None else client.stats()
        waiting, dropped = len(self._waiting), self._dropped.value()
        return msgspec.structs.replace(
            stats,
            enqueued=stats.enqueued + waiting + dropped,
            queued=stats.queued + waiting,
            dropped_queue_full=stats.dropped_queue_full + dropped,
            errors=stats.errors + self.errors.value(),
        )


def _deadline(timeout: float | None, otherwise: float) -> float:
    seconds = timeout if isinstance(timeout, (int, float)) and timeout == timeout else otherwise
    return time.monotonic() + min(max(0.0, seconds), _LONGEST_WAIT_SECONDS)


def lease_for(
    host: str,
    config: TelemetryConfiguration,
    *,
    auth: Auth | None = None,
    exporter: TelemetryExporter | None = None,
    configure: Configure | None = None,
    client_version: str | None = None,
    tenant: str | int | None = None,
) -> Lease:
    """A connection's lease: of the host's client if the user has said yes; if the user is silent, as the flags say.

    An endpoint that has no flags, such as an OpenTelemetry collector or a file, says nothing: it takes no events of a
    silent user.

    Args:
        host: an endpoint; see `export.endpoints`.
        config: the settings. Its `consent` is what the user has said, and is not False.
        auth, exporter, tenant: as of `TelemetryClientManager.acquire`.
        configure: the settings, once the flags are known; by default `config` with the flags in the place of defaults.
        client_version: the driver's version, in the request for flags.

    Raises:
        ValueError, TypeError: as of `TelemetryClientManager.acquire`.
    """

    tenant = tenant if isinstance(tenant, (str, int)) else None

    def acquire(settled: TelemetryConfiguration) -> Lease:
        return TelemetryClientManager.get_instance().acquire(
            host, replace(settled, enabled=True), auth=auth, exporter=exporter, tenant=tenant
        )

    if config.consent or not has_flags(host):
        return acquire(config) if config.consent else NoLease(NoopTelemetryClient(host))
    flags = FeatureFlagManager.get_instance().get_feature_flags(host, config, client_version=client_version)
    return FlaggedClient(
        flags.host,
        flags,
        configure=configure or config.with_flags,
        acquire=acquire,
        close_seconds=config.close_timeout_ms / 1000,
        auth=auth,
    )
