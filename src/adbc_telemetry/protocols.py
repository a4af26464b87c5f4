"""What the layers expect of a client, so that contexts can be written without one."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from msgspec import Struct

from adbc_telemetry.core.diagnostics import Failure
from adbc_telemetry.schema import TelemetryFrontendLog


class ClientStats(Struct, frozen=True, kw_only=True):
    """The account of a client: where each event has got to.

    `enqueued` is the number of calls to `enqueue` with a log, and equals the sum of all other counts but
    `exports` and what follows it, at every moment at which no call is under way.

    Since 0.1.
    """

    enqueued: int = 0
    delivered: int = 0
    rejected: int = 0
    failed: int = 0
    dropped_queue_full: int = 0
    dropped_circuit_open: int = 0
    dropped_closed: int = 0
    spooled: int = 0
    queued: int = 0
    in_flight: int = 0
    exports: int = 0
    """Exports made so far, delivered or not."""
    errors: int = 0
    """Exceptions that ended at the border of the client, those of its exporter among them, and times that the spool's
    disk said no."""
    replayed: int = 0
    """Events delivered from the spool, whichever process had left them there; not part of the account."""
    spool_lost: int = 0
    """Events in the spool, of any process, that this client has dropped to make room for newer ones, has found
    torn, or has seen refused; not part of the account either."""
    last_failure: Failure | None = None
    """The last thing that went wrong: an export, a log that could not be encoded, `auth`, the spool."""

    @property
    def lost(self) -> int:
        """Events that will never arrive."""
        return (
            self.rejected
            + self.failed
            + self.dropped_queue_full
            + self.dropped_circuit_open
            + self.dropped_closed
        )

    @property
    def closes(self) -> bool:
        """Whether every event is accounted for."""
        return self.enqueued == self.delivered + self.lost + self.spooled + self.queued + self.in_flight


@runtime_checkable
class TelemetryClientProtocol(Protocol):
    """A client as contexts and instrumentation see it (`ITelemetryClient` in the C# driver).

    Since 0.1.
    """

    @property
    def host(self) -> str:
        """The host, normalised."""
        ...

    def enqueue(self, log: TelemetryFrontendLog) -> None:
        """Take the event `log`; never blocks, never raises."""
        ...

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all events enqueued so far have reached their end.

        Args:
            timeout: seconds to wait; None for as long as it takes.

        Returns:
            False when the timeout came first.
        """
        ...

    async def aflush(self, timeout: float | None = None) -> bool:
        """`flush` for asyncio; `timeout` in seconds."""
        ...

    def close(self, timeout: float | None = None) -> bool:
        """Deliver what is there, and stop.

        Args:
            timeout: seconds that this may take; None for `close_timeout_ms`.

        Returns:
            False when the timeout came first.
        """
        ...

    async def aclose(self, timeout: float | None = None) -> bool:
        """`close` for asyncio; `timeout` in seconds."""
        ...

    def stats(self) -> ClientStats:
        """The account at this moment."""
        ...


class NoopTelemetryClient:
    """A client that does nothing: for when telemetry is off.

    Since 0.1.

    Args:
        host: what `host` tells.
    """

    def __init__(self, host: str = "") -> None:
        self._host = host

    @property
    def host(self) -> str:
        """The host that it was made for, or an empty string."""
        return self._host

    def enqueue(self, log: TelemetryFrontendLog) -> None:
        """Does nothing."""

    def flush(self, timeout: float | None = None) -> bool:
        """Does nothing; True."""
        return True

    async def aflush(self, timeout: float | None = None) -> bool:
        """Does nothing; True."""
        return True

    def close(self, timeout: float | None = None) -> bool:
        """Does nothing; True."""
        return True

    async def aclose(self, timeout: float | None = None) -> bool:
        """Does nothing; True."""
        return True

    def stats(self) -> ClientStats:
        """All zero."""
        return ClientStats()

    def __enter__(self) -> NoopTelemetryClient:
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass

    async def __aenter__(self) -> NoopTelemetryClient:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        pass
