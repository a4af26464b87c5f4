"""One connection: uvicorn's HTTP over httptools, with a deadline for each thing that a client may take its time for."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, Final

import httptools
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from adbc_telemetry.collector.serving.answers import raw_answer
from adbc_telemetry.collector.serving.limits import ServingLimits

_LINGER_SECONDS: Final = 2.0
"""How long the rest of a refused request is read: to close at once would reset the connection under the answer."""

# uvicorn quotes errors and logs one line per malformed request; what matters of it is logged elsewhere, rarely.
_silence: Final = logging.Logger(__name__)
_silence.disabled = True


class Phase(Enum):
    """What a connection waits for."""

    HEAD = auto()  # the headers
    BODY = auto()  # the rest of the body; the answer may be out already
    ANSWER = auto()  # the application, or the client that reads what it answers
    IDLE = auto()  # the next request
    CLOSING = auto()  # the client, which reads the last answer
    GONE = auto()


class Connection(HttpToolsProtocol):
    """One connection of a server. All of it runs on the loop's thread.

    A sweep asks each connection once a second whether it is overdue. A timer per connection would cost each request
    three timers made and cancelled.

    Args:
        config: uvicorn's.
        server_state: uvicorn's; `connections` and `tasks` hold what is under way.
        app_state: what the application's lifespan left for its requests.
        limits: the deadlines and the size of the headers.
        when_gone: called once when the connection has ended.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        limits: ServingLimits,
        when_gone: Callable[[], None],
    ) -> None:
        super().__init__(config, server_state, app_state, asyncio.get_running_loop())
        self.logger = _silence
        self.access_log = False
        self._limits = limits
        self._when_gone = when_gone
        self._raw: asyncio.Transport
        self._phase = Phase.GONE
        self._deadline = math.inf
        self._in_message = False  # a request has begun and not come to its end
        self._pipelined = False  # a request came before the answer to the one before it
        self._unframed = 0  # bytes since the last end of headers or piece of a body
        self._draining = False  # the server stops: no further request on this connection

    def _enter(self, phase: Phase) -> None:
        self._phase = phase
        self._deadline = self.loop.time() + self._seconds(phase)

    def _seconds(self, phase: Phase) -> float:
        if phase is Phase.HEAD:
            return self._limits.header_seconds
        if phase is Phase.BODY:
            return self._limits.body_seconds
        if phase is Phase.IDLE:
            return self._limits.idle_seconds
        if phase is Phase.CLOSING or (phase is Phase.ANSWER and self.flow.write_paused):
            return self._limits.answer_seconds
        return math.inf  # the application takes the time that it needs

    # What comes from the transport

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._raw = transport
        super().connection_made(_GuardedTransport(transport, self))
        self._enter(Phase.HEAD)

    def connection_lost(self, exc: Exception | None) -> None:
        self._enter(Phase.GONE)
        super().connection_lost(exc)
        self._when_gone()

    def data_received(self, data: bytes) -> None:
        if self._phase is Phase.CLOSING:
            return
        # Neither header values nor trailers nor chunk extensions reach a callback before they end, and the parser
        # keeps them all until then.
        self._unframed += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.cycle.keep_alive = False  # what follows is no HTTP
        except httptools.HttpParserError:
            self._stop_parsing()
        else:
            if self._unframed > self._limits.max_header_bytes:
                self._refuse(431, "The headers are too large.")

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._phase is Phase.ANSWER:
            self._enter(Phase.ANSWER)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._phase is Phase.ANSWER:
            self._enter(Phase.ANSWER)

    # What comes from the parser

    def on_message_begin(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            # No driver sends like this, and a thousand requests fit into one packet. HTTP lets a server close.
            self._pipelined = True
            raise ValueError("pipelined")
        super().on_message_begin()
        self._in_message = True
        if self._phase is Phase.IDLE:
            self._enter(Phase.HEAD)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._phase is Phase.HEAD:  # else it is a trailer
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > self._limits.max_header_bytes:
            self._unframed = size
            raise ValueError("too large")
        super().on_headers_complete()
        self._unframed = 0
        if self._draining:
            self.cycle.keep_alive = False
        self._enter(Phase.BODY)

    def on_body(self, body: bytes) -> None:
        self._unframed = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_message = False
        self._unframed = 0
        self._enter(Phase.IDLE if self.cycle.response_complete else Phase.ANSWER)

    # What comes from the application's side

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._unset_keepalive_if_required()  # the sweep does it
        if self._phase is Phase.ANSWER:
            self._enter(Phase.IDLE)

    def end(self) -> None:
        """Close once the client has what was written, in the place of the transport's `close`."""
        if self._phase in (Phase.CLOSING, Phase.GONE):
            return
        self._enter(Phase.CLOSING)
        if not self._in_message and not self._pipelined:
            self._raw.close()
            return
        self._deadline = self.loop.time() + _LINGER_SECONDS
        if self._raw.can_write_eof():
            self._raw.write_eof()
        self.flow.resume_reading()

    def writable(self) -> bool:
        """Whether something written still reaches the client."""
        return self._phase not in (Phase.CLOSING, Phase.GONE) and not self._raw.is_closing()

    # What comes from the server

    def check(self, now: float) -> None:
        """Act on a deadline that has passed; `now` is the loop's time."""
        if now < self._deadline:
            return
        if self._phase is Phase.IDLE or (self._phase is Phase.HEAD and not self._in_message):
            self.end()
        elif self._phase is Phase.BODY and self.flow.read_paused:
            self._enter(Phase.BODY)  # the application is slow, not the client
        elif self._phase in (Phase.HEAD, Phase.BODY) and self._unanswered():
            self._refuse(408, "The request did not come in time.")
        else:
            self.abort()

    def shutdown(self) -> None:
        """Take no further request. One under way gets its answer."""
        self._draining = True
        if self._phase is Phase.IDLE or (self._phase is Phase.HEAD and not self._in_message):
            self.end()
        elif self._phase in (Phase.BODY, Phase.ANSWER):
            self.cycle.keep_alive = False
            if self.cycle.response_complete:
                self.end()

    def cut_off(self) -> None:
        """End now, with an answer where there was none and the client waits for one."""
        if self._phase in (Phase.HEAD, Phase.BODY, Phase.ANSWER) and self._unanswered():
            self._refuse(503, "The collector is stopping.", retry_after=1)
        elif self._phase is not Phase.CLOSING:
            self.abort()

    def abort(self) -> None:
        """End now, whatever was written."""
        self._disconnect_application()
        self._raw.abort()

    def _stop_parsing(self) -> None:
        """The parser takes no more: it has found no HTTP, or something that is not allowed here."""
        if self._pipelined:
            self.cycle.keep_alive = False
            self.flow.pause_reading()
        elif self._unframed > self._limits.max_header_bytes:
            self._refuse(431, "The headers are too large.")
        else:
            self._refuse(400, "This is not HTTP.")

    def _refuse(self, status: int, sentence: str, retry_after: int | None = None) -> None:
        if not self._unanswered():
            self.abort()
            return
        self._raw.write(raw_answer(status, sentence, retry_after=retry_after))
        self._disconnect_application()
        self._in_message = True  # whatever else comes is read and thrown away
        self.end()

    def _unanswered(self) -> bool:
        """Whether the request that is under way, or coming, has no beginning of an answer."""
        if self._phase in (Phase.HEAD, Phase.IDLE):
            return True  # the cycle is the one before
        return not self.cycle.response_started

    def _disconnect_application(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()


class _GuardedTransport(asyncio.Transport):
    """The transport as uvicorn sees it: to close it is the connection's decision."""

    def __init__(self, raw: asyncio.Transport, connection: Connection) -> None:
        super().__init__()
        self._raw = raw
        self._connection = connection

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._raw.get_extra_info(name, default)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._connection.writable():
            self._raw.write(data)

    def close(self) -> None:
        self._connection.end()

    def is_closing(self) -> bool:
        return not self._connection.writable()

    def pause_reading(self) -> None:
        if not self._raw.is_closing():
            self._raw.pause_reading()

    def resume_reading(self) -> None:
        if not self._raw.is_closing():
            self._raw.resume_reading()
