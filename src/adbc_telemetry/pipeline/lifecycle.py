"""The life of a client, and its one close.

    state       what it means                                             next
    disabled    telemetry is off: nothing is recorded                     closed
    open        events are taken and sent                                 closing, unable
    unable      this interpreter allows no threads: no event is sent      closed
    closing     no event is taken; the rest is sent until the deadline    finishing
    finishing   one task counts or spools what is left                    closed
    closed      every event is finished

Each step is a method that returns whether this call took it. An illegal step cannot be written.
"""

from __future__ import annotations

from enum import Enum

from adbc_telemetry.core.native import current_task
from adbc_telemetry.core.reentrant import ReentrantEvent


class ClientState(Enum):
    """See the module."""

    DISABLED = "disabled"
    OPEN = "open"
    UNABLE = "unable"
    CLOSING = "closing"
    FINISHING = "finishing"
    CLOSED = "closed"


class Lifecycle:
    """The state of a client. Guarded by the client's lock, apart from `claim_finish` and reading.

    Args:
        enabled: whether telemetry is on.

    Attributes:
        state: the state; nothing but the methods here changes it.
        deadline: when the close has to be over (`time.monotonic()`); None until any task may finish it.
        complete: whether the close lost nothing for want of time or of threads.
        closed: set at the end.
    """

    def __init__(self, *, enabled: bool) -> None:
        self.state = ClientState.OPEN if enabled else ClientState.DISABLED
        self.deadline: float | None = None
        self.complete = True
        self.closed = ReentrantEvent()
        self._finish_token: list[
            bool
        ] = []  # list.pop is atomic: one task gets it, also when a signal handler tries
        self._finisher: object = None

    @property
    def is_open(self) -> bool:
        """Whether events are taken and sent."""
        return self.state is ClientState.OPEN

    @property
    def sends(self) -> bool:
        """Whether batches are sent: of an open client, and until the end of its close."""
        return self.state in (ClientState.OPEN, ClientState.CLOSING, ClientState.FINISHING)

    @property
    def is_unable(self) -> bool:
        """Whether no event can ever be sent."""
        return self.state is ClientState.UNABLE

    @property
    def is_ending(self) -> bool:
        """Whether a close has begun."""
        return self.state in (ClientState.CLOSING, ClientState.FINISHING, ClientState.CLOSED)

    @property
    def is_closed(self) -> bool:
        """Whether the close is over, so that nothing changes any more."""
        return self.state is ClientState.CLOSED

    def give_up(self) -> bool:
        """From open to unable."""
        if self.state is not ClientState.OPEN:
            return False
        self.state = ClientState.UNABLE
        self.complete = False
        return True

    def begin_close(self) -> bool:
        """From open to closing. `allow_finish` has to follow."""
        if self.state is not ClientState.OPEN:
            return False
        self.state = ClientState.CLOSING
        return True

    def allow_finish(self, deadline: float) -> None:
        """Let any task finish the close that has begun, until `deadline` (`time.monotonic()`)."""
        self._finish_token = [True]
        self.deadline = deadline

    def claim_finish(self) -> bool:
        """From closing to finishing: True for one task alone."""
        try:
            self._finish_token.pop()
        except IndexError:
            return False
        self._finisher = current_task()
        self.state = ClientState.FINISHING
        return True

    @property
    def is_finished_by_this_task(self) -> bool:
        """Whether the finishing task is the running one: then this is a signal handler that interrupts it."""
        return self._finisher == current_task()

    def end(self, *, complete: bool) -> None:
        """From finishing to closed. `closed` is set when the finishing task is through."""
        self.state = ClientState.CLOSED
        self.complete = complete

    def close_idle(self) -> bool:
        """From disabled or unable to closed: there is nothing to finish."""
        if self.state not in (ClientState.DISABLED, ClientState.UNABLE):
            return False
        self.state = ClientState.CLOSED
        self.closed.set()
        return True

    def in_forked_child(self) -> Lifecycle:
        """The life of this client's copy in a forked child. A close under way there is over: its thread is missing."""
        child = Lifecycle(enabled=self.state is not ClientState.DISABLED)
        if self.is_ending:
            child.state = ClientState.CLOSED
            child.closed.set()
        elif self.state is ClientState.UNABLE:
            child.state = ClientState.UNABLE
        return child
