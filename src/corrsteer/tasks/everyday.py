"""The everyday tasks by name; see `corrsteer.everyday`.

Changes when they are cut or scored in another way.
"""

from __future__ import annotations

from corrsteer.everyday.families import FAMILIES
from corrsteer.scoring.base import Scorer
from corrsteer.scoring.registry import load_scorer
from corrsteer.tasks.base import Task
from corrsteer.tasks.splits import cut_groups
from corrsteer.tasks.targets import check_targets


def load(name: str, seed: int, scorer: Scorer | None = None) -> Task:
    """The everyday task of that name, cut by the seed with groups whole.

    Raises:
        DataError: another scorer cannot read its targets.
    """
    family = FAMILIES[name]
    samples = family.samples(name)
    scorer = scorer or load_scorer(family.scorer)
    check_targets(((f"{name}, row {each.id}", each) for each in samples), scorer)
    splits = cut_groups(samples, seed)
    return Task(
        name=name,
        fit=splits.fit,
        select=splits.select,
        test=splits.test,
        scorer=scorer,
        max_new_tokens=family.max_new_tokens,
        guards=family.guards,
        description=family.description,
    )
