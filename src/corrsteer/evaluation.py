"""A steering beside the baseline on the test split, with its controls and guards.

Changes when an evaluation says more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from corrsteer import metrics
from corrsteer.bench import Bench, Comparison, Responses, compare
from corrsteer.metrics import Accuracy, Delta, SideEffects
from corrsteer.models import LanguageModel
from corrsteer.notebook import accuracy, overview
from corrsteer.samples import Sample
from corrsteer.steering import Steering, mismatch
from corrsteer.tasks import Task
from corrsteer.work import WORK, Work


@dataclass(frozen=True)
class Evaluation:
    """What steering does to a task's test split.

    Attributes:
        baseline: accuracy without steering.
        steered: with it; the baseline's own where there is no steering.
        delta: steered minus baseline.
        side_effects: SER with its counts.
        unscored: samples left out because a reply could not be judged.
        controls: accuracies under random-feature controls.
        guards: guard task -> comparison on its own test split.
        predictions: a row a sample: prompt, target, and both arms' text, answer and outcome.
        forced: why the steering is not for this model, where it was forced on it; else None.
    """

    baseline: Accuracy
    steered: Accuracy
    delta: Delta
    side_effects: SideEffects
    unscored: int
    controls: tuple[float, ...] = ()
    guards: Mapping[str, Comparison] = field(default_factory=dict)
    predictions: tuple[dict[str, Any], ...] = field(default=(), repr=False)
    forced: str | None = None

    def _repr_html_(self) -> str:
        effects = self.side_effects
        facts = {
            "baseline": accuracy(self.baseline.accuracy, self.baseline.ci),
            "steered": accuracy(self.steered.accuracy, self.steered.ci),
            "change": f"{100 * self.delta.value:+.1f} points",
            "SER": None if effects.ser is None else f"{effects.ser:.2f}",
            "improved, worsened": f"{effects.improved}, {effects.worsened} of {self.baseline.n}",
        }
        if self.controls:
            facts["best of random controls"] = f"{100 * max(self.controls):.1f} %"
        return overview("Evaluation", facts)


def evaluate(
    lm: LanguageModel,
    task: Task,
    steering: Steering | None = None,
    strength: float | None = None,
    *,
    controls: Sequence[Steering] = (),
    guards: Sequence[Task] = (),
    limit: int | None = None,
    seed: int = 42,
    batch_size: int = 32,
    work: Work = WORK,
    force: bool = False,
) -> Evaluation:
    """Accuracy and side effects of a steering on a task's test split.

    Args:
        lm: the model.
        task: whose test split is run.
        steering: None for the baseline alone.
        strength: the steering's own if None.
        controls: random-feature controls to run too.
        guards: other tasks whose test splits are run with and without the steering.
        limit: at most this many samples of each split, drawn by `seed`.
        seed: of that draw.
        batch_size: prompts run at once.
        work: how its passes are done.
        force: steer a model that the steering was not made for; `Evaluation.forced` then says why
            it is not.

    Raises:
        DataError: the test split is empty.
        InsufficientDataError: no reply could be judged.
    """

    def bench(each: Task) -> Bench:
        return Bench(
            lm,
            each,
            "test",
            limit=limit,
            seed=seed,
            batch_size=batch_size,
            work=work,
            force=force,
        )

    if steering is None:
        steering = Steering({}, (), lm.id, lm.revision)
    elif strength is not None:
        steering = steering.at(strength)
    return evaluate_on(bench(task), steering, controls, [bench(guard) for guard in guards])


def evaluate_on(
    bench: Bench,
    steering: Steering,
    controls: Sequence[Steering] = (),
    guards: Sequence[Bench] = (),
) -> Evaluation:
    """The same on benches that may have been used before, so that baselines run once."""
    steered, *random = bench.steered([steering, *controls], f"{1 + len(controls)} arms")
    comparison = compare(bench.baseline, steered)
    return Evaluation(
        baseline=comparison.baseline,
        steered=comparison.steered,
        delta=comparison.delta,
        side_effects=comparison.side_effects,
        unscored=comparison.unscored,
        controls=tuple(control_accuracy(responses) for responses in random),
        guards={guard.task.name: guard.compare([steering], "guard")[0] for guard in guards},
        predictions=tuple(predictions(bench.samples, bench.baseline, steered)),
        forced=mismatch(bench.lm, steering),
    )


def control_accuracy(responses: Responses) -> float:
    """Mean outcome over the replies that could be judged."""
    outcomes = responses.outcomes
    return metrics.accuracy(outcomes[outcomes == outcomes]).accuracy


def predictions(
    samples: Sequence[Sample], baseline: Responses, steered: Responses
) -> list[dict[str, Any]]:
    """A row a sample with both arms' text, answer and outcome (None where it is not judged)."""
    return [
        {
            "id": sample.id,
            "prompt": sample.text,
            "target": list(sample.target),
            **_arm("baseline", baseline, index),
            **_arm("steered", steered, index),
        }
        for index, sample in enumerate(samples)
    ]


def _arm(name: str, responses: Responses, index: int) -> dict[str, Any]:
    score = responses.scores[index]
    return {
        f"{name}_text": responses.texts[index],
        f"{name}_answer": score.answer,
        f"{name}_outcome": score.outcome,
    }
