"""The main job: fit, evaluate every strategy on the test split, and write the run.

Changes when `train` does another step.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from corrsteer.execution.units import IN_PROCESS, Execution
from corrsteer.lm.models import LanguageModel
from corrsteer.method.arms import ArmRunner, runners_of
from corrsteer.method.controls import random_controls, random_directions, searched
from corrsteer.method.evaluation import evaluate_on
from corrsteer.method.fit import fit_with, spent
from corrsteer.method.prompting import posed
from corrsteer.method.receipts import receipts_of
from corrsteer.method.splitting import SelectSplit
from corrsteer.progress import Progress
from corrsteer.runs.comparison import Comparison, Responses, compare
from corrsteer.runs.content import Extent
from corrsteer.runs.digests import digest_of
from corrsteer.runs.document import prompted_record, run_document
from corrsteer.runs.evaluation import Evaluation
from corrsteer.runs.explanations import explain, with_explanations
from corrsteer.runs.folder import claim_folder, load_run
from corrsteer.runs.records import RunDocument, StrategyRecord
from corrsteer.runs.run import Run
from corrsteer.runs.statistics_file import STATISTICS_FILE
from corrsteer.runs.steering import Steering
from corrsteer.settings import ArmName, FitSettings, Strategy
from corrsteer.stats.correlation import StreamingCorrelation
from corrsteer.tasks import Task
from corrsteer.timing import Stopwatch


@dataclass(frozen=True)
class Steps:
    """Which steps `train` takes beyond the fit.

    Attributes:
        evaluated: whether the test split is run.
        explained: whether it is looked up what the chosen features are said to stand for.
        collected: folder of a run whose statistics are taken in place of collecting.
        neutral: texts that steering should leave as they are; ours if there are none.
    """

    evaluated: bool = True
    explained: bool = False
    collected: Path | None = None
    neutral: tuple[str, ...] = ()

    @property
    def neutral_digest(self) -> str:
        """What tells a user's neutral texts from others; "" for ours."""
        return digest_of("\0".join(self.neutral).encode()) if self.neutral else ""


def train(
    lm: LanguageModel,
    task: Task,
    guards: Sequence[Task],
    settings: FitSettings,
    out: Path,
    *,
    steps: Steps | None = None,
    execution: Execution = IN_PROCESS,
    watch: Stopwatch | None = None,
) -> tuple[Run, RunDocument]:
    """A fitted run, evaluated unless asked not to, and written to `out`; and what is told of it.

    Args:
        lm: a model with SAEs.
        task: what to steer for.
        guards: tasks that it should not harm.
        settings: of the fit.
        out: folder of the run; checked before anything else is done.
        steps: which steps are taken; the usual ones if None.
        execution: how its passes are done.
        watch: adds up seconds a stage.

    Raises:
        CorrSteerError: anything that cannot be used; nothing is written then.
    """
    steps = steps or Steps()
    claim_folder(out)
    unsteered = posed(task, settings) if steps.evaluated else {}
    tasks = (task, *guards) if steps.evaluated else ()
    runners = runners_of(lm, tasks, "test", settings.test_limit, settings, execution)
    asked = {arm: runners[0].posed(each.samples, arm) for arm, each in unsteered.items()}
    collected = load_run(steps.collected) if steps.collected else None
    watch = watch or Stopwatch()
    run = fit_with(
        lm,
        task,
        guards,
        settings,
        collected=collected,
        execution=execution,
        watch=watch,
    )
    run.extent = Extent(
        execution.unit_samples,
        collected_digest(steps.collected),
        steps.evaluated,
        steps.explained,
        steps.neutral_digest,
    )
    if steps.collected:
        run.counts = dataclasses.replace(run.counts, collected=str(steps.collected))
    if steps.explained:
        _look_up(run, execution.progress)
    if steps.evaluated:
        with watch.timing("evaluate"):
            own = spent(task, settings, collected)
            select = SelectSplit.of(lm, own, settings, execution)
            evaluation = _evaluate(run, lm, runners, select)
            replies = runners[0].steered(list(run.candidates.values()), "strategies")
            prompted: dict[ArmName, StrategyRecord] = {
                arm: prompted_record(unsteered[arm].how, _beside(runners[0], each))
                for arm, each in asked.items()
            }
        with watch.timing("receipts"):
            evaluation, strategies = _with_receipts(run, runners[0], evaluation, replies, steps)
        run.predictions = evaluation.predictions
        run.evaluation = document = run_document(run, str(out), evaluation, strategies, prompted)
    else:
        document = run_document(run, str(out), None)
    run.save(out)
    return run, document


def collected_digest(folder: Path | None) -> str:
    """What tells a run's statistics from others; "" where none are taken over."""
    if folder is None or not (folder / STATISTICS_FILE).exists():
        return ""
    with (folder / STATISTICS_FILE).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _look_up(run: Run, progress: Progress) -> None:
    """Give the features of every strategy of a run their explanations."""
    steerings = [run.steering, *run.candidates.values()]
    found = explain((f for steering in steerings for f in steering.features), progress)
    run.steering, *candidates = (
        dataclasses.replace(steering, features=with_explanations(steering.features, found))
        for steering in steerings
    )
    run.candidates = dict(zip(run.candidates, candidates, strict=True))
    run.features = run.steering.features


def _evaluate(
    run: Run, lm: LanguageModel, runners: Sequence[ArmRunner], select: SelectSplit
) -> Evaluation:
    """The run's steering with its random controls, which had the same search, and its guards."""
    controls = draw_controls(run.steering, run.statistics, lm, run.settings)
    controls = searched(controls, select, run.settings)
    return evaluate_on(runners[0], run.steering, controls, runners[1:])


def _with_receipts(
    run: Run,
    runner: ArmRunner,
    evaluation: Evaluation,
    replies: Sequence[Responses],
    steps: Steps,
) -> tuple[Evaluation, dict[Strategy, Comparison]]:
    """The evaluation, and every strategy beside the baseline, with what each costs."""
    own = [prediction.steered_text for prediction in evaluation.predictions]
    texts = (each.texts for each in replies)
    arms = [(run.steering, own), *zip(run.candidates.values(), texts, strict=True)]
    first, *others = receipts_of(runner, arms, steps.neutral)
    comparisons = (compare(runner.baseline, each, runner.groups) for each in replies)
    strategies = {
        name: dataclasses.replace(comparison, receipts=receipts)
        for name, comparison, receipts in zip(run.candidates, comparisons, others, strict=True)
    }
    return dataclasses.replace(evaluation, receipts=first), strategies


def _beside(runner: ArmRunner, other: ArmRunner) -> Comparison:
    """The same samples posed in another way, beside the baseline."""
    return compare(runner.baseline, other.baseline, runner.groups)


def draw_controls(
    steering: Steering,
    statistics: Mapping[str, StreamingCorrelation],
    lm: LanguageModel,
    settings: FitSettings,
) -> list[Steering]:
    """Random controls of a steering; none of one that adds nothing."""
    if not steering.vectors or not settings.controls:
        return []
    if steering.direction:
        return random_directions(steering, settings.controls, settings.seed)
    return random_controls(steering, statistics, lm.saes, settings.controls, settings.seed)
