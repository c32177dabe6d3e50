"""What `corrsteer train` does.

Changes when an option of it means something else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from corrsteer.cli.common import (
    emit,
    execution_by,
    facts_asked,
    guards_of,
    model_asked,
    neutral_text,
    new_folder,
    quietly,
    task_of,
)
from corrsteer.cli.options import TrainOptions
from corrsteer.cli.output import print_json, tell
from corrsteer.cli.terminal import TerminalProgress, print_run, print_seeds
from corrsteer.execution.checkpoint import Checkpoint, unfinished
from corrsteer.files import UNFINISHED, write_whole
from corrsteer.json_text import to_json
from corrsteer.lm.sae_placement import choose_handles
from corrsteer.method.provenance import library_versions, provenance_of
from corrsteer.method.shards import Shard, collect_shard
from corrsteer.method.train import Steps, collected_digest, train
from corrsteer.report import write as write_report
from corrsteer.runs.content import Extent
from corrsteer.runs.document import run_document
from corrsteer.runs.folder import REPORT_FILE, claim_folder, load_run
from corrsteer.runs.identity import Identity, check_same
from corrsteer.runs.location import is_run
from corrsteer.runs.records import RunDocument
from corrsteer.settings import FitSettings
from corrsteer.studies.seeds import SeedsDocument
from corrsteer.tasks import Task
from corrsteer.timing import Stopwatch

SEEDS_FILE = "seeds.json"
"""Beside the runs over several seeds: what they say together."""


def run_train(options: TrainOptions) -> None:
    """`corrsteer train`."""
    if options.seeds is None:
        emit(trained(options), options.as_json, print_run)
        return
    out = options.out or new_folder(task_of(options.task, options.setup))
    runs = {}
    for seed in options.seeds:
        tell(f"seed {seed}: {out / f'seed-{seed}'}")
        setup = dataclasses.replace(options.setup, seed=seed)
        own = dataclasses.replace(options, setup=setup, seeds=None, out=out / f"seed-{seed}")
        runs[seed] = trained(own)
    together = SeedsDocument.of(runs)
    write_whole(out / SEEDS_FILE, to_json(together.as_json()).encode())
    if options.as_json:
        print_json(together.as_json())
    else:
        print_seeds(together, out)


def trained(options: TrainOptions) -> RunDocument:
    """The document of the run that was asked for, which is made now or was finished before."""
    task = task_of(options.task, options.setup)
    guards = guards_of(options.guard, task, options.setup)
    shard = Shard.parse(options.shard) if options.shard else None
    settings = options.settings
    if options.collected:
        collected = load_run(options.collected)
        settings = dataclasses.replace(settings, samples=collected.settings.samples)
    out = _run_folder(options, task)
    finished = options.resume and is_run(out)
    if not finished:
        claim_folder(out)
    with quietly(), unfinished(out, options.resume) as checkpoint:
        asked = _identity(options, task, guards, settings, shard)
        if finished:
            return _finished(out, asked)
        return _train(options, task, guards, asked, out, checkpoint)


def _identity(
    options: TrainOptions,
    task: Task,
    guards: Sequence[Task],
    settings: FitSettings,
    shard: Shard | None,
) -> Identity:
    """What the run is that was asked for, told without the model's weights.

    Raises:
        CorrSteerError: the model or its SAEs cannot be had or used.
    """
    facts = facts_asked(options.model, options.task, options.engine.engine)
    handles = choose_handles(facts, settings.layers)
    steps = _steps(options)
    extent = Extent(
        options.engine.unit_samples,
        collected_digest(options.collected),
        evaluated=options.evaluated and shard is None,
        explained=options.describe and shard is None,
        neutral=steps.neutral_digest,
    )
    made = provenance_of(facts, task, () if shard else guards, handles)
    return Identity(made, settings, extent, str(shard) if shard else None)


def _steps(options: TrainOptions) -> Steps:
    """The steps that are asked for.

    Raises:
        DataError: the neutral text cannot be read.
    """
    neutral = () if options.neutral is None else neutral_text(options.neutral)
    return Steps(options.evaluated, options.describe, options.collected, neutral)


def _train(
    options: TrainOptions,
    task: Task,
    guards: Sequence[Task],
    asked: Identity,
    out: Path,
    checkpoint: Checkpoint,
) -> RunDocument:
    """The document of a run that is made and written now."""
    checkpoint.open({**asked.document(), "versions": library_versions()})
    watch = Stopwatch()
    with TerminalProgress() as progress:
        with watch.timing("load"), progress.stage("load model", None):
            lm = model_asked(options.model, options.task, engine=options.engine.engine)
        with execution_by(options.engine, progress, checkpoint) as execution:
            if asked.shard is not None:
                shard = Shard.parse(asked.shard)
                run = collect_shard(
                    lm, task, shard, asked.settings, execution=execution, watch=watch
                )
                run.save(out)
                return run_document(run, str(out), None)
            run, document = train(
                lm,
                task,
                guards,
                asked.settings,
                out,
                steps=_steps(options),
                execution=execution,
                watch=watch,
            )
    write_report(run, out)
    return document


def _run_folder(options: TrainOptions, task: Task) -> Path:
    """The folder asked for; else the newest that was not finished, to resume; else a new one."""
    if options.out:
        return options.out
    left = Path("runs").glob(f"*-{Path(task.name).stem}{UNFINISHED}") if options.resume else ()
    newest = max(left, default=None)
    if newest is None:
        return new_folder(task)
    return newest.with_name(newest.name.removesuffix(UNFINISHED))


def _finished(out: Path, asked: Identity) -> RunDocument:
    """The document of a run that was finished before.

    Raises:
        ArtifactError: it is not the one asked for.
    """
    run = load_run(out)
    check_same(out, Identity.of(run), asked)
    if run.steering.vectors and not (out / REPORT_FILE).exists():
        write_report(run, out)
    return run.evaluation or run_document(run, str(out), None)
