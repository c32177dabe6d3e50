"""The JSON document of a run: what `--json` prints and `evaluation.json` holds.

Changes when the outside is told more. Keys that exist keep their meaning.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from corrsteer.lm.models import LanguageModel
from corrsteer.runs.comparison import Comparison
from corrsteer.runs.evaluation import Evaluation
from corrsteer.runs.run import SCHEMA, Run
from corrsteer.runs.steering import Steering
from corrsteer.tasks import Task
from corrsteer.timing import Stopwatch, peak_memory_mb


def run_document(
    run: Run,
    path: str | None,
    evaluation: Evaluation | None,
    strategies: Mapping[str, Comparison] | None = None,
    task_name: str | None = None,
) -> dict[str, Any]:
    """Everything the outside is told of a run.

    Args:
        run: the run.
        path: its folder, or None.
        evaluation: of its steering; None if the test split was not run.
        strategies: strategy -> its steering beside the baseline, for those of `run.candidates`.
        task_name: the task evaluated on, if not the run's own.
    """
    settings = dataclasses.asdict(run.settings)
    recommended = run.search.get("recommended")
    return {
        "schema": SCHEMA,
        "run": path,
        "model": {"id": run.provenance.model, "revision": run.provenance.revision},
        "sae": {"source": run.provenance.sae_source, "ids": dict(run.provenance.sae_ids)},
        "task": {
            "name": task_name or run.provenance.task,
            "scorer": run.provenance.scorer,
            "n_fit": run.counts.n_fit,
            "n_select": run.counts.n_select,
            "n_test": evaluation.baseline.n if evaluation else 0,
            "unscored_fit": run.counts.unscored_fit,
            "unscored_test": evaluation.unscored if evaluation else 0,
        },
        "strategy": run.settings.strategy,
        "settings": settings,
        "strength": run.steering.strength,
        "features": [feature.to_dict() for feature in run.features],
        "inference": run.inference,
        **outcome_document(evaluation),
        "recommended": recommended
        and {"strategy": recommended["strategy"], "strength": recommended["strength"]},
        "verdict": verdict(run, evaluation),
        "strategies": {
            name: {
                "strength": run.candidates[name].strength,
                "features": [feature.to_dict() for feature in run.candidates[name].features],
                **comparison_document(comparison),
            }
            for name, comparison in (strategies or {}).items()
        },
        "select": run.search,
        "seconds": dict(run.counts.seconds),
        "peak_memory_mb": peak_memory_mb(),
    }


def outcome_document(evaluation: Evaluation | None) -> dict[str, Any]:
    """Baseline, steered arm, controls and guards; null where they were not run."""
    if evaluation is None:
        nothing = ("baseline", "steered", "delta", "side_effects", "controls")
        return {**dict.fromkeys(nothing), "guards": {}}
    return {
        **comparison_document(evaluation),
        "controls": {"random": controls_document(evaluation.controls)},
        "guards": {
            name: {
                "baseline": guard.baseline.accuracy,
                "steered": guard.steered.accuracy,
                "delta": dataclasses.asdict(guard.delta),
                "n": guard.baseline.n,
            }
            for name, guard in evaluation.guards.items()
        },
    }


def comparison_document(evaluation: Evaluation | Comparison) -> dict[str, Any]:
    """Both accuracies, their difference and the side effects."""
    return {
        name: dataclasses.asdict(getattr(evaluation, name))
        for name in ("baseline", "steered", "delta", "side_effects")
    }


def controls_document(accuracies: Sequence[float]) -> dict[str, Any]:
    """The random controls' best and mean accuracy; null where there was no draw."""
    draws = len(accuracies)
    return {
        "draws": draws,
        "best": max(accuracies) if draws else None,
        "mean": sum(accuracies) / draws if draws else None,
        "accuracies": list(accuracies),
    }


def verdict(run: Run, evaluation: Evaluation | None) -> str:
    """The outcome of the run in one sentence.

    Steering is called reliable only if it was recommended on the select split, its interval on
    the test split excludes zero, and it beats every random control.
    """
    if run.counts.shard:
        return f"Part {run.counts.shard} is collected: `corrsteer merge` adds up all parts."
    if not run.search:
        return "Not tried yet: chosen from saved statistics; `corrsteer eval` says what it does."
    recommended = run.search.get("recommended")
    if recommended is None:
        return "No reliable effect: no setting tried is significantly above the baseline " + (
            "on the select split without harming a guard task."
        )
    setting = f"strategy {recommended['strategy']} at strength {recommended['strength']:g}"
    if evaluation is None:
        return f"Recommended on the select split: {setting}; not evaluated on the test split yet."
    points = 100 * evaluation.delta.value
    low, high = (100 * bound for bound in evaluation.delta.ci)
    change = f"{points:+.1f} points [{low:+.1f}, {high:+.1f}]"
    if low <= 0:
        return f"Not confirmed: {setting} changes test accuracy by {change}, which may be nothing."
    if evaluation.controls and max(evaluation.controls) >= evaluation.steered.accuracy:
        return (
            f"Not specific: {setting} changes test accuracy by {change}, but a random control of "
            "the same size does as well."
        )
    return f"Steering helps: {setting} changes test accuracy by {change}."


def evaluation_document(
    run: Run | None,
    path: str | None,
    lm: LanguageModel,
    task: Task,
    arms: Sequence[tuple[Steering, Evaluation]],
    watch: Stopwatch,
) -> dict[str, Any]:
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
    steered = run is not None
    outcome = comparison_document(first)
    if not steered:
        outcome |= dict.fromkeys(("steered", "delta", "side_effects"))
    return {
        "schema": SCHEMA,
        "run": path,
        "model": {"id": lm.id, "revision": lm.revision},
        "task": {
            "name": task.name,
            "scorer": task.scorer.name,
            "n_fit": run.counts.n_fit if run else 0,
            "n_select": run.counts.n_select if run else 0,
            "n_test": first.baseline.n,
            "unscored_test": first.unscored,
        },
        "strategy": run.settings.strategy if run else None,
        "settings": dataclasses.asdict(run.settings) if run else {},
        "strength": steering.strength if steered else None,
        "forced": first.forced,
        "features": [feature.to_dict() for feature in steering.features],
        **outcome,
        "strengths": [
            {"strength": arm.strength, **comparison_document(evaluation)}
            for arm, evaluation in arms
            if steered
        ],
        "recommended": None,
        "controls": None,
        "guards": {},
        "seconds": watch.seconds,
        "peak_memory_mb": peak_memory_mb(),
    }
