"""Whether the scorer of a task can read its targets.

Changes when targets are held against their scorer in another way. Every loader asks here, with the
scorer that will judge, so that no run starts on a target that is not understood.
"""

from __future__ import annotations

from collections.abc import Iterable

from corrsteer.errors import DataError, ScorerError
from corrsteer.samples import Sample
from corrsteer.scoring.base import Scorer, TargetReader


def check_targets(placed: Iterable[tuple[str, Sample]], scorer: Scorer) -> None:
    """Refuse a target that the scorer cannot read.

    Args:
        placed: samples, each with where it was read: a file and line, a data set and row.
        scorer: the one that will judge replies.

    Raises:
        DataError: a sample's targets cannot be read, or it has none where it needs one or where
            others have; names the place and what could be written.
    """
    reads = isinstance(scorer, TargetReader)
    labelled: str | None = None
    bare: str | None = None
    for where, sample in placed:
        if not sample.target:
            bare = bare or where
            if scorer.needs_target:
                raise _no_target(where, f"--scorer {scorer.name} needs")
        else:
            labelled = labelled or where
        if reads and bare and labelled:
            raise _no_target(bare, f"other rows have ({labelled})")
        if isinstance(scorer, TargetReader):
            try:
                scorer.check_target(sample)
            except ScorerError as error:
                raise DataError(f"{where}: {error}") from error


def _no_target(where: str, who: str) -> DataError:
    return DataError(f"{where}: no `target`, which {who}; add it")
