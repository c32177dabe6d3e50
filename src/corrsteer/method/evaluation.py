"""A steering beside the baseline on the test split, with its controls and guards.

Changes when an evaluation says more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import numpy as np

from corrsteer.lm.models import LanguageModel
from corrsteer.method.arms import ArmRunner, RunnerKeywords
from corrsteer.runs.comparison import Responses, compare
from corrsteer.runs.evaluation import Evaluation, Prediction, RatedLikelihoods
from corrsteer.runs.steer import mismatch
from corrsteer.runs.steering import Steering
from corrsteer.samples import Sample
from corrsteer.stats import metrics
from corrsteer.tasks import Task


def evaluate(
    lm: LanguageModel,
    task: Task,
    steering: Steering | None = None,
    strength: float | None = None,
    *,
    controls: Sequence[Steering] = (),
    guards: Sequence[Task] = (),
    **passes: Unpack[RunnerKeywords],
) -> Evaluation:
    """Accuracy and side effects of a steering on a task's test split.

    Args:
        lm: the model.
        task: whose test split is run.
        steering: None for the baseline alone.
        strength: the steering's own if None.
        controls: random-feature controls to run too.
        guards: other tasks whose test splits are run with and without the steering.
        passes: how the splits are run; see `RunnerKeywords`.

    Raises:
        DataError: the test split is empty.
        InsufficientDataError: no reply could be judged.
    """
    if steering is None:
        steering = Steering({}, (), lm.id, lm.revision)
    elif strength is not None:
        steering = steering.at(strength)
    own, *others = (ArmRunner(lm, each, "test", **passes) for each in (task, *guards))
    return evaluate_on(own, steering, controls, others)


def evaluate_on(
    runner: ArmRunner,
    steering: Steering,
    controls: Sequence[Steering] = (),
    guards: Sequence[ArmRunner] = (),
) -> Evaluation:
    """The same on splits that may have been used before, so that baselines run once."""
    steered, *random = runner.steered([steering, *controls], f"{1 + len(controls)} arms")
    comparison = compare(runner.baseline, steered, runner.groups)
    return Evaluation(
        baseline=comparison.baseline,
        steered=comparison.steered,
        delta=comparison.delta,
        side_effects=comparison.side_effects,
        unscored=comparison.unscored,
        controls=tuple(control_accuracy(responses) for responses in random),
        guards={guard.task.name: guard.compare([steering], "guard")[0] for guard in guards},
        predictions=predictions(runner.samples, runner.baseline, steered),
        forced=mismatch(runner.lm, steering),
        unread=comparison.unread,
        likelihoods=_likelihoods(runner.samples, runner.baseline, steered),
    )


def _likelihoods(
    samples: Sequence[Sample], baseline: Responses, steered: Responses
) -> RatedLikelihoods | None:
    """The likelihood of good replies and of others; None where replies were generated."""
    if baseline.likelihoods is None or steered.likelihoods is None:
        return None
    marks = np.array([s.rated.outcome if s.rated else None for s in samples], dtype=np.float64)
    arms = np.exp(np.stack([baseline.likelihoods, steered.likelihoods]))
    known = ~np.isnan(marks) & ~np.isnan(arms).any(0)
    good = marks > marks[known].mean()
    found = [arms[:, known & part].mean(1).tolist() for part in (good, ~good)]
    return RatedLikelihoods((found[0][0], found[0][1]), (found[1][0], found[1][1]))


def control_accuracy(responses: Responses) -> float:
    """Mean outcome over the replies that could be judged."""
    outcomes = responses.outcomes
    return metrics.accuracy(outcomes[outcomes == outcomes]).accuracy


def predictions(
    samples: Sequence[Sample], baseline: Responses, steered: Responses
) -> tuple[Prediction, ...]:
    """Each sample with both arms' replies."""
    return tuple(
        Prediction(
            id=sample.id,
            prompt=sample.text,
            target=sample.target,
            baseline_text=before,
            baseline_answer=was.answer,
            baseline_outcome=was.outcome,
            steered_text=after,
            steered_answer=now.answer,
            steered_outcome=now.outcome,
        )
        for sample, before, was, after, now in zip(
            samples, baseline.texts, baseline.scores, steered.texts, steered.scores, strict=True
        )
    )
