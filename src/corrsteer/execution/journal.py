"""What long work has done so far, one JSON object a line, so that it continues after a kill.

Changes when what must survive a kill changes. Every record goes with its digest, so that one which
was changed on the disk is not taken for a result.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from corrsteer.errors import ArtifactError
from corrsteer.files import cannot_write, regular, write_whole
from corrsteer.runs.identity import difference


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
        line = {"record": record, "sha256": _digest(record)}
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise cannot_write(self.path, error) from error
        self.records.append(json.loads(json.dumps(record)))

    def remove(self) -> None:
        """Delete the file: the work is done."""
        self.path.unlink(missing_ok=True)

    def _read(self) -> None:
        content = self._content()
        whole = content[: content.rfind("\n") + 1]
        try:
            header, *lines = map(json.loads, whole.splitlines())
        except (ValueError, RecursionError) as error:
            raise self._unreadable(error) from error
        if not isinstance(header, dict):
            raise self._unreadable("it has no header")
        found = difference(header, self._header)
        if found is not None:
            raise ArtifactError(
                f"{self.path} is of other work ({found}); give the same options again, choose "
                "another --out, or remove it"
            )
        for number, line in enumerate(lines, start=2):
            record = line.get("record") if isinstance(line, dict) else None
            if not isinstance(record, dict) or line.get("sha256") != _digest(record):
                raise self._unreadable(f"line {number} is not as it was written")
            self.records.append(record)
        if whole != content:
            write_whole(self.path, whole)

    def _content(self) -> str:
        try:
            return regular(self.path).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise self._unreadable(error) from error

    def _unreadable(self, reason: object) -> ArtifactError:
        return ArtifactError(f"{self.path} cannot be read ({reason}); remove it to start anew")


def _digest(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record).encode()).hexdigest()
