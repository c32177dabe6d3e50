"""From a run and its evaluation to what the outside is told of them.

Changes when a document is filled in another way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from corrsteer.lm.models import LanguageModel
from corrsteer.runs.comparison import Comparison
from corrsteer.runs.evaluation import CommonestAnswer, Evaluation
from corrsteer.runs.records import (
    RUN_SCHEMA,
    Controls,
    EvaluationDocument,
    GuardChange,
    ModelReference,
    Outcome,
    RandomControls,
    Recommendation,
    RunDocument,
    SAEReference,
    SteeredOutcome,
    StrategyRecord,
    StrengthRecord,
    TaskCounts,
    VectorRecord,
)
from corrsteer.runs.run import Run
from corrsteer.runs.search import SearchRecord, Trial
from corrsteer.runs.steering import Steering
from corrsteer.runs.verdict import judge, why
from corrsteer.settings import ArmName, FitSettings, Strategy
from corrsteer.tasks import Task
from corrsteer.timing import Stopwatch, peak_memory_mb


def run_document(
    run: Run,
    path: str | None,
    evaluation: Evaluation | None,
    strategies: Mapping[Strategy, Comparison] | None = None,
    prompted: Mapping[ArmName, StrategyRecord] | None = None,
) -> RunDocument:
    """Everything the outside is told of a run.

    Args:
        run: the run.
        path: its folder, or None.
        evaluation: of its steering; None if the test split was not run.
        strategies: strategy -> its steering beside the baseline, for those of `run.candidates`.
        prompted: arms that do not steer.
    """
    made, chosen = run.provenance, run.search.recommended if run.search else None
    return RunDocument(
        schema=RUN_SCHEMA,
        run=path,
        model=ModelReference(made.model, made.revision),
        sae=SAEReference(made.sae_source, made.sae_ids),
        task=TaskCounts(
            made.task,
            made.scorer,
            n_fit=run.counts.n_fit,
            n_select=run.counts.n_select,
            n_test=evaluation.baseline.n if evaluation else 0,
            unscored_fit=run.counts.unscored_fit,
            unscored_test=evaluation.unscored if evaluation else 0,
            unread_test=evaluation.unread[0] if evaluation and evaluation.unread else None,
            commonest=CommonestAnswer.of(evaluation.predictions) if evaluation else None,
        ),
        strategy=run.settings.strategy,
        settings=run.settings,
        strength=run.steering.strength,
        features=run.features,
        vectors=VectorRecord.all_of(run.steering),
        direction=run.steering.direction,
        inference=run.inference,
        outcome=None if evaluation is None else steered_outcome(evaluation),
        recommended=None if chosen is None else Recommendation(chosen.strategy, chosen.strength),
        verdict=judge(
            run.search, evaluation, run.features, run.settings, run.counts.shard, made.scorer
        ),
        strategies={
            name: _strategy(name, run.candidates[name], comparison, run.search, run.settings)
            for name, comparison in (strategies or {}).items()
        }
        | dict(prompted or {}),
        select=run.search,
        seconds=dict(run.counts.seconds),
        peak_memory_mb=peak_memory_mb(),
    )


def prompted_record(how: str, comparison: Comparison) -> StrategyRecord:
    """An arm that asks in another way, beside the baseline.

    Args:
        how: it asks, in words.
        comparison: of the two.
    """
    return StrategyRecord(
        **vars(Outcome.of(comparison)),
        strength=None,
        features=(),
        prompting=how,
        why="no steering, so that it is never recommended",
    )


def steered_outcome(evaluation: Evaluation, controls: bool = True) -> SteeredOutcome:
    """An evaluation as it is told; without `controls` where none could have been drawn."""
    return SteeredOutcome(
        **vars(Outcome.of(evaluation)),
        controls=Controls(RandomControls.of(evaluation.controls)) if controls else None,
        guards={
            name: GuardChange(
                guard.baseline.accuracy, guard.steered.accuracy, guard.delta, guard.baseline.n
            )
            for name, guard in evaluation.guards.items()
        },
    )


def _strategy(
    name: Strategy,
    steering: Steering,
    comparison: Comparison,
    search: SearchRecord | None,
    settings: FitSettings,
) -> StrategyRecord:
    trial = None if search is None else _trial_of(search, name, steering)
    chosen = None if search is None else search.recommended
    return StrategyRecord(
        **vars(Outcome.of(comparison)),
        strength=steering.strength,
        features=steering.features,
        vectors=VectorRecord.all_of(steering),
        direction=steering.direction,
        why=why(trial, chosen, settings.alpha, settings.guard_tolerance)
        if trial or steering.vectors
        else "nothing that it tried helps without harming a guard task",
        guards={} if trial is None else trial.guards,
    )


def _trial_of(search: SearchRecord, name: Strategy, steering: Steering) -> Trial | None:
    """The trial of a strategy's steering."""
    keys = {feature.key for feature in steering.features}
    hooks = {hook.name for hook in steering.vectors}
    return next(
        (
            trial
            for trial in search.trials
            if (trial.strategy, trial.strength) == (name, steering.strength)
            and set(trial.features) == keys
            and set(trial.hook_points) == hooks
        ),
        None,
    )


def evaluation_document(
    run: Run | None,
    path: str | None,
    lm: LanguageModel,
    task: Task,
    arms: Sequence[tuple[Steering, Evaluation]],
    watch: Stopwatch,
) -> EvaluationDocument:
    """What `eval` prints: the first arm in full, and every arm under `strengths`.

    Args:
        run: the run evaluated, or None for the baseline alone.
        path: its folder, or None.
        lm: the model it was evaluated on.
        task: the task it was evaluated on.
        arms: a steering at each strength with its evaluation.
        watch: seconds a stage.
    """
    steering, first = arms[0]
    return EvaluationDocument(
        schema=RUN_SCHEMA,
        run=path,
        model=ModelReference(lm.id, lm.revision),
        task=TaskCounts(
            task.name,
            task.scorer.name,
            n_fit=run.counts.n_fit if run else 0,
            n_select=run.counts.n_select if run else 0,
            n_test=first.baseline.n,
            unscored_test=first.unscored,
            unread_test=first.unread and first.unread[0],
            commonest=CommonestAnswer.of(first.predictions),
        ),
        strategy=run.settings.strategy if run else None,
        settings=run.settings if run else None,
        strength=steering.strength if run else None,
        forced=first.forced,
        features=steering.features,
        vectors=VectorRecord.all_of(steering),
        direction=steering.direction,
        baseline=first.baseline,
        outcome=steered_outcome(first, controls=False) if run else None,
        strengths=tuple(
            StrengthRecord(**vars(Outcome.of(each)), strength=arm.strength)
            for arm, each in arms
            if run
        ),
        seconds=watch.seconds,
        peak_memory_mb=peak_memory_mb(),
    )
