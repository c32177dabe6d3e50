"""The results of a study, and how they are looked up.

Changes when a study leaves more than its cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from corrsteer.studies.paper.cells import UNAVAILABLE, cell_key
from corrsteer.studies.paper.settings import StudySettings


@dataclass(frozen=True)
class Study:
    """What the cells of a study gave.

    Attributes:
        model: known name, hub id or folder.
        tasks: in the order asked for.
        settings: of the study.
        results: key of a cell -> its result.
        notes: what was left out, and why.
    """

    model: str
    tasks: tuple[str, ...]
    settings: StudySettings
    results: Mapping[str, Mapping[str, Any]]
    notes: tuple[str, ...] = ()

    def get(self, part: str, task: str) -> Mapping[str, Any] | None:
        """What a part gave for a task; None where it was left out or is not available."""
        result = self.results.get(cell_key(part, task))
        return None if result is None or UNAVAILABLE in result else result

    def each(self, part: str) -> list[tuple[str, Mapping[str, Any]]]:
        """Every task that a part gave something for, with that."""
        found = [(task, self.get(part, task)) for task in self.tasks]
        return [(task, result) for task, result in found if result is not None]

    def unavailable(self) -> list[tuple[str, str]]:
        """The cells that could not be had, with the reason."""
        return [
            (key, str(result[UNAVAILABLE]))
            for key, result in self.results.items()
            if UNAVAILABLE in result
        ]
