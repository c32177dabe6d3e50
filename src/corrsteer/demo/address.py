"""Where the demo listens, and who may reach it there.

Changes when the demo may be reached in another way.
"""

from __future__ import annotations

import errno
import socket

from corrsteer.errors import SettingsError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Names of this machine that no other can reach."""

PASSWORD_CHARACTERS = 8
"""The shortest password there may be."""


def check_access(host: str, password: str | None) -> None:
    """Refuse to be reached by others without a password.

    Raises:
        SettingsError: the address is not this machine's own and there is no password, or the
            password is too short.
    """
    if password is not None and len(password) < PASSWORD_CHARACTERS:
        raise SettingsError(
            f"the password has {len(password)} characters; choose {PASSWORD_CHARACTERS} or more"
        )
    if password is None and host not in LOOPBACK:
        raise SettingsError(
            f"--host {host} can be reached by others, so the demo needs a password there; give "
            f"--password or --password-env NAME, or leave it at {LOOPBACK[0]}"
        )


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0 stands for any free one.

    Raises:
        SettingsError: the port is taken, or there is no such address here.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen()
        except OSError:
            listening.close()
            raise
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise SettingsError(
                f"port {port} of {host} is taken; choose another --port, or 0 for any free one"
            ) from error
        raise SettingsError(
            f"cannot listen on port {port} of {host}: {error.strerror or error}; choose another "
            "--host or --port"
        ) from error
    return listening


def url(listening: socket.socket) -> str:
    """The address of the page on a socket."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"
