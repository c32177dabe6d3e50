"""The study, top to bottom: its cells in order, each done once.

Changes when the study has another cell. The first cells are the main runs, which others need; the
last are those of fine-tuning, which change the model's weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from corrsteer.errors import SettingsError
from corrsteer.execution.checkpoint import Checkpoint
from corrsteer.execution.units import IN_PROCESS, Execution
from corrsteer.lm.models import LanguageModel
from corrsteer.studies.fine_tuning import check_installed
from corrsteer.studies.paper import parts
from corrsteer.studies.paper.cells import UNAVAILABLE, Cells, cell_key
from corrsteer.studies.paper.results import Study
from corrsteer.studies.paper.settings import StudySettings
from corrsteer.tasks import Task

NO_SFT = (
    "The fine-tuning rows are left out, as TRL, PEFT and accelerate are not installed: "
    "pip install 'corrsteer[sft]' and give the same command again, which goes on from here."
)

Doing = Callable[[Checkpoint], Mapping[str, Any]]
Guarded = tuple[Task, Sequence[Task]]


@dataclass(frozen=True)
class Materials:
    """How a study gets what it is done with.

    Attributes:
        model: loads the model; asked for once, and again after each fine-tuning.
        task: the task of a name with its guards, their splits cut by a seed.
    """

    model: Callable[[], LanguageModel]
    task: Callable[[str, int], Guarded]


def run_study(
    cells: Cells,
    model: str,
    tasks: Sequence[str],
    settings: StudySettings,
    materials: Materials,
    execution: Execution = IN_PROCESS,
) -> Study:
    """Every cell of the study; those that are done already are taken as they are.

    Args:
        cells: where results are kept.
        model: known name, hub id or folder.
        tasks: names of one or more tasks.
        settings: of the study.
        materials: model and tasks.
        execution: how the passes of each cell are done.

    Raises:
        SettingsError: no task, or two whose files would have the same names.
        CorrSteerError: a cell cannot be done; those before it are kept.
    """
    if len({cell_key("main", name) for name in tasks}) < len(tasks) or not tasks:
        raise SettingsError(f"tasks is {','.join(tasks)}; give one or more of different names")
    study = _Studying(cells, tasks, settings, materials, execution)
    if any(cells.get(cell_key("main", name)) is None for name in tasks):
        for name in tasks:  # so that one that cannot be had stops the study at its start
            study.task(name)
    with cells.held(), execution.progress.stage("study", study.most_cells) as advance:
        for key, doing in study.cells():
            study.results[key] = cells.done(key, doing)
            advance(1)
    notes = (NO_SFT,) if settings.wanted("sft") and not study.tunes else ()
    return Study(model, tuple(tasks), settings, study.results, notes)


class _Studying:
    """A study being run: its cells in order, with model and tasks loaded when first needed.

    Attributes:
        results: of the cells so far, by key.
        tunes: whether it has cells of fine-tuning.
    """

    def __init__(
        self,
        cells: Cells,
        tasks: Sequence[str],
        settings: StudySettings,
        materials: Materials,
        execution: Execution,
    ):
        self.results: dict[str, dict[str, Any]] = {}
        self.tunes = settings.wanted("sft") and _can_tune()
        self._cells, self._names, self._settings = cells, tasks, settings
        self._materials, self._execution = materials, execution
        self._lm: LanguageModel | None = None
        self._tasks: dict[tuple[str, int], Guarded] = {}

    @property
    def most_cells(self) -> int:
        """How many cells there are if every task can be used."""
        wanted = self._settings.wanted
        each = sum(map(wanted, ("methods", "raw", "samples", "transfer"))) + self.tunes
        each += wanted("pooling") * len(parts.POOLINGS)
        each += wanted("seeds") * len(self._settings.seeds)
        return len(self._names) * (1 + each)

    def cells(self) -> Iterator[tuple[str, Doing]]:
        """The key of each cell and what does it; after the main runs, of tasks that have one."""
        for name in self._names:
            yield cell_key("main", name), partial(self._main, name)
        names = [n for n in self._names if UNAVAILABLE not in self.results[cell_key("main", n)]]
        wanted, folders = self._settings.wanted, {name: self._folder(name) for name in names}
        for name in names:
            if wanted("methods"):
                yield self._cell("methods", name, parts.other_methods, folders[name])
            for pooling, changes in parts.POOLINGS.items() if wanted("pooling") else ():
                yield self._cell(f"pool-{pooling}", name, parts.variant, **changes)
            if wanted("raw"):
                yield self._cell("raw", name, parts.raw)
            if wanted("samples"):
                yield self._cell("samples", name, parts.fewer_samples, folders[name])
        for name in names if wanted("transfer") else ():
            yield self._cell("transfer", name, parts.transfers, folders)
        for name in names if wanted("seeds") else ():
            for seed in self._settings.seeds:
                yield cell_key(f"seed-{seed}", name), partial(self._repeated, name, seed)
        for name in names if self.tunes else ():
            yield cell_key("sft", name), partial(self._tuned, name)

    def task(self, name: str, seed: int | None = None) -> Guarded:
        """A task with its guards, loaded once for each seed."""
        seed = self._settings.seed if seed is None else seed
        if (name, seed) not in self._tasks:
            self._tasks[name, seed] = self._materials.task(name, seed)
        return self._tasks[name, seed]

    def _cell(
        self,
        part: str,
        name: str,
        execution: Callable[..., Mapping[str, Any]],
        *given: Any,
        **more: Any,
    ) -> tuple[str, Doing]:
        def doing(kept: Checkpoint) -> Mapping[str, Any]:
            return execution(self._lab(kept), self.task(name)[0], *given, **more)

        return cell_key(part, name), doing

    def _folder(self, name: str) -> Path:
        return self._cells.run_folder(cell_key("main", name))

    def _main(self, name: str, kept: Checkpoint) -> Mapping[str, Any]:
        return parts.main_run(self._lab(kept), *self.task(name), self._folder(name))

    def _repeated(self, name: str, seed: int, kept: Checkpoint) -> Mapping[str, Any]:
        return parts.repeated(self._lab(kept), self.task(name, seed)[0], seed)

    def _tuned(self, name: str, kept: Checkpoint) -> Mapping[str, Any]:
        lab, self._lm = self._lab(kept), None
        return parts.tuned(lab, *self.task(name))

    def _lab(self, kept: Checkpoint) -> parts.StudyContext:
        if self._lm is None:
            self._lm = self._materials.model()
        return parts.StudyContext(
            self._lm, self._settings, replace(self._execution, checkpoint=kept)
        )


def _can_tune() -> bool:
    try:
        check_installed()
    except SettingsError:
        return False
    return True
