"""`corrsteer demo`: from its options to a page that is served.

Changes when an option of the demo means something else.
"""

from __future__ import annotations

import os
import sys
import webbrowser
from importlib.util import find_spec

import click

from corrsteer.cli.options import DemoOptions
from corrsteer.cli.output import say, tell
from corrsteer.cli.terminal import TerminalProgress
from corrsteer.demo import Shelf, load_for, open_exhibits
from corrsteer.demo.address import check_access, listen, url
from corrsteer.errors import SettingsError


def run_demo(options: DemoOptions) -> None:
    """`corrsteer demo`."""
    if find_spec("gradio") is None:
        raise SettingsError(
            "the demo needs gradio, which is not installed; pip install 'corrsteer[demo]'"
        )
    password = _password(options.password, options.password_env)
    check_access(options.host, password)

    shelf = Shelf(open_exhibits(options.runs), lambda run: load_for(run, options.device))
    with listen(options.host, options.port) as listening:
        with TerminalProgress() as progress, progress.stage("load model", None):
            shelf.model(shelf.first)
        from corrsteer.demo.server import serve

        address = url(listening)

        def ready() -> None:
            say([address])
            tell("the demo runs until Ctrl-C")
            if options.open and _has_screen():
                webbrowser.open(address)

        serve(shelf, listening, password, ready)


def _password(ask: bool, variable: str | None) -> str | None:
    """The password asked for at a prompt or held by an environment variable."""
    if ask and variable is not None:
        raise SettingsError("--password and --password-env exclude each other; give one of them")
    if ask:
        if not sys.stdin.isatty():
            raise SettingsError("--password asks at a terminal; without one give --password-env")
        prompted: str = click.prompt("Password", hide_input=True, err=True)
        return prompted
    if variable is None:
        return None
    if not os.environ.get(variable):
        raise SettingsError(f"the environment variable {variable} is not set; put the password in")
    return os.environ[variable]


def _has_screen() -> bool:
    """Whether a browser can open a window here; over ssh it would take over the terminal."""
    windows = ("DISPLAY", "WAYLAND_DISPLAY")
    return sys.platform in ("darwin", "win32") or any(map(os.environ.get, windows))
