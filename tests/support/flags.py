"""A server that has feature flags, and takes telemetry."""

from __future__ import annotations

import json
import threading
from typing import Any

from adbc_telemetry.feature_flags import TELEMETRY_FLAG
from support.server import Reply, Request, TelemetryServer

FLAGS_PATH = "/api/2.0/connector-service/feature-flags/"


class FlagServer:
    """What a `TelemetryServer` answers when it is asked for flags.

    Attributes:
        flags: the flags by their names.
        ttl_seconds: how long they hold.
        status: of the answer.
        release: set it to let the answers go; set from the start.
    """

    def __init__(self, server: TelemetryServer, **flags: Any) -> None:
        self.server = server
        self.url = server.url
        self.flags: dict[str, Any] = flags
        self.ttl_seconds: float = 900
        self.status = 200
        self.release = threading.Event()
        self.release.set()
        server.always = self._reply

    def turn(self, on: bool | None) -> None:
        """Set the flag that decides about telemetry; None takes it away."""
        self.flags.pop(TELEMETRY_FLAG, None)
        if on is not None:
            self.flags[TELEMETRY_FLAG] = "true" if on else "false"

    def hold(self) -> threading.Event:
        """Have answers wait until the event is set."""
        self.release = threading.Event()
        return self.release

    def _reply(self, request: Request) -> Reply:
        if not request.path.startswith(FLAGS_PATH):
            return Reply()
        listed = [{"name": name, "value": value} for name, value in self.flags.items()]
        body = json.dumps({"flags": listed, "ttl_seconds": self.ttl_seconds}).encode()
        return Reply(self.status, body=body, release=self.release)

    @property
    def asked(self) -> list[Request]:
        """The requests for flags."""
        return [request for request in self.server.requests if request.path.startswith(FLAGS_PATH)]

    @property
    def posts(self) -> list[Request]:
        """The requests with events."""
        return [request for request in self.server.requests if not request.path.startswith(FLAGS_PATH)]

    @property
    def operations(self) -> list[str]:
        """The operations of all events that came."""
        return [
            log["entry"]["sql_driver_log"]["sql_operation"]["operation_detail"]["operation_type"]
            for post in self.posts
            for log in post.logs
        ]
