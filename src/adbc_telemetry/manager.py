"""TelemetryClientManager: one client per host, shared by all connections through leases.

Two endpoints on one host that need different exporters, such as `http://host:4318` and `otlp+http://host:4318`, count
as two hosts here and everywhere: each has its own client, breaker and leases.
Where a driver says that several tenants share a host, each tenant has a client of its own.

A holder is the client of a host with its leases:

    state      what it means                                        what `acquire` does
    serving    it has live leases                                   adds a lease
    draining   the last lease is being released; the client         adds a lease: nothing was closed, so the holder
               flushes                                              serves on, and there are never two clients
    closing    the client closes                                    waits until the holder is gone
    gone       the client is closed, its circuit breaker too        makes a new holder

One lock guards all of that. It is never held while anything is sent.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import NamedTuple

from adbc_telemetry.client import TelemetryClient
from adbc_telemetry.config import TelemetryConfiguration, checked_config
from adbc_telemetry.core.fork import renew_in_child
from adbc_telemetry.core.guard import never_raises
from adbc_telemetry.core.native import RLock
from adbc_telemetry.core.reentrant import ReentrantEvent
from adbc_telemetry.export.base import TelemetryExporter, checked_exporter
from adbc_telemetry.export.circuit_breaker import CircuitBreakerManager
from adbc_telemetry.export.endpoints import checked_endpoint, normalize_endpoint, takes_credentials
from adbc_telemetry.export.local import environment_is_local, local_file
from adbc_telemetry.pipeline.shutdown import close_together
from adbc_telemetry.transport.auth import Auth


class HolderState(Enum):
    """See the module."""

    SERVING = "serving"
    DRAINING = "draining"
    CLOSING = "closing"
    GONE = "gone"


class HolderKey(NamedTuple):
    """What shares a client.

    Attributes:
        host: the host, normalised.
        tenant: whose events they are, of several tenants of one host that must not use each other's credentials.
        file: the file of the mode `local`: its events must not reach a client that sends.
    """

    host: str
    tenant: object = None
    file: str | None = None


class TelemetryClientHolder:
    """A client and its leases. Guarded by the manager's lock; each step says whether this call took it."""

    def __init__(
        self, key: HolderKey, config: TelemetryConfiguration, exporter: TelemetryExporter | None
    ) -> None:
        self.key = key
        host = key.host
        self._leases: list[TelemetryClientLease] = []
        self._state = HolderState.SERVING
        self.gone = ReentrantEvent()
        # Where credentials may not go, none are asked for: `acquire` has refused a lease that brings some.
        auth = HoldersAuth(self) if takes_credentials(host) else None
        self.client = TelemetryClient(host, config, exporter=exporter, auth=auth, tenant=key.tenant)

    @property
    def state(self) -> HolderState:
        """See the module."""
        return self._state

    def live_leases(self) -> list[TelemetryClientLease]:
        """The leases that have not been released."""
        return [lease for lease in tuple(self._leases) if not lease.released]

    def add(self, lease: TelemetryClientLease) -> None:
        """Serve, or serve on."""
        self._leases.append(lease)
        self._state = HolderState.SERVING

    def release(self, lease: TelemetryClientLease) -> bool:
        """Take a lease back; from serving to draining where it was the last one: it stays, for its `auth`."""
        lease.released = True
        if self.live_leases():
            self._leases.remove(lease)
            return False
        if self._state is HolderState.SERVING:
            self._state = HolderState.DRAINING
        return True

    def begin_close_when_drained(self, lease: TelemetryClientLease) -> bool:
        """From draining to closing, unless the client has been acquired anew, or another task closes it."""
        if self._state is HolderState.SERVING:
            self._leases.remove(lease)
            return False
        return self._state is HolderState.DRAINING and self.begin_close()

    def begin_close(self) -> bool:
        """From serving or draining to closing."""
        if self._state not in (HolderState.SERVING, HolderState.DRAINING):
            return False
        self._state = HolderState.CLOSING
        return True

    def end(self) -> None:
        """From closing to gone. `gone` is to be set without the lock."""
        self._state = HolderState.GONE
        self._leases.clear()

    def who_authenticates(self) -> Sequence[TelemetryClientLease]:
        """The live leases. While the client drains, it is the last one although that is released."""
        return self.live_leases() or tuple(self._leases)

    def authenticate(self) -> Mapping[str, str] | None:
        """The headers by the newest live lease that has any. Called on the sender's side, for every request."""
        for lease in reversed(self.who_authenticates()):
            if lease.auth is not None:
                return lease.auth()
        return None


class HoldersAuth:
    """The `auth` of a holder's client; see `transport.auth.SharedAuth`."""

    def __init__(self, holder: TelemetryClientHolder) -> None:
        self._holder = holder

    def __call__(self) -> Mapping[str, str] | None:
        """The headers of the newest live lease that brings some; None where none does."""
        return self._holder.authenticate()

    def is_given(self) -> bool:
        """Whether a live lease brings credentials."""
        return any(lease.auth is not None for lease in self._holder.who_authenticates())


class TelemetryClientLease:
    """The right to use the client of a host, until `release`. A context manager. `acquire` of the manager makes it.

    Since 0.1.
    """

    def __init__(
        self, manager: TelemetryClientManager, holder: TelemetryClientHolder, auth: Auth | None
    ) -> None:
        self._manager = manager
        self._holder = holder
        self.released = False
        self.auth = auth

    @property
    def client(self) -> TelemetryClient:
        """The shared client."""
        return self._holder.client

    def release(self, timeout: float | None = None) -> bool:
        """Give the lease back; only the first call does anything. Never raises.

        The last lease of a host closes its client: what is queued is delivered first, within `timeout` seconds
        (None: `close_timeout_ms`).

        Returns:
            True when nothing was lost for want of time.
        """
        return self._manager._release(self, self._holder, timeout)

    def release_soon(self) -> None:
        """`release` on the sender's side: returns at once. For destructors, which must not wait or lock."""
        if not self._holder.client.run_soon(self.release):
            # Telemetry is off, or the client is closed: there is nothing to wait for.
            self.released = True

    def __enter__(self) -> TelemetryClientLease:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.release()


class TelemetryClientManager:
    """The clients of this process, one per host. Thread-safe.

    Since 0.1.
    """

    def __init__(self) -> None:
        self._holders: dict[HolderKey, TelemetryClientHolder] = {}
        self.after_fork_in_child()
        renew_in_child(self)

    def after_fork_in_child(self) -> None:
        """Another thread of the parent may have held the lock, or been about to close a client."""
        # Guards _holders and every holder. Reentrant, for the sake of destructors and signal handlers.
        self._lock = RLock()
        open_states = (HolderState.SERVING, HolderState.DRAINING)
        self._holders = {key: each for key, each in self._holders.items() if each.state in open_states}

    @staticmethod
    def get_instance() -> TelemetryClientManager:
        """The one of this process."""
        return _instance

    def acquire(
        self,
        host: str,
        config: TelemetryConfiguration,
        *,
        auth: Auth | None = None,
        exporter: TelemetryExporter | None = None,
        tenant: str | int | None = None,
    ) -> TelemetryClientLease:
        """A lease of the one client of `host`, which is made if there is none.

        Args:
            host: an endpoint in any spelling: a host, an http(s) URL, or another one of `export.endpoints`.
            config: of the client; the first lease's holds.
            auth: returns the headers that authenticate a request. The newest live lease's is used.
            exporter: where batches go, instead of where `host` says; the first lease's holds.
            tenant: whose events these are, where several tenants share a host: each tenant has a client of its own, so
                that its events travel under its own credentials. None shares a client with all who say None.

        Returns:
            A lease of its own to each call. Release it when the connection closes.

        Raises:
            ValueError, TypeError: as of `TelemetryClient`.
        """
        name = checked_endpoint(host, auth, own_exporter=exporter is not None)
        checked_config(config)
        stays = config.is_local and not environment_is_local()
        key = HolderKey(name, tenant, local_file(config.local_path) if stays else None)
        if exporter is not None:
            checked_exporter(exporter)
        while True:
            with self._lock:
                holder = self._holders.get(key)
                closing = holder is not None and holder.state is HolderState.CLOSING
                if holder is None or (not closing and (holder.client.is_open or holder.client.is_closed)):
                    return self._lease(key, holder, config, auth, exporter)
            if closing:
                holder.gone.wait()
            else:  # the program closes the client without the manager: wait, so that there are never two
                holder.client.close()

    def _lease(
        self,
        key: HolderKey,
        holder: TelemetryClientHolder | None,
        config: TelemetryConfiguration,
        auth: Auth | None,
        exporter: TelemetryExporter | None,
    ) -> TelemetryClientLease:
        """A lease of `holder`, or of a new one where that has no client any more. Holds the lock."""
        if holder is None or not holder.client.is_open:
            made = TelemetryClientHolder(key, config, exporter)
            if self._holders.get(key) is holder:
                self._holders.pop(key, None)
            # A signal handler may have acquired the same host while this client was made.
            holder = self._holders.setdefault(key, made)
            if holder is not made:
                made.client.close(0)
        lease = TelemetryClientLease(self, holder, auth)
        holder.add(lease)
        return lease

    def ref_count(self, host: str) -> int:
        """How many leases of `host` are live."""
        name = normalize_endpoint(host)
        with self._lock:
            return sum(len(each.live_leases()) for key, each in self._holders.items() if key.host == name)

    def hosts(self) -> list[str]:
        """The hosts that have a live lease, sorted."""
        with self._lock:
            return sorted({key.host for key, holder in self._holders.items() if holder.live_leases()})

    def close_all(self, timeout: float | None = None) -> bool:
        """Close all clients side by side, within `timeout` seconds (None: `close_timeout_ms`).

        Leases that are still held stay valid and harmless; the next `acquire` makes a new client.

        Returns:
            True when nothing was lost for want of time.
        """
        with self._lock:
            holders = list(self._holders.values())
            for holder in holders:
                holder.begin_close()  # `acquire` waits from now on, so that there are never two clients
        clients = [holder.client for holder in holders]
        close_together(clients, timeout)
        for holder in holders:
            self._remove(holder)
        outcomes = [client.close(timeout) for client in clients]
        return all(outcomes)

    @never_raises(lambda error, *_: False)
    def _release(
        self, lease: TelemetryClientLease, holder: TelemetryClientHolder, timeout: float | None
    ) -> bool:
        if sys.is_finalizing():  # a thread may have ended while it held the lock
            return False
        client = holder.client
        deadline = client.close_deadline(timeout)
        with self._lock:
            if lease.released or not holder.release(lease):
                return True
        drained = client.flush(max(0.0, deadline - time.monotonic()))
        with self._lock:
            if not holder.begin_close_when_drained(lease):
                return drained
        try:
            closed = client.close(max(0.0, deadline - time.monotonic()))
        finally:
            self._remove(holder)
        return drained and closed

    def _remove(self, holder: TelemetryClientHolder) -> None:
        with self._lock:
            if self._holders.get(holder.key) is holder:
                del self._holders[holder.key]
                host = holder.key.host
                if not any(key.host == host for key in self._holders):
                    # In the same step, so that the breaker of a host lives exactly as long as its clients.
                    CircuitBreakerManager.get_instance().remove_circuit_breaker(host)
            holder.end()
        holder.gone.set()


_instance = TelemetryClientManager()
