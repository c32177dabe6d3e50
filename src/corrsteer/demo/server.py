"""Serving the page: on this machine alone, or to whoever knows the password. Needs gradio.

Changes when the page is served in another way. Pages may load nothing from elsewhere, and without
a password only requests to this machine by its own name are answered.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import traceback
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI
from gradio import mount_gradio_app, queueing, route_utils, routes
from pydantic import ValidationError
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from uvicorn.protocols.http.h11_impl import H11Protocol

from corrsteer.demo import page
from corrsteer.demo.access import Headers, OwnNames, OwnPaths, Password, ask_for_password
from corrsteer.demo.session import Shelf
from corrsteer.errors import CorrSteerError

REQUEST_SECONDS = 10.0
"""How long a request may take to arrive, at most twice that."""

CONNECTIONS = 512
"""At once; any more are told to come back later."""


def application(shelf: Shelf, password: str | None) -> FastAPI:
    """The demo as an ASGI application."""
    if password is None:
        guard = Middleware(OwnNames)
    else:
        backend = Password(password)
        guard = Middleware(AuthenticationMiddleware, backend=backend, on_error=ask_for_password)
    middleware = [Middleware(Headers), guard, Middleware(OwnPaths)]
    app = FastAPI(middleware=middleware, openapi_url=None, docs_url=None, redoc_url=None)
    return mount_gradio_app(app, page.build(shelf), path="/", show_error=False, **page.look())


def serve(
    shelf: Shelf, listening: socket.socket, password: str | None, ready: Callable[[], None]
) -> None:
    """Serve the demo on a socket until it is interrupted.

    Args:
        shelf: the runs.
        listening: see `corrsteer.demo.address.listen`.
        password: what visitors must know, or None.
        ready: called once, before the first answer.
    """
    for module in (queueing, route_utils, routes):
        module.traceback = _Faults
    config = uvicorn.Config(
        application(shelf, password),
        http=_Impatient,
        ws="none",
        limit_concurrency=CONNECTIONS,
        log_level="critical",
        access_log=False,
        timeout_graceful_shutdown=1,  # streams that browsers hold open would keep it alive
    )
    ready()  # the socket listens already; who comes early waits
    try:
        _Server(config, shelf).run(sockets=[listening])
    except KeyboardInterrupt:  # how a demo ends
        return


class _Server(uvicorn.Server):  # type: ignore[misc,unused-ignore]
    """Ends the replies that are under way as soon as it is told to end."""

    def __init__(self, config: uvicorn.Config, shelf: Shelf):
        super().__init__(config)
        self._shelf = shelf

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called at a signal."""
        self._shelf.ended.set()
        super().handle_exit(sig, frame)


class _Impatient(H11Protocol):  # type: ignore[misc,unused-ignore]
    """Closes connections on which a request does not arrive whole in its time."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Called at the beginning."""
        super().connection_made(transport)
        self._awaited: object = None
        self._timer = self.loop.call_later(REQUEST_SECONDS, self._check)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called at the end."""
        self._timer.cancel()
        super().connection_lost(exc)

    def _check(self) -> None:
        """Close it if it waits for what it waited for before."""
        cycle = self.cycle
        head = cycle is None or cycle.response_complete
        awaited = (cycle, head) if head or cycle.more_body else None
        if awaited is not None and awaited == self._awaited:
            self.transport.close()
            return
        self._awaited = awaited
        self._timer = self.loop.call_later(REQUEST_SECONDS, self._check)


class _Faults:
    """What gradio calls to print the traceback of a request that it cannot answer."""

    @staticmethod
    def print_exc() -> None:
        """Print it if it is a fault of ours; the answer itself tells of one in the request."""
        error = sys.exc_info()[1]
        frames = traceback.walk_tb(error.__traceback__ if error else None)
        ours = any(frame.f_code.co_filename == page.__file__ for frame, _ in frames)
        if ours and not isinstance(error, CorrSteerError | ValidationError):
            traceback.print_exc()
