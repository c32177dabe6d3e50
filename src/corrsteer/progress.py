"""How long work tells of its progress, without knowing who listens.

Changes when listeners need to know more than stage, total and advance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, runtime_checkable

ON_TERMINAL = {"on_terminal": True}
"""Given as `extra` to a logger: of use to who watches, and else to be read in the result."""

Advance = Callable[[int], None]
"""Told how many samples have been done since the last call."""


@runtime_checkable
class Progress(Protocol):
    """A listener."""

    def stage(self, name: str, total: int | None) -> AbstractContextManager[Advance]:
        """A stage of `total` samples (None: unknown) that lasts as long as the context."""
        ...


class Silent:
    """Listens to nothing."""

    @contextmanager
    def stage(self, name: str, total: int | None) -> Iterator[Advance]:
        """A stage that nobody sees."""
        yield lambda samples: None


SILENT = Silent()
