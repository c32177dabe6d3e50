"""What was tried on the select split, and what came of it.

Changes when a trial or a search records more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from corrsteer.runs.steering import Steering
from corrsteer.settings import Strategy
from corrsteer.stats.metrics import Accuracy, Delta, SideEffects


@dataclass(frozen=True)
class GuardAccuracy:
    """Accuracy on a guard task's select split, without and with a steering."""

    baseline: float
    steered: float


@dataclass(frozen=True)
class Trial:
    """One set of features at one strength, tried on the select split.

    Attributes:
        strategy: S, A, P or G.
        strength: it was tried at.
        features: hook point and latent of each feature.
        steered: accuracy with the steering; `delta`: its change from the baseline.
        p_adjusted: p-value of the change times the number of trials (Bonferroni), at most 1.
        side_effects: what became of each sample.
        guards: guard task -> its accuracies; empty if they were not tried.
    """

    strategy: Strategy
    strength: float
    features: tuple[tuple[str, int], ...]
    steered: Accuracy
    delta: Delta
    p_adjusted: float
    side_effects: SideEffects
    guards: Mapping[str, GuardAccuracy] = field(default_factory=dict)

    @property
    def setting(self) -> tuple[Strategy, float, tuple[tuple[str, int], ...]]:
        """What tells it from other trials of a search."""
        return self.strategy, self.strength, self.features

    def harmed(self, tolerance: float) -> tuple[str, ...]:
        """Guard tasks that lost more accuracy than the tolerance."""
        # a hair of slack, so that a loss of exactly the tolerance is tolerated in floating point
        return tuple(
            name
            for name, guard in self.guards.items()
            if guard.baseline - guard.steered > tolerance + 1e-9
        )


@dataclass(frozen=True)
class SearchRecord:
    """Everything tried on the select split.

    Attributes:
        comparisons: sets and strengths tried, those that were only steps of a search included.
        baseline: accuracy there without steering.
        recommended: the trial that is recommended, or None.
        trials: every set and strength that could have been.
    """

    comparisons: int
    baseline: Accuracy
    recommended: Trial | None
    trials: tuple[Trial, ...]


@dataclass(frozen=True)
class Search:
    """A search with the steerings that it led to.

    Attributes:
        record: what was tried.
        chosen: strategy -> its steering, in the order S, A, P, G.
        recommended: the steering of the recommended trial, or None.
    """

    record: SearchRecord
    chosen: Mapping[Strategy, Steering]
    recommended: Steering | None
