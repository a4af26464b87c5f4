"""The page's routes over a store, on a port of their own."""

from __future__ import annotations

import contextlib
import shutil
import socket
import threading
from collections.abc import Callable
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from adbc_telemetry.collector.page.routes import page_routes
from adbc_telemetry.collector.queries.service import QueryService
from support.event_stores import EventStore

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
READY = '#figures[aria-busy="false"]'


class PageServer:
    """The page's routes over a store, on a port of its own."""

    def __init__(self, store: EventStore, status: dict[str, object], token: str | None = None) -> None:
        self.store = store
        self.token = token
        self.status = dict(status)
        queries = QueryService(store.path, prepare=False)

        @contextlib.asynccontextmanager
        async def lifespan(app: Starlette) -> Any:
            yield
            await queries.close()

        app = Starlette(
            routes=page_routes(queries, lambda: self.status),
            lifespan=lifespan,
            middleware=[Middleware(BaseHTTPMiddleware, dispatch=self._check)],
        )
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none"))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._listener]})
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    async def _check(self, request: Request, call_next: Callable[[Request], Any]) -> Response:
        is_open = self.token is None or not request.url.path.startswith("/api/")
        if is_open or request.headers.get("authorization") == f"Bearer {self.token}":
            answer: Response = await call_next(request)
            return answer
        return JSONResponse({"error": "Give the collector's token."}, 401)

    def __enter__(self) -> PageServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._listener.close()
