"""What steering for one task does to others: source x target, on the targets' test splits.

Changes when a transfer says more of a pair.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from corrsteer.errors import ArtifactError
from corrsteer.execution.units import IN_PROCESS, Execution
from corrsteer.lm.models import LanguageModel
from corrsteer.method.arms import ArmRunner
from corrsteer.runs.comparison import Comparison, compare
from corrsteer.runs.run import Run
from corrsteer.stats.metrics import Accuracy
from corrsteer.tasks import Task


@dataclass(frozen=True)
class Transfer:
    """What each run's steering does to each task.

    Attributes:
        baselines: task -> its accuracy without steering, over every sample that could be judged.
        cells: run -> task -> the steered arm beside the baseline.
    """

    baselines: dict[str, Accuracy]
    cells: dict[str, dict[str, Comparison]]


def check_same_model(runs: Mapping[str, Run]) -> None:
    """Refuse runs of different models.

    Raises:
        ArtifactError: names the first two that differ.
    """
    (name, first), *others = runs.items()
    for other, run in others:
        one, two = (
            f"{each.provenance.model} at {each.provenance.revision or 'no commit'}"
            for each in (first, run)
        )
        if one != two:
            raise ArtifactError(
                f"{other} was made on {two}, but {name} on {one}; transfer runs of one model only"
            )


def transfer(
    lm: LanguageModel,
    runs: Mapping[str, Run],
    tasks: Sequence[Task],
    *,
    limit: int | None = None,
    seed: int = 42,
    batch_size: int = 32,
    execution: Execution = IN_PROCESS,
) -> Transfer:
    """Every run's steering on every task's test split, at its own strength.

    A task's baseline is run once, and all steerings share its prompts. A cell is what `evaluate`
    gives for that steering and task.

    Args:
        lm: the model of the runs.
        runs: name or folder -> run; one or more.
        tasks: to try them on, of different names.
        limit: at most this many samples of each test split, drawn by `seed`.
        seed: of that draw.
        batch_size: prompts run at once.
        execution: how its passes are done.

    Raises:
        ArtifactError: runs of different models, or of another than `lm`.
        DataError: a test split is empty.
        InsufficientDataError: no reply could be judged.
    """
    check_same_model(runs)
    runners = [
        ArmRunner(
            lm, task, "test", limit=limit, seed=seed, batch_size=batch_size, execution=execution
        )
        for task in tasks
    ]
    steerings = [run.steering for run in runs.values()]
    baselines: dict[str, Accuracy] = {}
    cells: dict[str, dict[str, Comparison]] = {name: {} for name in runs}
    for runner in runners:
        found = runner.compare(steerings, f"{len(runs)} sources")
        for name, comparison in zip(runs, found, strict=True):
            cells[name][runner.task.name] = comparison
        unsteered = compare(runner.baseline, runner.baseline, runner.groups)
        baselines[runner.task.name] = unsteered.baseline
    return Transfer(baselines, cells)
