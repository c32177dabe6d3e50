"""What long work has done so far, one JSON object a line, so that it continues after a kill.

Changes when what must survive a kill changes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from corrsteer.errors import ArtifactError
from corrsteer.files import cannot_write, write_whole


class Journal:
    """Records that are appended one at a time; a line that a kill has cut off does not count.

    Attributes:
        path: the file, which exists from the first record on.
        records: those written so far, in order.
    """

    def __init__(self, path: Path, header: Mapping[str, Any]):
        """The journal at `path`, continued if it is there.

        Args:
            path: the file.
            header: what the work is of, as JSON; the records of other work are refused.

        Raises:
            ArtifactError: the file is of other work, or cannot be read.
        """
        self.path = path
        self._header = json.loads(json.dumps(header))
        self.records: list[dict[str, Any]] = []
        if path.exists():
            self._read()

    def begin(self) -> None:
        """Write the file, without records, if it is not there.

        Raises:
            ArtifactError: the disk is full, or the place cannot be written to.
        """
        if not self.path.exists():
            write_whole(self.path, json.dumps(self._header) + "\n")

    def add(self, record: Mapping[str, Any]) -> None:
        """Append a record and wait until it is on disk.

        Raises:
            ArtifactError: the disk is full, or the place cannot be written to.
        """
        self.begin()
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise cannot_write(self.path, error) from error
        self.records.append(json.loads(json.dumps(record)))

    def remove(self) -> None:
        """Delete the file: the work is done."""
        self.path.unlink(missing_ok=True)

    def _read(self) -> None:
        try:
            content = self.path.read_text(encoding="utf-8")
            whole = content[: content.rfind("\n") + 1]
            header, *records = map(json.loads, whole.splitlines())
        except (OSError, ValueError) as error:
            raise ArtifactError(
                f"{self.path} cannot be read ({error}); remove it to start anew"
            ) from error
        if header != self._header:
            raise ArtifactError(
                f"{self.path} is of other work ({_difference(header, self._header)}); give the "
                "same options again, choose another --out, or remove it"
            )
        if whole != content:
            write_whole(self.path, whole)
        self.records = records


def _difference(one: Any, other: Any, name: str = "header") -> str:
    """The first thing in which two headers differ, in words."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in {**one, **other}:
            if one.get(key) != other.get(key):
                return _difference(one.get(key), other.get(key), key)
    return f"{name} is {one!r} there, {other!r} here"
