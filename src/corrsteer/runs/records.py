"""What `--json` prints and run folders hold, typed: one dataclass a JSON object.

Changes when the outside is told more. Keys that exist keep their meaning. `as_json` writes them,
`read_run_document` reads them back.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter

from corrsteer.features import Feature
from corrsteer.hook_points import parts_in_words
from corrsteer.runs.comparison import Comparison
from corrsteer.runs.evaluation import CommonestAnswer, Evaluation
from corrsteer.runs.evidence import Evidence
from corrsteer.runs.receipts import Receipts
from corrsteer.runs.search import GuardAccuracy, SearchRecord
from corrsteer.runs.steering import Steering, direction_in_words
from corrsteer.runs.verdict import Verdict
from corrsteer.settings import ArmName, FitSettings, Strategy
from corrsteer.stats.metrics import Accuracy, Delta, SideEffects

RUN_SCHEMA = "corrsteer.run/1"

EMPTY_OBJECTS = ("inference", "select", "settings")
"""Keys that hold `{}` where there is nothing to say."""


@dataclass(frozen=True)
class ModelReference:
    """Name or id of a model, and its commit."""

    id: str
    revision: str | None


@dataclass(frozen=True)
class SAEReference:
    """Where SAEs come from; `ids`: hook point -> SAE id."""

    source: str | None
    ids: Mapping[str, str]


@dataclass(frozen=True)
class TaskCounts:
    """A task, and how many of its samples were used.

    Attributes:
        name, scorer: of the task.
        n_fit, n_select, n_test: samples of each split that were used.
        unscored_fit, unscored_test: more of them, that could not be judged and are left out.
        unread_test: unsteered replies to test samples that nothing could be read out of and that
            count as wrong; None in runs from before they were counted.
        commonest: the answer that unsteered replies to test samples give most often; None where
            there are none, and in runs from before it was counted.
    """

    name: str
    scorer: str
    n_fit: int
    n_select: int
    n_test: int
    unscored_fit: int = 0
    unscored_test: int = 0
    unread_test: int | None = None
    commonest: CommonestAnswer | None = None


@dataclass(frozen=True)
class RandomControls:
    """Test accuracies under random features; `best` and `mean` are None without a draw."""

    draws: int
    best: float | None
    mean: float | None
    accuracies: tuple[float, ...]

    @classmethod
    def of(cls, accuracies: tuple[float, ...]) -> RandomControls:
        """The controls of these accuracies."""
        draws = len(accuracies)
        best = max(accuracies) if draws else None
        return cls(draws, best, sum(accuracies) / draws if draws else None, accuracies)


@dataclass(frozen=True)
class Controls:
    """Controls by their kind."""

    random: RandomControls


@dataclass(frozen=True)
class GuardChange:
    """Accuracy on a guard task's test split, without and with the steering."""

    baseline: float
    steered: float
    delta: Delta
    n: int


@dataclass(frozen=True)
class Outcome:
    """A steered arm beside the baseline on the test split.

    Attributes:
        baseline: accuracy without steering; `steered`: with it.
        delta: steered minus baseline; `side_effects`: what became of each sample.
        unread: steered replies that nothing could be read out of and that count as wrong; None in
            runs from before they were counted.
        receipts: what the steering costs; None where nothing is steered or generated, and in runs
            from before there were receipts.
    """

    baseline: Accuracy
    steered: Accuracy
    delta: Delta
    side_effects: SideEffects
    unread: int | None = field(default=None, kw_only=True)
    receipts: Receipts | None = field(default=None, kw_only=True)

    @classmethod
    def of(cls, comparison: Comparison | Evaluation) -> Outcome:
        """The outcome of a comparison, without its further facts."""
        return Outcome(
            comparison.baseline,
            comparison.steered,
            comparison.delta,
            comparison.side_effects,
            unread=comparison.unread and comparison.unread[1],
            receipts=comparison.receipts,
        )


@dataclass(frozen=True)
class VectorRecord:
    """A vector that is added at strength 1; `norm` is its length."""

    hook_point: str
    layer: int
    norm: float

    @classmethod
    def all_of(cls, steering: Steering) -> tuple[VectorRecord, ...]:
        """Those of a steering."""
        return tuple(
            cls(hook.name, hook.layer, float(vector.norm()))
            for hook, vector in steering.vectors.items()
        )


def vectors_in_words(direction: str, vectors: Sequence[VectorRecord]) -> str:
    """A dense direction in words; "" of what is made of features, or adds nothing."""
    norms = {each.hook_point: each.norm for each in vectors}
    return direction_in_words(direction, norms) if direction and norms else ""


@dataclass(frozen=True, kw_only=True)
class StrategyRecord(Outcome):
    """A strategy's steering on the test split.

    Attributes:
        strength: of the steering; None of an arm that does not steer.
        prompting: what an arm that does not steer asks instead, else "".
        features: it is made of; none of a dense direction.
        vectors: what it adds; the arm is the baseline's where there are none. Empty in runs from
            before they were recorded.
        direction: what the vectors are where they are not made of features, else "".
        why: it is or is not what is recommended; None in runs from before it was recorded.
        guards: guard task -> what was measured on its select split, if it was.
    """

    strength: float | None
    features: tuple[Feature, ...]
    vectors: tuple[VectorRecord, ...] = ()
    direction: str = ""
    prompting: str = ""
    why: str | None = None
    guards: Mapping[str, GuardAccuracy] = field(default_factory=dict)

    @property
    def acts(self) -> bool:
        """Whether it changes anything: by what it adds, or by how it asks."""
        return bool(self.features or self.vectors or self.prompting)

    def named(self, name: str, times: str = "x") -> str:
        """The arm of that name with its strength, if it has one."""
        return name if self.strength is None else f"{name} {times} {self.strength:g}"

    @property
    def where(self) -> str:
        """The layers of what is no single feature of each, in words; else ""."""
        return parts_in_words([each.hook_point for each in self.vectors], len(self.features))


@dataclass(frozen=True, kw_only=True)
class SteeredOutcome(Outcome):
    """A run's steering on the test split, with what it is held against.

    Attributes:
        controls: random features in its place.
        guards: guard task -> what steering does on its test split.
    """

    controls: Controls | None = None
    guards: Mapping[str, GuardChange] = field(default_factory=dict)


@dataclass(frozen=True)
class Recommendation:
    """A strategy at a strength."""

    strategy: Strategy
    strength: float


@dataclass(frozen=True, kw_only=True)
class RunDocument:
    """What is told of a run.

    Attributes:
        schema: of the document; `run`: the run's folder, or None.
        model, sae, task: what it is of.
        strategy, settings: how it was fitted.
        strength, features, vectors, direction: of its steering; see `StrategyRecord`.
        inference: how features were judged, or None where they were not.
        outcome: its steering on the test split, or None; its fields are keys of the document.
        recommended: what the select split recommends, or None.
        verdict: what came of it.
        strategies: arm -> what it does on the test split.
        select: what was tried on the select split, or None.
        seconds: stage -> seconds; `peak_memory_mb`: the most memory that the process held.
    """

    schema: str
    run: str | None
    model: ModelReference
    sae: SAEReference
    task: TaskCounts
    strategy: str
    settings: FitSettings
    strength: float
    features: tuple[Feature, ...]
    vectors: tuple[VectorRecord, ...] = ()
    direction: str = ""
    inference: Evidence | None
    outcome: SteeredOutcome | None
    recommended: Recommendation | None
    verdict: Verdict
    strategies: Mapping[ArmName, StrategyRecord]
    select: SearchRecord | None
    seconds: Mapping[str, float]
    peak_memory_mb: float


@dataclass(frozen=True, kw_only=True)
class StrengthRecord(Outcome):
    """A steering at one strength on the test split."""

    strength: float


@dataclass(frozen=True, kw_only=True)
class EvaluationDocument:
    """What `eval` tells: the first strength in full, and every strength.

    Attributes:
        schema, run, model, task, strategy, settings, strength, features, vectors, direction: see
            `RunDocument`; None where the baseline alone was run.
        forced: why the steering is not for this model, where it was forced on it.
        outcome: of the first strength; `baseline`: accuracy without steering.
        strengths: every strength.
        seconds: stage -> seconds; `peak_memory_mb`: the most memory that the process held.
    """

    schema: str
    run: str | None
    model: ModelReference
    task: TaskCounts
    strategy: str | None
    settings: FitSettings | None
    strength: float | None
    forced: str | None
    features: tuple[Feature, ...]
    vectors: tuple[VectorRecord, ...] = ()
    direction: str = ""
    baseline: Accuracy
    outcome: SteeredOutcome | None
    strengths: tuple[StrengthRecord, ...]
    seconds: Mapping[str, float]
    peak_memory_mb: float


@dataclass(frozen=True)
class Training:
    """How a model was fine-tuned.

    Attributes:
        method: full or lora.
        steps: of the optimiser; `epochs`: passes over the samples that they are.
        learning_rate: the highest; `trained_parameters`: how many weights were trained.
        losses: on the way.
    """

    method: str
    steps: int
    epochs: float
    learning_rate: float
    trained_parameters: int
    losses: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class TuningDocument:
    """What `sft` tells: the keys of `train`'s document, those of steering empty.

    Attributes:
        settings: of the training, with the keys of a fit that have no meaning here.
        training: how it went.
        outcome: the tuned model beside the untuned one; there are no controls.
    """

    schema: str
    run: str
    model: ModelReference
    task: TaskCounts
    settings: Mapping[str, Any]
    training: Training
    outcome: SteeredOutcome
    verdict: Verdict
    seconds: Mapping[str, float]
    peak_memory_mb: float
    sae: SAEReference = field(default_factory=lambda: SAEReference(None, {}))
    strategy: str = "sft"
    strength: None = None
    features: tuple[Feature, ...] = ()
    inference: None = None
    recommended: None = None
    strategies: Mapping[str, StrategyRecord] = field(default_factory=dict)
    select: None = None


Document = RunDocument | EvaluationDocument | TuningDocument

_OUTCOME_KEYS = (
    *("baseline", "steered", "delta", "side_effects", "unread", "receipts"),
    "controls",
)


def as_json(document: Document) -> dict[str, Any]:
    """The document as a JSON object, with the outcome's fields among its own."""
    found = dataclasses.asdict(document)
    outcome = found.pop("outcome")
    flat: dict[str, Any] = {**dict.fromkeys(_OUTCOME_KEYS), "guards": {}, "recommended": None}
    flat |= found | (outcome or {})
    return flat | {key: flat[key] or {} for key in EMPTY_OBJECTS if key in flat}


def read_run_document(stored: Mapping[str, Any]) -> RunDocument:
    """A run's document from JSON, also of versions that told less.

    Raises:
        ValueError, KeyError, TypeError: a value is missing or is of another type.
    """
    found: dict[str, Any] = {"sae": {"source": None, "ids": {}}, **stored}
    outcome = {key: found.pop(key, None) for key in _OUTCOME_KEYS}
    outcome["guards"] = found.pop("guards", None) or {}
    there = any(outcome[key] is not None for key in _OUTCOME_KEYS)
    found["outcome"] = outcome if there else None
    for key in ("inference", "select"):
        found[key] = found.get(key) or None
    found["strategies"] = found.get("strategies") or {}
    found["verdict"] = Verdict.read(found["verdict"])
    return _RUN_DOCUMENT.validate_python(found)


_RUN_DOCUMENT = TypeAdapter(RunDocument)
