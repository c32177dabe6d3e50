"""Serving the page: on this machine alone, or to whoever knows the password. Needs gradio.

Changes when the page is served in another way. Pages may load nothing from elsewhere, and without
a password only requests to this machine by its own name are answered.
"""

from __future__ import annotations

import asyncio
import binascii
import hmac
import socket
from base64 import b64decode
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI
from gradio import mount_gradio_app
from starlette.authentication import AuthCredentials, AuthenticationError, SimpleUser
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from corrsteer.demo.address import LOOPBACK
from corrsteer.demo.page import build, look
from corrsteer.demo.session import Shelf

WRONG_PASSWORD_SECONDS = 1.0
"""How long the answer to a wrong password takes."""

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; "
        "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Sent with every answer. Gradio's own scripts are inline and evaluate templates."""


class Headers:
    """Adds `HEADERS` to every answer."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and its answer back with the headers."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self._app(scope, receive, send_with_headers)


class Password:
    """HTTP basic authentication by one password, under any name."""

    def __init__(self, password: str):
        self._password = password.encode()

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, SimpleUser]:
        """Let the request pass, or refuse it after a while.

        Raises:
            AuthenticationError: no password, or a wrong one.
        """
        given = conn.headers.get("Authorization")
        if given is None:
            raise AuthenticationError("a password is needed")
        if not hmac.compare_digest(_password_of(given), self._password):
            await asyncio.sleep(WRONG_PASSWORD_SECONDS)
            raise AuthenticationError("wrong password")
        return AuthCredentials(["authenticated"]), SimpleUser("visitor")


def _password_of(header: str) -> bytes:
    scheme, _, credentials = header.partition(" ")
    try:
        _, _, password = b64decode(credentials).partition(b":")
    except (binascii.Error, ValueError):
        return b""
    return password if scheme.lower() == "basic" else b""


def _ask_for_password(conn: HTTPConnection, error: AuthenticationError) -> Response:
    realm = {"WWW-Authenticate": 'Basic realm="CorrSteer demo", charset="UTF-8"'}
    return PlainTextResponse(f"CorrSteer demo: {error}\n", status_code=401, headers=realm)


def application(shelf: Shelf, password: str | None) -> FastAPI:
    """The demo as an ASGI application."""
    if password is None:
        guard = Middleware(TrustedHostMiddleware, allowed_hosts=list(LOOPBACK))
    else:
        backend = Password(password)
        guard = Middleware(AuthenticationMiddleware, backend=backend, on_error=_ask_for_password)
    app = FastAPI(
        middleware=[Middleware(Headers), guard], openapi_url=None, docs_url=None, redoc_url=None
    )
    return mount_gradio_app(app, build(shelf), path="/", show_error=False, **look())


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
    config = uvicorn.Config(
        application(shelf, password),
        log_level="critical",
        access_log=False,
        timeout_graceful_shutdown=1,  # streams that browsers hold open would keep it alive
    )
    ready()  # the socket listens already; who comes early waits
    try:
        uvicorn.Server(config).run(sockets=[listening])
    except KeyboardInterrupt:  # how a demo ends
        return
