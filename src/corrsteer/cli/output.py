"""What reaches the terminal: text that acts on it is made visible, wherever it comes from.

Changes when something is to be printed in another way. Nothing heavy is imported.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import click
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from corrsteer.json_text import to_json, visible


class LostOutputError(Exception):
    """A result cannot be printed: the disk is full, or whoever reads has enough."""


class VisibleConsole(Console):
    """A console on which no text is markup, and every character is seen."""

    def __init__(self, stderr: bool = False):
        super().__init__(stderr=stderr, markup=False, emoji=False)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """The segments that a renderable is made of."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else visible(text), style, control)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print renderables.

        Raises:
            LostOutputError: they cannot be printed.
        """
        with _printing():
            super().print(*objects, **options)

    def on_broken_pipe(self) -> None:
        """Called while the error is handled: it goes on."""
        raise  # noqa: PLE0704


class OneLine(logging.Formatter):
    """A message of the log as one line of the command's own."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        return _line(record.getMessage())


def say(lines: Iterable[str]) -> None:
    """Print lines of a result to stdout.

    Raises:
        LostOutputError: they cannot be printed.
    """
    _print("".join(f"{visible(line)}\n" for line in lines))


def print_json(document: Mapping[str, Any] | Sequence[Any]) -> None:
    """Print a result to stdout as JSON.

    Raises:
        LostOutputError: it cannot be printed.
    """
    _print(to_json(document))


def tell(message: str) -> None:
    """Print one line on the command itself to stderr."""
    click.echo(_line(message), err=True)


def _line(message: str) -> str:
    return "corrsteer: " + visible(" ".join(message.split()))


def _print(text: str) -> None:
    if sys.stdout is not None:  # as where a service has closed it
        with _printing():
            sys.stdout.write(text)
            sys.stdout.flush()


@contextmanager
def _printing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        with suppress(OSError, ValueError):  # or Python would try again as it ends, and complain
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise LostOutputError(
            f"cannot print the result: {error.strerror or error}; send stdout elsewhere"
        ) from error
