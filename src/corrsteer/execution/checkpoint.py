"""What unfinished work has done so far, in a folder beside the place of its result.

Changes when what survives a death, or how it is found again, changes.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from corrsteer.errors import ArtifactError, CorrSteerError, DeviceMemoryError, WorkerError
from corrsteer.execution.journal import Journal
from corrsteer.files import cannot_write, unfinished_place

SCHEMA = "corrsteer.partial/2"
RESULTS_FILE = "results.jsonl"
LOCK_FILE = "lock"

OFTEN = 30.0
"""Seconds after which what was done is saved in any case."""
SHARE = 0.05
"""Of the time, at most, for saving more often than that."""

log = logging.getLogger(__name__)


class Checkpoint:
    """The folder of one piece of unfinished work, which this process alone holds.

    Attributes:
        folder: where it is.
        results: key -> result of a unit, those that were remembered.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.results: dict[str, Any] = {}
        self._journal: Journal | None = None
        self._saved_at, self._cost = time.monotonic(), 0.0

    @property
    def holds_work(self) -> bool:
        """Whether anything was done yet."""
        return (self.folder / RESULTS_FILE).exists()

    @property
    def is_open(self) -> bool:
        """Whether what was done is known to be of this work."""
        return self._journal is not None

    def open(self, header: Mapping[str, Any]) -> None:
        """Read what was done before.

        Args:
            header: what the work is of, as JSON.

        Raises:
            ArtifactError: that was work on something else, or cannot be read.
        """
        self._journal = Journal(self.folder / RESULTS_FILE, {"schema": SCHEMA, **header})
        self.results = {each["key"]: each["result"] for each in self._journal.records}

    def remember(self, key: str, result: Any) -> None:
        """Keep the result of a unit.

        Raises:
            ArtifactError: the disk is full, or the place cannot be written to.
        """
        self._opened.add({"key": key, "result": result})
        self.results[key] = self._opened.records[-1]["result"]

    def due(self) -> bool:
        """Whether a sum that grows with every unit should be saved now.

        That is after every unit, unless saving would then take more than `SHARE` of the time.
        """
        passed = time.monotonic() - self._saved_at
        return passed >= OFTEN or self._cost <= SHARE * passed

    @contextmanager
    def saving(self) -> Iterator[Path]:
        """The folder, to save such a sum in.

        Raises:
            ArtifactError: the disk is full, or the place cannot be written to.
        """
        start = time.monotonic()
        self._opened.begin()
        yield self.folder
        self._saved_at = time.monotonic()
        self._cost = self._saved_at - start

    @property
    def _opened(self) -> Journal:
        if self._journal is None:
            raise ValueError("the checkpoint is not opened yet")
        return self._journal


@contextmanager
def unfinished(result: Path, resume: bool) -> Iterator[Checkpoint]:
    """Work towards `result`, kept beside it until the context is left without an error.

    A mistake in what was given leaves nothing either, since what was done belongs to the mistake;
    but for earlier work, if it comes before that is opened, as it may be of something else.
    A full disk, too little memory, an interruption or anything unforeseen leaves the folder.

    Args:
        result: file or folder that the work will make.
        resume: go on with what an earlier process left; refused if there is such and it is False.

    Raises:
        ArtifactError: another process has it, earlier work is there, or the place cannot be
            written to.
    """
    checkpoint = Checkpoint(unfinished_place(result))
    folder = checkpoint.folder
    if checkpoint.holds_work and not resume:
        raise ArtifactError(
            f"{folder} holds work that was not finished; go on with it by --resume, or remove it"
        )
    begun = checkpoint.holds_work
    new = [each for each in (folder, *folder.parents) if not each.exists()]
    with held(folder, result):
        try:
            yield checkpoint
        except BaseException as error:
            if begun and isinstance(error, CorrSteerError) and not checkpoint.is_open:
                raise
            if not checkpoint.holds_work or _is_mistake(error):
                _remove(new or [folder])
                raise
            hint = f"what was done is kept in {folder}: give the same command with --resume"
            if isinstance(error, CorrSteerError | KeyboardInterrupt):
                raise type(error)(f"{error}; {hint}".removeprefix("; ")) from error
            log.warning("%s", hint)
            raise
        else:
            _remove(new or [folder])


@contextmanager
def held(folder: Path, result: Path) -> Iterator[None]:
    """While inside, no other process that holds the same folder is at work on `result`.

    Raises:
        ArtifactError: another process holds it, or it cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK_FILE)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ArtifactError(
            f"another process is at work on {result}; wait for it, or choose another --out"
        ) from error
    except OSError as error:
        raise cannot_write(folder, error) from error
    try:
        yield
    finally:
        lock.release()


def _is_mistake(error: BaseException) -> bool:
    """Whether the same work can never be finished."""
    passing = ArtifactError | DeviceMemoryError | WorkerError
    return isinstance(error, CorrSteerError) and not isinstance(error, passing)


def _remove(folders: list[Path]) -> None:
    """Remove the first folder with all in it, and the others, its parents, where they are empty."""
    shutil.rmtree(folders[0], ignore_errors=True)
    with suppress(OSError):
        for parent in folders[1:]:
            parent.rmdir()
