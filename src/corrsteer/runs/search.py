"""What was tried on the select split, and what came of it.

Changes when a trial or a search records more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from corrsteer.hook_points import parts_in_words
from corrsteer.runs.steering import Steering
from corrsteer.settings import Strategy
from corrsteer.stats.metrics import Accuracy, Delta, SideEffects


@dataclass(frozen=True)
class GuardAccuracy:
    """Accuracy on a guard task's select split, without and with a steering.

    Attributes:
        baseline, steered: over the samples that it was run on: fit samples of the task while
            settings are chosen, and its whole select split where one is confirmed or shown.
        most_lost: upper confidence limit of the loss on the samples that it was confirmed on; None
            where the setting was not confirmed there, and in runs from before it was.
        needed: samples that could rule out a loss beyond the tolerance, where the split has too
            few; else None.
    """

    baseline: float
    steered: float
    most_lost: float | None = None
    needed: int | None = None

    def harmed(self, tolerance: float) -> bool:
        """Whether more than the tolerance was lost, or such a loss cannot be ruled out."""
        # a hair of slack, so that a loss of exactly the tolerance is tolerated in floating point
        lost = self.baseline - self.steered if self.most_lost is None else self.most_lost
        return lost > tolerance + 1e-9


@dataclass(frozen=True)
class Trial:
    """One set of vectors at one strength, tried on the select split.

    Attributes:
        strategy: the arm that it is of.
        strength: it was tried at.
        features: hook point and latent of each feature; none of a dense direction.
        steered: accuracy with the steering; `delta`: its change from the baseline.
        p_adjusted: p-value of the change on samples that neither built nor chose the setting, for
            the settings that were confirmed there; 1 for the others. In runs from before there was
            a part to confirm on, the p-value on all times the number of trials.
        side_effects: what became of each sample.
        guards: guard task -> its accuracies; empty if they were not tried.
        confirmed: the change on the samples kept for it; None where it was not asked.
        hook_points: where it steers; empty in runs from before there were dense directions.
    """

    strategy: Strategy
    strength: float
    features: tuple[tuple[str, int], ...]
    steered: Accuracy
    delta: Delta
    p_adjusted: float
    side_effects: SideEffects
    guards: Mapping[str, GuardAccuracy] = field(default_factory=dict)
    confirmed: Delta | None = None
    hook_points: tuple[str, ...] = ()

    @property
    def steers(self) -> bool:
        """Whether it adds anything."""
        return bool(self.features or self.hook_points)

    @property
    def setting(self) -> tuple[Strategy, float, tuple[tuple[str, int], ...], tuple[str, ...]]:
        """What tells it from other trials of a search."""
        return self.strategy, self.strength, self.features, self.hook_points

    @property
    def where(self) -> str:
        """The layers of what is no single feature of each, in words; else ""."""
        return parts_in_words(self.hook_points, len(self.features))

    def harmed(self, tolerance: float) -> tuple[str, ...]:
        """Guard tasks that lost more accuracy than the tolerance, or may have."""
        return tuple(name for name, guard in self.guards.items() if guard.harmed(tolerance))


@dataclass(frozen=True)
class SearchRecord:
    """Everything tried on the select split.

    Attributes:
        comparisons: sets and strengths tried, those that were only steps of a search and those
            that were tried on some samples only included.
        baseline: accuracy there without steering.
        recommended: the trial that is recommended, or None.
        trials: every set and strength that was tried on all samples, and could have been.
        n_built: samples that sets and strengths were built and chosen on; 0 in runs from before
            they were kept apart.
        n_confirmed: samples that the best were confirmed on.
        least_gain: the smallest gain that could be significant on them, which is where nothing
            gets worse; above 1 where none could. None in runs from before it was worked out.
        detectable_gain: the smallest gain that is found with the power asked for, where nothing
            gets worse; None where none is, and in runs from before.
    """

    comparisons: int
    baseline: Accuracy
    recommended: Trial | None
    trials: tuple[Trial, ...]
    n_built: int = 0
    n_confirmed: int = 0
    least_gain: float | None = None
    detectable_gain: float | None = None

    @property
    def candidates(self) -> tuple[Trial, ...]:
        """Trials that were confirmed, or not, on the samples kept for it."""
        return tuple(trial for trial in self.trials if trial.confirmed is not None)


@dataclass(frozen=True)
class Search:
    """A search with the steerings that it led to.

    Attributes:
        record: what was tried.
        chosen: arm -> its steering, in the order in which arms were asked for.
        recommended: the steering of the recommended trial, or None.
    """

    record: SearchRecord
    chosen: Mapping[Strategy, Steering]
    recommended: Steering | None
