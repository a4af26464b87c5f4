"""What an exporter may be able to do beyond `export` and `close`: end early, keep nothing open, build the logs.

The client and the circuit breaker make use of these abilities. An exporter without one works all the same: it only
takes longer to end, or costs more.
"""

from __future__ import annotations


class ExporterAbilities:
    """The defaults of the optional methods. Our exporters override the ones that they support.

    Two of them, `takes_statements` and `hold_nothing_open`, promise something about the whole exporter. They count
    only for the classes in this folder: a subclass of the program's may do more in `export` and `close` than its
    parent knows. See `base.takes_statements` and `base.hold_nothing_open`.
    """

    @property
    def takes_statements(self) -> bool:
        """Whether `export` accepts statements, from which it builds the logs itself, as well as logs."""
        return False

    def expire(self, deadline: float) -> None:
        """Have every export, also one under way, be over by `deadline` (`time.monotonic()`).

        Called when the client begins to close. A later call may name a later deadline, or infinity.
        """

    def preempt(self, long_waits_only: bool = False) -> None:
        """Have the exports under way end as cancelled, since other hosts wait for their worker.

        Called by the dispatcher, so it must not block.

        Args:
            long_waits_only: end only an export that waits because the endpoint has asked for that (`Retry-After`).
        """

    def hold_nothing_open(self) -> bool:
        """Keep no connection or file open between exports from now on.

        Returns:
            Whether the exporter can do that. If not, the client closes it when the process ends.
        """
        return False
