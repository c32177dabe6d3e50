"""What was tried on the select split, and what came of it.

Changes when a trial or a search records more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from corrsteer.runs.comparison import Comparison
from corrsteer.runs.steering import Steering
from corrsteer.settings import Strategy
from corrsteer.stats.metrics import Accuracy


@dataclass(frozen=True)
class Trial:
    """One set of features at one strength, tried on the select split.

    Attributes:
        strategy: S, A, P or G.
        steering: the set, with the strength it was tried at.
        comparison: beside the baseline on the select split.
        p_adjusted: p-value of the change times the number of trials (Bonferroni), at most 1.
        guards: guard task -> its accuracy without and with the steering; empty if not tried.
    """

    strategy: Strategy
    steering: Steering
    comparison: Comparison
    p_adjusted: float = 1.0
    guards: Mapping[str, tuple[Accuracy, Accuracy]] = field(default_factory=dict)


@dataclass(frozen=True)
class Search:
    """What the search found.

    Attributes:
        chosen: strategy -> its steering, in the order S, A, P, G.
        recommended: the trial to use, or None: no reliable effect.
        trials: every set and strength that could have been recommended.
        comparisons: sets and strengths tried on the select split in all.
        baseline: accuracy there without steering.
    """

    chosen: dict[str, Steering]
    recommended: Trial | None
    trials: tuple[Trial, ...]
    comparisons: int
    baseline: Accuracy
