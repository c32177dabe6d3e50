"""What each kind of cell computes, as JSON without times.

Changes when a part of the study measures something else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from corrsteer.errors import DataError, InsufficientDataError
from corrsteer.execution.units import Execution
from corrsteer.files import own_folder
from corrsteer.lm.known_models import RAW
from corrsteer.lm.models import LanguageModel, find_saes
from corrsteer.lm.saes import SAEHandle
from corrsteer.method import reselect
from corrsteer.method.arms import ArmRunner, runners_of
from corrsteer.method.fit import fit_with, rows_of
from corrsteer.method.train import train
from corrsteer.runs.folder import load_run
from corrsteer.runs.records import as_json
from corrsteer.runs.run import Run
from corrsteer.runs.steering import combine
from corrsteer.settings import MIN_SAMPLES
from corrsteer.studies.fine_tuning import TuningSettings, fine_tune
from corrsteer.studies.paper.arms import Arm, strategies, tried
from corrsteer.studies.paper.cells import UNAVAILABLE
from corrsteer.studies.paper.published import published_features
from corrsteer.studies.paper.settings import StudySettings
from corrsteer.studies.sample_efficiency import Snapshot, sample_efficiency
from corrsteer.tasks import Task

TIMELESS = (
    "model",
    "sae",
    "task",
    "settings",
    "inference",
    "baseline",
    "steered",
    "delta",
    "side_effects",
    "controls",
    "guards",
    "recommended",
    "verdict",
    "strategies",
)
"""Keys of a run's document that are the same however long it took."""

METHODS: tuple[Mapping[str, str], ...] = (
    {"method": "corr", "sign": "positive", "coefficient": "contrast"},
    {"method": "corr", "sign": "both", "coefficient": "positive"},
    {"method": "corr", "sign": "negative", "coefficient": "positive"},
    {"method": "mi", "sign": "positive", "coefficient": "positive"},
    {"method": "fisher", "sign": "positive", "coefficient": "positive"},
    {"method": "contrast", "sign": "positive", "coefficient": "positive"},
)
"""Other ways to select than that of the main runs; see `FitSettings`."""

POOLINGS: Mapping[str, Mapping[str, str]] = {
    "mean": {"pool": "mean", "steer_pool": "mean"},
    "all": {"positions": "all"},
}
"""Other ways to pool than that of the main runs, which take the maximum over generated positions.
`all` takes it over every position, the prompt's too, and steers there; the paper's "all tokens"."""

SMALL = {"log": False, "permutations": 0, "controls": 0}
"""Settings of runs that are compared by their accuracy alone."""


@dataclass(frozen=True)
class StudyContext:
    """What cells are run with.

    Attributes:
        lm: the model with its SAEs.
        settings: of the study.
        execution: how the passes of a cell are done.
    """

    lm: LanguageModel
    settings: StudySettings
    execution: Execution

    def runner(
        self, task: Task, seed: int | None = None, lm: LanguageModel | None = None
    ) -> ArmRunner:
        """The task's test split."""
        settings = self.settings.fit(seed=self.settings.seed if seed is None else seed)
        model = self.lm if lm is None else lm
        (runner,) = runners_of(model, [task], "test", settings.test_limit, settings, self.execution)
        return runner


def main_run(lab: StudyContext, task: Task, guards: Sequence[Task], folder: Path) -> dict[str, Any]:
    """The run of `train` with its defaults, which is written to `folder` too."""
    settings = lab.settings.fit()
    run, document = train(lab.lm, task, guards, settings, folder, execution=lab.execution)
    told = as_json(document)
    return {
        **{name: told[name] for name in TIMELESS},
        "versions": dict(run.provenance.versions),
        "published_features": published_features(lab.lm.id, task.name, run),
    }


def other_methods(lab: StudyContext, task: Task, folder: Path) -> dict[str, Any]:
    """S and A chosen by other methods from the saved statistics of a run."""
    run = replace(load_run(folder), log=None)  # p-values by permutation would not be shown
    arms = []
    for ways in METHODS:
        arms += strategies(reselect.select(run, strategy="A", **ways).steering, **ways)
    return {"arms": tried(lab.runner(task), arms)}


def variant(
    lab: StudyContext, task: Task, lm: LanguageModel | None = None, **changes: Any
) -> dict[str, Any]:
    """S, A and, where that is the strategy asked for, P of a run with other settings."""
    model = lm or lab.lm
    settings = lab.settings.fit(**{**SMALL, "strategy": "A", **changes})
    run = fit_with(model, task, (), settings, execution=lab.execution)
    every_layer = reselect.select(run, strategy="A").steering
    arms = strategies(every_layer)
    if settings.strategy == "P":
        arms.append(Arm({"strategy": "P"}, run.steering))
    return {
        "n_fit": run.counts.n_fit,
        "seed": settings.seed,
        "features": [feature.to_dict() for feature in every_layer.features],
        "arms": tried(lab.runner(task, settings.seed, model), arms),
    }


def raw(lab: StudyContext, task: Task) -> dict[str, Any]:
    """The same by residual dimensions in place of SAE latents."""
    lm = lab.lm
    dimensions = find_saes(RAW, lm.d_model, lm.n_layers, lm.hook_shift)
    return variant(lab, task, replace(lm, saes=dimensions, sae_source=RAW))


def fewer_samples(lab: StudyContext, task: Task, folder: Path) -> dict[str, Any]:
    """What a run would have chosen from fewer of its samples, and what that does."""
    run = load_run(folder)
    if run.log is None:
        raise InsufficientDataError(
            f"{task.name}: {run.log_note}, so it is not "
            "known what fewer samples would have chosen; choose fewer --samples"
        )
    snapshots = sample_efficiency(run)
    arms = snapshot_arms(snapshots, run, lab.lm, lab.lm.saes)
    return {
        "snapshots": [
            {
                "samples": each.samples,
                "agreement": each.agreement,
                "same_best": each.same_best,
                "largest": each.largest,
                "threshold": each.threshold,
            }
            for each in snapshots
        ],
        "arms": tried(lab.runner(task), arms),
    }


def snapshot_arms(
    snapshots: Sequence[Snapshot], run: Run, lm: LanguageModel, handles: Sequence[SAEHandle]
) -> list[Arm]:
    """S and A of every snapshot of a run, at the strength of its settings.

    Args:
        snapshots: labelled by their number of samples.
        run: that they are of.
        lm: the model to steer.
        handles: the run's SAEs.
    """
    rows = rows_of({feature for each in snapshots for feature in each.features}, handles)
    arms = []
    for each in snapshots:
        steering = combine(each.features, rows, lm, run.settings.positions)
        arms += strategies(steering.at(run.settings.strength), samples=each.samples)
    return arms


def transfers(lab: StudyContext, target: Task, folders: Mapping[str, Path]) -> dict[str, Any]:
    """What A and the recommended steering of every task do to one of them."""
    arms = []
    for source, folder in folders.items():
        run = load_run(folder)
        every_layer = reselect.select(replace(run, log=None), strategy="A").steering
        arms.append(Arm({"source": source, "strategy": "A"}, every_layer))
        if run.steering.vectors:
            arms.append(Arm({"source": source, "strategy": "recommended"}, run.steering))
    return {"arms": tried(lab.runner(target), arms)}


def repeated(lab: StudyContext, task: Task, seed: int) -> dict[str, Any]:
    """S, A and P by another seed, from samples of which it draws at most half of the fit split."""
    samples = min(lab.settings.samples, max(len(task.fit) // 2, MIN_SAMPLES))
    return variant(lab, task, strategy="P", seed=seed, samples=samples)


def tuned(lab: StudyContext, task: Task, guards: Sequence[Task]) -> dict[str, Any]:
    """The fine-tuning baseline; the model holds other weights afterwards."""
    settings = TuningSettings(
        method="lora" if lab.settings.lora else "full",
        samples=lab.settings.samples,
        test_limit=lab.settings.test_limit,
        seed=lab.settings.seed,
        batch_size=lab.settings.batch_size,
    )
    with own_folder() as scratch:  # the weights are not asked for
        out = scratch / "tuned"
        try:
            document = fine_tune(
                lab.lm, task, guards, settings, out, progress=lab.execution.progress
            )
        except DataError as error:  # rows without replies to teach
            return {UNAVAILABLE: str(error)}
    keys = ("task", "baseline", "steered", "delta", "side_effects", "guards", "training", "verdict")
    told = as_json(document)
    return {name: told[name] for name in keys}
