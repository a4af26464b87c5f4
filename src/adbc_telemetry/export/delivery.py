"""What exporters over HTTP share: the connection to one endpoint, and a batch on its way in requests."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

from adbc_telemetry.export.base import AbleExporter, ExportOutcome, ExportResult
from adbc_telemetry.schema import TelemetryFrontendLog
from adbc_telemetry.transport.errors import (
    ExportError,
    HttpStatusError,
    RequestCancelledError,
    is_terminal_error,
)
from adbc_telemetry.transport.retry import RetryingTransport

_PAYLOAD_TOO_LARGE: Final = 413
_REMEMBERED_SECONDS: Final = 600.0

Item = TypeVar("Item")


class HttpTelemetryExporter(AbleExporter):
    """An exporter whose abilities are those of its transport."""

    def __init__(self, transport: RetryingTransport) -> None:
        self._transport = transport

    @property
    def endpoint_url(self) -> str:
        """Where requests go."""
        return self._transport.endpoint_url

    def expire(self, deadline: float) -> None:
        """See `ExporterAbilities.expire`."""
        self._transport.expire(deadline)

    def preempt(self, long_waits_only: bool = False) -> None:
        """See `ExporterAbilities.preempt`."""
        self._transport.preempt(long_waits_only)

    def hold_nothing_open(self) -> bool:
        """See `ExporterAbilities.hold_nothing_open`."""
        self._transport.hold_nothing_open()
        return True

    def close(self) -> None:
        """End what is under way, as cancelled. Idempotent; later exports are cancelled at once."""
        self._transport.close()


class RequestLimit:
    """How large a request may be: as configured, or less for a while after the other side has refused one for its size.

    Every change is a single step. An export that reads an older value makes one request too many, no more.

    Args:
        configured: in bytes.

    Attributes:
        configured: the same.
    """

    def __init__(self, configured: int) -> None:
        self.configured = configured
        self._learned = configured
        self._learned_until = 0.0

    def bytes(self) -> int:
        """The limit now."""
        return self._learned if time.monotonic() < self._learned_until else self.configured

    def refused(self, size: int) -> None:
        """A request of `size` bytes was too large: make smaller ones for the next ten minutes."""
        self._learned = size // 2
        self._learned_until = time.monotonic() + _REMEMBERED_SECONDS

    def accepted(self, size: int) -> None:
        """A request of `size` bytes was not too large. So one huge event does not make all requests small."""
        self._learned = max(self._learned, size)


class Delivery(Generic[Item]):
    """One export: sends items in requests and counts what became of them.

    Args:
        request: makes one request of some items and returns how many of them were accepted.
        encode: the body of a request of some items.
        limit: the largest body. Items that do not fit are halved, as they are when the other side answers 413, which
            the limit remembers. One item is sent as long as it fits the configured limit, and is rejected else.
    """

    def __init__(
        self,
        request: Callable[[bytes, int], int],
        encode: Callable[[Sequence[Item]], bytes],
        limit: RequestLimit,
    ) -> None:
        self._request = request
        self._encode = encode
        self._limit = limit
        self._max_request_bytes = limit.bytes()
        self._delivered = 0
        self._ended = 0  # items that a request has carried, or that were too large for one
        self._rejected = 0
        self._outcome: ExportOutcome | None = (
            None  # of all items that are left; once it is set nothing more is sent
        )
        self._reason: str | None = None
        self._retry_after: float | None = None

    def reject(self, count: int, reason: str) -> None:
        """Count items that will not be sent, or were refused."""
        self._rejected += count
        self._reason = reason

    def send(self, items: Sequence[Item]) -> None:
        """Make one request, or one per half if it turns out to be too large."""
        if self._outcome is not None:
            return
        body = self._encode(items)
        if len(body) > (self._limit.configured if len(items) == 1 else self._max_request_bytes):
            self._split(items, "larger than max_request_bytes")
            return
        try:
            accepted = self._request(body, len(items))
        except RequestCancelledError as error:
            self._stop(ExportOutcome.CANCELLED, error)
        except ExportError as error:
            if isinstance(error, HttpStatusError) and error.status == _PAYLOAD_TOO_LARGE:
                if len(items) > 1:
                    self._limit.refused(len(body))
                self._split(items, str(error))
            else:
                terminal = is_terminal_error(error)
                self._stop(ExportOutcome.REJECTED if terminal else ExportOutcome.FAILED, error)
        else:
            self._limit.accepted(len(body))
            self._ended += len(items)
            self._delivered += accepted
            if accepted < len(items):
                self.reject(len(items) - accepted, "the server did not accept all")

    def result(self, logs: Sequence[TelemetryFrontendLog]) -> ExportResult:
        """What became of everything.

        Args:
            logs: the logs that the items were made from, in the same order.
        """
        outcome = self._outcome
        if outcome is None:
            refused = self._rejected and not self._delivered
            outcome = ExportOutcome.REJECTED if refused else ExportOutcome.DELIVERED
        return ExportResult(
            outcome=outcome,
            delivered=self._delivered,
            rejected=self._rejected,
            reason=self._reason,
            # Requests are made in the order of the items, and none after the one that has failed.
            unsent=logs[self._ended :] if self._outcome is not None else None,
            retry_after=self._retry_after,
        )

    def _split(self, items: Sequence[Item], reason: str) -> None:
        if len(items) == 1:
            self._ended += 1
            self.reject(1, reason)
            return
        half = len(items) // 2
        self.send(items[:half])
        self.send(items[half:])

    def _stop(self, outcome: ExportOutcome, error: ExportError) -> None:
        self._outcome = outcome
        self._reason = str(error)
        self._retry_after = error.retry_after if isinstance(error, HttpStatusError) else None
