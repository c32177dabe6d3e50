"""Whether two sets of statistics are of the same thing, so that they may be added or reused.

Changes when there is another setting that statistics depend on.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from corrsteer.errors import ArtifactError
from corrsteer.runs.run import Provenance, Run
from corrsteer.settings import FitSettings

log = logging.getLogger(__name__)

SAME_PROVENANCE = (
    "model",
    "revision",
    "sae_source",
    "sae_ids",
    "hook_shift",
    "scorer",
    "max_new_tokens",
)
SAME_TASK = ("few", "chat", "select_token")
SAME_SETTINGS = ("pool", "steer_pool", "positions")
"""What runs must have in common for their statistics to be of the same thing."""


def check_alike(
    name: str,
    provenance: Provenance,
    settings: FitSettings,
    hooks: Sequence[str],
    other_name: str,
    other: Run,
) -> None:
    """Refuse a run whose statistics are not of the same thing.

    Files of a user's own may have different names: parts of one data set do.

    Args:
        name: of what is made of the next three.
        provenance: what it is made from.
        settings: of its fit.
        hooks: names of its hook points.
        other_name: of the other.
        other: a run with statistics.

    Raises:
        ArtifactError: they differ; names what in.
    """
    theirs = other.provenance
    pairs: dict[str, tuple[Any, Any]] = {"hook points": (list(hooks), list(other.statistics))}
    for fields, one, two in (
        (SAME_PROVENANCE, provenance, theirs),
        (SAME_TASK, provenance.task_options, theirs.task_options),
        (SAME_SETTINGS, settings, other.settings),
    ):
        pairs |= {field: (getattr(one, field), getattr(two, field)) for field in fields}
    if not (provenance.task.endswith(".jsonl") and theirs.task.endswith(".jsonl")):
        pairs["task"] = (provenance.task, theirs.task)
    for field, (own, another) in pairs.items():
        if own != another:
            raise ArtifactError(
                f"{other_name} has {field} {another!r}, but {name} has {own!r}; only what was "
                "collected with the same model, SAEs, task and pooling goes together"
            )
