"""Who is answered, and what: by the name that is asked for, by password, and by path.

Changes when the demo may be reached in another way, or its page needs another path. Needs gradio's
starlette.
"""

from __future__ import annotations

import asyncio
import binascii
import hmac
import ipaddress
from base64 import b64decode
from dataclasses import dataclass, field
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

from starlette.authentication import AuthCredentials, AuthenticationError, SimpleUser
from starlette.datastructures import Headers as RequestHeaders
from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from corrsteer.demo.address import LOOPBACK

WRONG_PASSWORD_SECONDS = 1.0
"""How long the answer to a wrong password takes; a visitor's next one is looked at after it."""

WAITING_GUESSES = 16
"""A visitor's passwords that may wait to be looked at; any more are refused unseen."""

POSTED = ("queue/join", "run/", "cancel", "reset")
"""What the page posts to, below `API`; nothing is uploaded."""

API = "/gradio_api/"

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


class OwnPaths:
    """Refuses what the page does not post to, uploads above all."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        app = self._app
        if scope["type"] == "http" and scope["method"] not in ("GET", "HEAD"):
            path = str(scope["path"]).removeprefix(API)
            if scope["method"] != "POST" or not path.startswith(POSTED):
                app = PlainTextResponse("CorrSteer demo: not found\n", status_code=404)
        await app(scope, receive, send)


class OwnNames:
    """Refuses requests to this machine by a name that others could give it."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        app = self._app
        if scope["type"] == "http" and _asked_for(scope) not in LOOPBACK:
            app = PlainTextResponse("CorrSteer demo: not the name of this machine\n", 400)
        await app(scope, receive, send)


def _asked_for(scope: Scope) -> str | None:
    """The name or address that a request is to, without its port."""
    host = str(RequestHeaders(scope=scope).get("host", ""))
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


class Password:
    """HTTP basic authentication by one password, under any name."""

    def __init__(self, password: str):
        self._password = password.encode()
        self._turns: WeakValueDictionary[str, _Turn] = WeakValueDictionary()

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, SimpleUser]:
        """Let the request pass, or refuse it after a while.

        A visitor's passwords are looked at one after the other, each after the time of the wrong
        one before it, however many are sent at once.

        Raises:
            AuthenticationError: no password, or a wrong one.
        """
        given = conn.headers.get("Authorization")
        if given is None:
            raise AuthenticationError("a password is needed")
        turn = self._turns.setdefault(_visitor(conn), _Turn())
        if turn.waiting >= WAITING_GUESSES:
            raise AuthenticationError("too many wrong passwords; wait")
        turn.waiting += 1
        try:
            async with turn.lock:
                if not hmac.compare_digest(_password_of(given), self._password):
                    await asyncio.sleep(WRONG_PASSWORD_SECONDS)
                    raise AuthenticationError("wrong password")
        finally:
            turn.waiting -= 1
        return AuthCredentials(["authenticated"]), SimpleUser("visitor")


@dataclass(eq=False)
class _Turn:
    """Of one visitor: whose password is being looked at, and how many wait with it."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0


def _visitor(conn: HTTPConnection) -> str:
    """The address of a visitor, of IPv6 the part that is given to one customer."""
    host = conn.client.host if conn.client else ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    width = 64 if address.version == 6 else 32
    return str(ipaddress.ip_network((address, width), strict=False))


def _password_of(header: str) -> bytes:
    scheme, _, credentials = header.partition(" ")
    try:
        _, _, password = b64decode(credentials).partition(b":")
    except (binascii.Error, ValueError):
        return b""
    return password if scheme.lower() == "basic" else b""


def ask_for_password(conn: HTTPConnection, error: AuthenticationError) -> Response:
    """The answer to a request without the password."""
    realm = {"WWW-Authenticate": 'Basic realm="CorrSteer demo", charset="UTF-8"'}
    return PlainTextResponse(f"CorrSteer demo: {error}\n", status_code=401, headers=realm)
