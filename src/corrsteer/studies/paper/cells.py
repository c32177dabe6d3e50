"""A study's folder: one JSON file a cell, written whole when the cell is done.

Changes when what must survive a kill changes. A cell whose file is there is not done again, and of
an unfinished one the passes are kept; results hold no times, so that they are the same bytes
either way.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from corrsteer.errors import ArtifactError, InsufficientDataError
from corrsteer.execution.checkpoint import Checkpoint, held
from corrsteer.files import cannot_write, check_free, regular, write_whole
from corrsteer.json_text import to_json
from corrsteer.runs.identity import difference

HEADER_FILE, UNFINISHED = "settings.json", "unfinished"
SCHEMA = "corrsteer.study/1"
UNAVAILABLE = "unavailable"
"""The key of a result that could not be had; its value says why."""

Result = dict[str, Any]


def cell_key(part: str, task: str) -> str:
    """The name of a cell's files."""
    return part + "-" + re.sub(r"[^\w.-]+", "-", task)


class Cells:
    """The cells of one study.

    Attributes:
        folder: of the study.
    """

    def __init__(self, folder: Path, header: Mapping[str, Any]):
        """The study in a folder, continued if it is there.

        Args:
            folder: new, empty, or of a study with this header.
            header: what the study is of, as JSON.

        Raises:
            ArtifactError: the folder holds something else, a study of other settings, or cannot
                be written to.
        """
        self.folder = folder
        self._header = document = json.loads(to_json({"schema": SCHEMA, **header}))
        path = folder / HEADER_FILE
        if path.exists():
            _check_same(path, document)
        else:
            write_whole(check_free(folder) / HEADER_FILE, to_json(document))

    def run_folder(self, key: str) -> Path:
        """Where the run of a cell is."""
        return self.folder / "runs" / key

    def get(self, key: str) -> Result | None:
        """What a cell gave, or None if it is not done.

        Raises:
            ArtifactError: its file is corrupt.
        """
        path = self._path(key)
        try:
            result = json.loads(regular(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{path} is corrupt ({error}); remove it to do it again") from error
        if not isinstance(result, dict):
            raise ArtifactError(f"{path} is no JSON object; remove it to do it again")
        return result

    @contextmanager
    def held(self) -> Iterator[None]:
        """While inside, no other process may do cells of this study.

        Raises:
            ArtifactError: another one does, or the folder cannot be written to.
        """
        place = self.folder / UNFINISHED
        with held(place, self.folder):
            try:
                yield
            except KeyboardInterrupt as interrupt:
                hint = f"what was done is kept in {self.folder}: give the same command again"
                raise KeyboardInterrupt(hint) from interrupt
            finally:
                if not any(each.is_dir() for each in place.iterdir()):
                    shutil.rmtree(place)

    def done(self, key: str, execution: Callable[[Checkpoint], Mapping[str, Any]]) -> Result:
        """What a cell gives; it is done now if it was not before.

        What the samples do not allow is a result too: `unavailable`, with the reason.

        Args:
            key: of the cell.
            execution: does it, given where its passes are kept until then.

        Raises:
            CorrSteerError: anything else that went wrong; the cell is not done then.
        """
        found = self.get(key)
        checkpoint = Checkpoint(self.folder / UNFINISHED / key)
        if found is not None:  # a kill may have come between its file and the end of its passes
            shutil.rmtree(checkpoint.folder, ignore_errors=True)
            return found
        self._clear(key)
        checkpoint.open({"cell": key, "study": self._header})
        try:
            content = to_json(execution(checkpoint))
        except InsufficientDataError as error:
            self._clear(key)
            content = to_json({UNAVAILABLE: str(error)})
        write_whole(self._path(key), content)
        shutil.rmtree(checkpoint.folder, ignore_errors=True)
        result: Result = json.loads(content)
        return result

    def _path(self, key: str) -> Path:
        return self.folder / "cells" / f"{key}.json"

    def _clear(self, key: str) -> None:
        """Remove what a kill has left of a cell."""
        run = self.run_folder(key)
        try:
            if run.is_dir():
                shutil.rmtree(run)
        except OSError as error:
            raise cannot_write(run, error) from error


def _check_same(path: Path, header: Mapping[str, Any]) -> None:
    """Refuse a study of other settings.

    Raises:
        ArtifactError: names the first difference.
    """
    try:
        there = json.loads(regular(path).read_text(encoding="utf-8"))
        known = [name for name in header if name in there]  # a study from before tells less
        found = difference({n: there[n] for n in known}, {n: header[n] for n in known})
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path} cannot be read ({error}); choose another --out") from error
    if found is not None:
        told = f"with {found.what} {found.there!r}, not {found.here!r}"
        raise ArtifactError(
            f"{path.parent} is a study {f'of other content ({found})' if found.by_digest else told}"
            "; give the same options again, or choose another --out"
        )
