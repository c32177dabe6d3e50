"""What `corrsteer transfer` does and prints.

Changes when an option of it means something else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from corrsteer.cli.common import (
    emit,
    execution_by,
    model_asked,
    model_of,
    quietly,
    task_again,
    unfinished_reading,
)
from corrsteer.cli.options import ModelOptions, TaskSetup, TransferOptions, names_in
from corrsteer.cli.output import VisibleConsole
from corrsteer.cli.terminal import TerminalProgress, add_arm, arm_table, print_arms
from corrsteer.errors import SettingsError
from corrsteer.lm.models import LanguageModel
from corrsteer.method.provenance import check_own_model, is_own_task, reading_header
from corrsteer.runs.folder import load_run
from corrsteer.runs.records import Outcome
from corrsteer.runs.run import Run
from corrsteer.stats.metrics import Delta
from corrsteer.studies.transfer import Transfer, check_same_model, transfer
from corrsteer.tasks import Task

SCHEMA = "corrsteer.transfer/1"


def run_transfer(options: TransferOptions) -> None:
    """`corrsteer transfer`."""
    runs = {name: load_run(name) for name in options.runs}
    check_same_model(runs)
    names = _task_names(runs, options.tasks)
    seed = _seed(runs, options.seed)
    setup = TaskSetup(data=options.data, seed=seed)
    tasks = [_task(name, runs, options.tasks is not None, setup) for name in names]
    asked = ModelOptions(
        model=options.model,
        revision=options.revision,
        dtype=options.dtype,
        device=options.device,
    )
    first = next(iter(runs.values()))
    with (
        quietly(),
        unfinished_reading(options, options.runs[0], options.resume) as checkpoint,
        TerminalProgress() as progress,
        execution_by(options.engine, progress, checkpoint) as execution,
    ):
        if not options.model:
            for run in runs.values():
                check_own_model(run)
        with progress.stage("load model", None):
            lm = model_asked(
                model_of(first, asked),
                names[0],
                engine=options.engine.engine,
                prepend_bos=first.provenance.prepend_bos,
            )
        if checkpoint is not None:
            checkpoint.open(reading_header(lm.facts))
        found = transfer(
            lm,
            runs,
            tasks,
            limit=options.test_limit,
            seed=seed,
            batch_size=options.batch_size,
            execution=execution,
        )
    document = _document(found, lm, runs, tasks, seed)
    emit(document, options.as_json, lambda _: _print_transfer(found, lm, runs))


def _task_names(runs: Mapping[str, Run], given: str | None) -> list[str]:
    """The tasks asked for, each once; the runs' own by default.

    Raises:
        SettingsError: there are none.
    """
    own = (run.provenance.task for run in runs.values())
    names = [name for name in dict.fromkeys(names_in(given) or own) if name]
    if not names:
        raise SettingsError("which tasks? give --tasks T,T; see `corrsteer tasks`")
    return names


def _seed(runs: Mapping[str, Run], given: int | None) -> int:
    """The seed of the splits: with another than a run's own, it could be tested on what it saw.

    Raises:
        SettingsError: the runs have different ones.
    """
    seeds = {run.settings.seed: name for name, run in runs.items()}
    if given is None and len(seeds) > 1:
        told = " and ".join(f"{seed} ({name})" for seed, name in seeds.items())
        raise SettingsError(
            f"the runs have seeds {told}, so what one was fitted on may be in another's test "
            "split; give --seed if the tasks' splits do not depend on it"
        )
    return next(iter(seeds)) if given is None else given


def _task(name: str, runs: Mapping[str, Run], given: bool, setup: TaskSetup) -> Task:
    """The task, asked for as the runs that are of it asked for it.

    Raises:
        SettingsError: they asked for it in different ways.
    """
    own = {where: run for where, run in runs.items() if is_own_task(run, name)}
    asked = [
        (made.task_options, made.scorer, made.max_new_tokens)
        for made in (run.provenance for run in own.values())
    ]
    if any(each != asked[0] for each in asked):
        raise SettingsError(
            f"{' and '.join(own)} ask for {name} in different ways (prompts, scorer or length of "
            "replies); transfer them apart"
        )
    return task_again([*own.values()], name, given, setup)


def _document(
    found: Transfer, lm: LanguageModel, runs: Mapping[str, Run], tasks: list[Task], seed: int
) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "model": {"id": lm.id, "revision": lm.revision},
        "seed": seed,
        "runs": {
            name: {
                "task": run.provenance.task,
                "strength": run.steering.strength,
                "features": [list(feature.key) for feature in run.steering.features],
            }
            for name, run in runs.items()
        },
        "tasks": {
            task.name: {"scorer": task.scorer.name, "baseline": asdict(found.baselines[task.name])}
            for task in tasks
        },
        "cells": [
            {
                "run": name,
                "source": runs[name].provenance.task,
                "target": target,
                **asdict(Outcome.of(comparison)),
                "unscored": comparison.unscored,
            }
            for name, row in found.cells.items()
            for target, comparison in row.items()
        ],
    }


def _print_transfer(found: Transfer, lm: LanguageModel, runs: Mapping[str, Run]) -> None:
    console, labels = VisibleConsole(), _labels(runs)
    console.print(Text.assemble((lm.id, "bold"), ": change of test accuracy"))
    console.print(_matrix(found, labels))
    for target, baseline in found.baselines.items():
        console.print(Text.assemble("\non ", (target, "bold"), f": {baseline.n} samples"))
        unread = next((row[target].unread for row in found.cells.values()), None)
        table = arm_table(baseline, unread and unread[0])
        for name, run in runs.items():
            row = f"{labels[name]} x {run.steering.strength:g}"
            outcome = Outcome.of(found.cells[name][target]) if run.steering.vectors else None
            add_arm(table, row, outcome)
        print_arms(console, table)


def _labels(runs: Iterable[str]) -> dict[str, str]:
    """Folder -> what a table calls it: its own name, or the whole path where that is not enough."""
    names = {name: Path(name).name for name in runs}
    return names if len({*names.values()}) == len(names) else {name: name for name in names}


def _matrix(found: Transfer, labels: Mapping[str, str]) -> Table:
    """Source x target, in points; a star where the interval excludes zero."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("source", overflow="fold")
    for target in found.baselines:
        table.add_column(target, justify="right", overflow="fold")
    for name, row in found.cells.items():
        table.add_row(labels[name], *(_points(row[target].delta) for target in found.baselines))
    table.caption = "in points; * the 95 % interval excludes zero"
    table.caption_justify = "left"
    return table


def _points(change: Delta) -> str:
    low, high = change.ci
    return f"{100 * change.value:+.1f}{' *' if low > 0 or high < 0 else ''}"
