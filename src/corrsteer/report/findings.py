"""What a report says of a run beyond what the run holds.

Changes when a report tells of something else. Nothing is computed here that a run does not hold;
counts of flows are those of its predictions, what fewer samples would have chosen is by its log.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from corrsteer.errors import ArtifactError
from corrsteer.features import Feature
from corrsteer.hook_points import HookPoint, Site
from corrsteer.runs.evaluation import Prediction
from corrsteer.runs.location import RUN_FILE
from corrsteer.runs.receipts import Receipts
from corrsteer.runs.records import (
    RandomControls,
    Recommendation,
    RunDocument,
    SteeredOutcome,
    StrategyRecord,
)
from corrsteer.runs.run import Run
from corrsteer.runs.search import Trial
from corrsteer.runs.verdict import Verdict, judge
from corrsteer.scoring.rated import NOT_SHOWN, measured
from corrsteer.settings import ArmName
from corrsteer.studies.sample_efficiency import Snapshot, sample_efficiency

MOST_LOGGED = 1_000_000
"""Logged activations up to which a report says what fewer samples would have chosen; asking so many
takes some seconds."""


@dataclass(frozen=True)
class Flows:
    """Samples by what they were and became; right is outcome 1, wrong is outcome 0.

    Attributes:
        right_same: right in both arms, with the same reply; `right_other`: with another.
        worsened: right, then wrong; `improved`: wrong, then right.
        wrong_other: wrong in both arms, with another reply; `wrong_same`: with the same.
    """

    right_same: int
    right_other: int
    worsened: int
    improved: int
    wrong_other: int
    wrong_same: int


@dataclass(frozen=True)
class Layer:
    """A hook point with its best features, best first."""

    layer: int
    site: Site
    features: tuple[Feature, ...]


@dataclass(frozen=True)
class Findings:
    """A run, and what a report alone works out of it.

    Attributes:
        run: the run.
    """

    run: Run

    def __post_init__(self) -> None:
        """Refuse a run that contradicts itself.

        Raises:
            ArtifactError: it recommends what it did not try.
        """
        chosen = self.run.search.recommended if self.run.search else None
        tried = {trial.setting for trial in self.run.search.trials} if self.run.search else set()
        if chosen and (chosen.setting not in tried or not chosen.steers):
            raise ArtifactError(f"{RUN_FILE} recommends what was not tried; train again")

    @property
    def told(self) -> RunDocument | None:
        """What was told of its evaluation, or None."""
        return self.run.evaluation

    @property
    def evaluated(self) -> SteeredOutcome | None:
        """Its steering on the test split, or None."""
        return self.run.evaluation.outcome if self.run.evaluation else None

    @property
    def strategies(self) -> Mapping[ArmName, StrategyRecord]:
        """What every arm does on the test split."""
        return self.run.evaluation.strategies if self.run.evaluation else {}

    @property
    def controls(self) -> RandomControls:
        """The random controls, of no draw where there are none."""
        controls = self.evaluated.controls if self.evaluated else None
        return controls.random if controls else RandomControls.of(())

    @property
    def unread(self) -> str:
        """How many replies nothing could be read out of, in a sentence; "" where there are none."""
        before = self.told.task.unread_test if self.told else None
        after = self.evaluated.unread if self.evaluated and self.setting else None
        arms = [("the baseline", before), ("the steered arm", after)]
        counts = [f"{count:,} of {name}" for name, count in arms if count]
        if not counts:
            return ""
        some = " and ".join(counts)
        return f"Nothing could be read out of some replies, {some}; they count as wrong."

    @property
    def receipts(self) -> dict[str, Receipts]:
        """What each arm that steers costs, as far as it was measured."""
        if self.told is None:
            return {}
        found = {
            f"{name} × {arm.strength:g}": arm.receipts  # noqa: RUF001
            for name, arm in self.told.strategies.items()
            if arm.strength is not None
        }
        chosen = self.told.recommended
        if chosen is not None and self.told.outcome is not None:
            label = f"recommended: {chosen.strategy} × {chosen.strength:g}"  # noqa: RUF001
            found[label] = self.told.outcome.receipts
        return {name: each for name, each in found.items() if each is not None}

    @property
    def measured(self) -> str:
        """What its mean outcome is called."""
        return measured(self.run.provenance.scorer)

    @property
    def not_shown(self) -> str:
        """What a run by rated replies alone does not show, in a sentence; "" for any other."""
        return f"{NOT_SHOWN[0].upper()}{NOT_SHOWN[1:]}." if self.measured != "accuracy" else ""

    @property
    def verdict(self) -> Verdict:
        """The outcome of the run."""
        if self.run.evaluation is not None:
            return self.run.evaluation.verdict
        if self.run.search is None and not self.run.statistics:
            return Verdict(
                "not-evaluated",
                "Nothing to judge: this is a steering alone, without the run that made it.",
            )
        run = self.run
        scorer = run.provenance.scorer
        return judge(run.search, None, run.features, run.settings, run.counts.shard, scorer)

    @property
    def tone(self) -> Literal["good", "doubtful", "open"]:
        """Whether the verdict says that steering helps, doubts it, or has nothing to say of it."""
        if self.verdict.kind in ("not-evaluated", "no-effect"):
            return "open"
        return "good" if self.verdict.kind == "helps" else "doubtful"

    @property
    def recommended(self) -> Recommendation | None:
        """The strategy and strength that the select split recommends."""
        trial = self.run.search.recommended if self.run.search else None
        return Recommendation(trial.strategy, trial.strength) if trial else None

    @cached_property
    def vetoed(self) -> tuple[Trial, ...]:
        """Significant trials that did better than the recommended one, and harmed a guard task."""
        if self.run.search is None or not self.run.provenance.guards:
            return ()
        chosen = self.run.search.recommended
        bar = chosen.steered.accuracy if chosen else 0.0
        return tuple(
            trial
            for trial in self.run.search.trials
            if trial.delta.value > 0
            and trial.p_adjusted < self.run.settings.alpha
            and trial.steered.accuracy > bar
            and trial.harmed(self.run.settings.guard_tolerance)
        )

    @property
    def setting(self) -> Recommendation | None:
        """What the run's own arm is; None where it adds nothing."""
        strategy = self.run.settings.strategy
        if not self.run.steering.vectors or self.recommended or strategy == "auto":
            return self.recommended
        return Recommendation(strategy, self.run.steering.strength)

    @property
    def improved(self) -> list[Prediction]:
        """Samples whose outcome rose, by how much."""
        return sorted(
            (row for row in self.run.predictions if row.change > 0), key=lambda row: -row.change
        )

    @property
    def worsened(self) -> list[Prediction]:
        """Samples whose outcome fell, by how much."""
        return sorted(
            (row for row in self.run.predictions if row.change < 0), key=lambda row: row.change
        )

    @cached_property
    def flows(self) -> Flows | None:
        """Flows between right and wrong; None where outcomes are graded or not all recorded."""
        judged = [
            (row.baseline_outcome, row.steered_outcome, row.baseline_text == row.steered_text)
            for row in self.run.predictions
            if row.baseline_outcome is not None and row.steered_outcome is not None
        ]
        graded = any(outcome not in (0.0, 1.0) for each in judged for outcome in each[:2])
        if graded or self.evaluated is None or len(judged) != self.evaluated.baseline.n:
            return None
        return Flows(
            right_same=judged.count((1.0, 1.0, True)),
            right_other=judged.count((1.0, 1.0, False)),
            worsened=sum(before > after for before, after, _ in judged),
            improved=sum(before < after for before, after, _ in judged),
            wrong_other=judged.count((0.0, 0.0, False)),
            wrong_same=judged.count((0.0, 0.0, True)),
        )

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """Every hook point with its best features, in the order of the forward pass."""
        hooks = {HookPoint.parse(name): found for name, found in self.run.top_features.items()}
        return tuple(
            Layer(hook.layer - self.run.provenance.hook_shift, hook.site, hooks[hook])
            for hook in sorted(hooks, key=lambda hook: hook.order)
        )

    @property
    def best_per_layer(self) -> list[Feature]:
        """The feature of highest r of every hook point that has one of positive r."""
        return [layer.features[0] for layer in self.layers if layer.features]

    @property
    def asks_fewer_samples(self) -> Literal["yes", "no log", "too large"]:
        """Whether it is asked what fewer samples would have chosen, or why not."""
        log = self.run.log
        if log is None or not self.run.settings.permutations:
            return "no log"
        return "yes" if log.entries() <= MOST_LOGGED else "too large"

    @cached_property
    def snapshots(self) -> tuple[Snapshot, ...]:
        """What fewer samples would have chosen, all of them last; empty where it is not asked."""
        return sample_efficiency(self.run) if self.asks_fewer_samples == "yes" else ()

    @property
    def settled(self) -> int:
        """The number of samples from which on the best feature of all layers is the final one."""
        last = len(self.snapshots) - 1
        while last > 0 and self.snapshots[last - 1].same_best:
            last -= 1
        return self.snapshots[last].samples
