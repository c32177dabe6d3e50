"""What a benchmark of the hub is, and the one loader of them all.

Changes when a benchmark has to say more than that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from corrsteer.errors import DataError
from corrsteer.samples import Sample
from corrsteer.scoring.base import Scorer
from corrsteer.scoring.registry import load_scorer
from corrsteer.tasks import hub
from corrsteer.tasks.base import Task
from corrsteer.tasks.splits import cut
from corrsteer.tasks.targets import check_targets


@dataclass(frozen=True)
class Benchmark:
    """A data set of the hub as a task.

    Attributes:
        name: what the command line calls it.
        description: one line for `corrsteer tasks`.
        source: the data set, with the columns that a row must have.
        splits: the splits to read, as many as `splits.cut` has ways to make a task's out of them.
        sample: a row as prompt and target.
        scorer: name of the scorer; see `load_scorer`.
        max_new_tokens: the longest reply.
        where: a column and the value that it has in the rows that belong to the task.
        may_lack: those of `splits` that a local copy need not have.
        reference: see `Task`.
        letters: see `Task`.
        guards: names of tasks that steering for this one should not harm.
    """

    name: str
    description: str
    source: hub.Source
    splits: tuple[str, ...]
    sample: Callable[[hub.Row], Sample]
    scorer: str
    max_new_tokens: int
    where: tuple[str, str] | None = None
    may_lack: tuple[str, ...] = ()
    reference: Callable[[Sample], str] | None = None
    letters: str = ""
    guards: tuple[str, ...] = ()

    def load(self, seed: int, data: Path | None = None, scorer: Scorer | None = None) -> Task:
        """The task.

        Args:
            seed: of every order and cut.
            data: folder with a local copy, read in place of the hub.
            scorer: judges in place of its own.

        Raises:
            DataError: the data set cannot be had or used.
        """
        parts = [[self.sample(row) for row in rows] for rows in self._rows(data)]
        scorer = scorer or load_scorer(self.scorer)
        source = data or self.source.id
        placed = ((f"{source}, row {each.id}", each) for part in parts for each in part)
        check_targets(placed, scorer)
        splits = cut(parts, seed)
        return Task(
            name=self.name,
            fit=splits.fit,
            select=splits.select,
            test=splits.test,
            scorer=scorer,
            max_new_tokens=self.max_new_tokens,
            guards=self.guards,
            description=self.description,
            reference=self.reference,
            shuffled=True,
            letters=self.letters,
        )

    def _rows(self, data: Path | None) -> list[list[hub.Row]]:
        """The rows of each split that there is, in the order of `splits`."""
        optional = () if data is None else self.may_lack
        needed = [split for split in self.splits if split not in optional]
        found = hub.read(self.source, needed, data, optional)
        return [self._belonging(found[split], data) for split in self.splits if split in found]

    def _belonging(self, rows: list[hub.Row], data: Path | None) -> list[hub.Row]:
        if self.where is None:
            return rows
        column, value = self.where
        kept = [row for row in rows if row.values.get(column) == value]
        if not kept:
            raise DataError(
                f"none of {len(rows)} rows of {data or self.source.id} has {column} {value!r}; "
                "expected some, as among the hub's own rows"
            )
        return kept
