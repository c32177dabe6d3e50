"""What a run found, read out of its JSON and checked, in the terms that a report speaks.

Changes when a report tells of something else. Nothing is computed here that a run does not hold;
counts of flows are those of its predictions, what fewer samples would have chosen is by its log.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter

from corrsteer.errors import ArtifactError
from corrsteer.features import Feature
from corrsteer.hook_points import HookPoint, Site
from corrsteer.runs.document import verdict
from corrsteer.runs.evidence import Evidence
from corrsteer.runs.folder import EVALUATION_FILE, PREDICTIONS_FILE
from corrsteer.runs.location import RUN_FILE
from corrsteer.runs.run import Run
from corrsteer.settings import Strategy
from corrsteer.stats.metrics import Accuracy, Delta, SideEffects
from corrsteer.studies.sample_efficiency import Snapshot, sample_efficiency

T = TypeVar("T")

MOST_LOGGED = 1_000_000
"""Logged activations up to which a report says what fewer samples would have chosen; asking so many
takes some seconds."""


@dataclass(frozen=True)
class Setting:
    """A strategy at a strength."""

    strategy: Strategy
    strength: float


@dataclass(frozen=True)
class Arm:
    """A steered arm beside the baseline on the test split.

    Attributes:
        baseline: accuracy without steering; `steered`: with it.
        delta: steered minus baseline; `side_effects`: what became of each sample.
        strength: of the steering.
        features: the features it is made of; the arm is the baseline's where there are none.
    """

    baseline: Accuracy
    steered: Accuracy
    delta: Delta
    side_effects: SideEffects
    strength: float
    features: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Guard:
    """Accuracy on a guard task's test split, without and with the steering."""

    baseline: float
    steered: float
    delta: Delta
    n: int


@dataclass(frozen=True)
class RandomControls:
    """Test accuracies under random features; `best` and `mean` are None without a draw."""

    draws: int
    best: float | None
    mean: float | None
    accuracies: tuple[float, ...]


@dataclass(frozen=True)
class Controls:
    """Controls by their kind."""

    random: RandomControls


@dataclass(frozen=True)
class EvaluatedTask:
    """The task that was evaluated on, and test samples that could not be judged."""

    name: str
    unscored_test: int


@dataclass(frozen=True)
class Evaluated(Arm):
    """The evaluation of a run: its own steering's arm, and all that it is held against.

    Attributes:
        verdict: the outcome in one sentence.
        task: what it was evaluated on.
        strategies: the arms of every strategy tried.
        controls: random features in place of the run's own.
        guards: guard task -> what steering does there.
        recommended: the setting that the select split recommends, or None.
        peak_memory_mb: the most memory that the process held.
    """

    verdict: str
    task: EvaluatedTask
    strategies: Mapping[Strategy, Arm]
    controls: Controls
    guards: Mapping[str, Guard]
    recommended: Setting | None
    peak_memory_mb: float


@dataclass(frozen=True)
class Trial:
    """A set of features at one strength, tried on the select split."""

    strategy: Strategy
    strength: float
    features: tuple[tuple[str, int], ...]
    steered: Accuracy
    delta: Delta
    p_adjusted: float
    side_effects: SideEffects


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
class Row:
    """A test sample with both arms' replies; outcomes are None where they are not judged."""

    id: str
    prompt: str
    target: tuple[str, ...]
    baseline_text: str
    baseline_answer: str | None
    baseline_outcome: float | None
    steered_text: str
    steered_answer: str | None
    steered_outcome: float | None

    @property
    def change(self) -> float:
        """Steered minus baseline outcome; 0 where one of them is not judged."""
        if self.baseline_outcome is None or self.steered_outcome is None:
            return 0.0
        return self.steered_outcome - self.baseline_outcome


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
    """A run with its JSON read.

    Attributes:
        run: the run.
        evaluated: its evaluation, or None.
        search: what was tried on the select split, or None for a steering alone.
        inference: how features were judged, or None in runs before it was recorded.
        rows: a test sample each.
    """

    run: Run
    evaluated: Evaluated | None
    search: SearchRecord | None
    inference: Evidence | None
    rows: tuple[Row, ...]

    @classmethod
    def of(cls, run: Run) -> Findings:
        """What a run found.

        Raises:
            ArtifactError: its evaluation, search or predictions are not of this version.
        """
        evaluation = run.evaluation
        search = _read(_SEARCH, run.search, RUN_FILE) if run.search else None
        chosen = search.recommended if search else None
        if search and chosen and (chosen not in search.trials or not chosen.features):
            raise ArtifactError(f"{RUN_FILE} recommends what was not tried; train again")
        return cls(
            run=run,
            evaluated=_read(_EVALUATED, evaluation, EVALUATION_FILE) if evaluation else None,
            search=search,
            inference=_read(_INFERENCE, run.inference, RUN_FILE) if run.inference else None,
            rows=_read(_ROWS, run.predictions, PREDICTIONS_FILE),
        )

    @property
    def verdict(self) -> str:
        """The outcome of the run in one sentence."""
        if self.evaluated is not None:
            return self.evaluated.verdict
        if self.search is None and not self.run.statistics:
            return "Nothing to judge: this is a steering alone, without the run that made it."
        return verdict(self.run, None)

    @property
    def tone(self) -> Literal["good", "doubtful", "open"]:
        """Whether the verdict says that steering helps, doubts it, or has nothing to say of it."""
        if self.evaluated is None or self.recommended is None:
            return "open"
        return "good" if self.verdict.startswith("Steering helps") else "doubtful"

    @property
    def recommended(self) -> Setting | None:
        """The strategy and strength that the select split recommends."""
        trial = self.search.recommended if self.search else None
        return Setting(trial.strategy, trial.strength) if trial else None

    @cached_property
    def vetoed(self) -> tuple[Trial, ...]:
        """Significant trials that did better than the recommended one.

        The best significant trial that harms no guard task is recommended, so these did harm one.
        """
        if self.search is None or not self.run.provenance.guards:
            return ()
        chosen = self.search.recommended
        bar = chosen.steered.accuracy if chosen else 0.0
        return tuple(
            trial
            for trial in self.search.trials
            if trial.delta.value > 0
            and trial.p_adjusted < self.run.settings.alpha
            and trial.steered.accuracy > bar
        )

    @property
    def setting(self) -> Setting | None:
        """What the run's own arm is; None where it has no features, and so does nothing."""
        strategy = self.run.settings.strategy
        if not self.run.features or self.recommended or strategy == "auto":
            return self.recommended
        return Setting(strategy, self.run.steering.strength)

    @property
    def improved(self) -> list[Row]:
        """Samples whose outcome rose, by how much."""
        return sorted((row for row in self.rows if row.change > 0), key=lambda row: -row.change)

    @property
    def worsened(self) -> list[Row]:
        """Samples whose outcome fell, by how much."""
        return sorted((row for row in self.rows if row.change < 0), key=lambda row: row.change)

    @cached_property
    def flows(self) -> Flows | None:
        """Flows between right and wrong; None where outcomes are graded or not all recorded."""
        judged = [
            (row.baseline_outcome, row.steered_outcome, row.baseline_text == row.steered_text)
            for row in self.rows
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


_EVALUATED = TypeAdapter(Evaluated).validate_python
_SEARCH = TypeAdapter(SearchRecord).validate_python
_INFERENCE = TypeAdapter(Evidence).validate_python
_ROWS = TypeAdapter(tuple[Row, ...]).validate_python


def _read(validate: Callable[[Any], T], value: Any, source: str) -> T:
    try:
        return validate(value)
    except ValueError as error:
        reason = " ".join(str(error).split())[:300]
        raise ArtifactError(
            f"{source} is not what this version of the report reads ({reason}); train again"
        ) from error
