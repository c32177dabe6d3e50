"""A steering beside the baseline on the test split, with its controls and guards.

Changes when an evaluation says more.
"""

from __future__ import annotations

from collections.abc import Sequence

from corrsteer.execution.units import IN_PROCESS, Execution
from corrsteer.lm.models import LanguageModel
from corrsteer.method.arms import ArmRunner
from corrsteer.runs.comparison import Responses, compare
from corrsteer.runs.evaluation import Evaluation, Prediction
from corrsteer.runs.steering import Steering, mismatch
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
    limit: int | None = None,
    seed: int = 42,
    batch_size: int = 32,
    execution: Execution = IN_PROCESS,
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
        execution: how its passes are done.
        force: steer a model that the steering was not made for; `Evaluation.forced` then says why
            it is not.

    Raises:
        DataError: the test split is empty.
        InsufficientDataError: no reply could be judged.
    """

    def runner(each: Task) -> ArmRunner:
        return ArmRunner(
            lm,
            each,
            "test",
            limit=limit,
            seed=seed,
            batch_size=batch_size,
            execution=execution,
            force=force,
        )

    if steering is None:
        steering = Steering({}, (), lm.id, lm.revision)
    elif strength is not None:
        steering = steering.at(strength)
    return evaluate_on(runner(task), steering, controls, [runner(guard) for guard in guards])


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
    )


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
