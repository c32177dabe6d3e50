"""What `corrsteer train` does.

Changes when an option of it means something else.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

from corrsteer.cli.common import (
    emit,
    execution_by,
    guards_of,
    model_asked,
    new_folder,
    quietly,
    task_of,
)
from corrsteer.cli.options import TrainOptions
from corrsteer.cli.terminal import TerminalProgress, print_run
from corrsteer.execution.checkpoint import Checkpoint, unfinished
from corrsteer.files import UNFINISHED
from corrsteer.method.shards import Shard, collect_shard
from corrsteer.method.train import Steps, identity, train
from corrsteer.report import write as write_report
from corrsteer.runs.document import run_document
from corrsteer.runs.folder import REPORT_FILE, claim_folder, load_run
from corrsteer.runs.location import is_run
from corrsteer.runs.records import RunDocument
from corrsteer.runs.statistics_file import STATISTICS_FILE
from corrsteer.settings import FitSettings
from corrsteer.tasks import Task
from corrsteer.timing import Stopwatch


def run_train(options: TrainOptions) -> None:
    """`corrsteer train`."""
    settings = options.settings
    task = task_of(options.task, options.setup)
    guards = guards_of(options.guard, task, options.setup)
    shard = Shard.parse(options.shard) if options.shard else None
    if options.collected:
        collected = load_run(options.collected)
        settings = dataclasses.replace(settings, samples=collected.settings.samples)
    out = _run_folder(options, task)
    finished = options.resume and is_run(out)
    if not finished:
        claim_folder(out)
    with quietly(), unfinished(out, options.resume) as checkpoint:
        document = (
            _finished(out, task, settings)
            if finished
            else _train(options, task, guards, settings, shard, out, checkpoint)
        )
    emit(document, options.as_json, print_run)


def _train(
    options: TrainOptions,
    task: Task,
    guards: Sequence[Task],
    settings: FitSettings,
    shard: Shard | None,
    out: Path,
    checkpoint: Checkpoint,
) -> RunDocument:
    """The document of a run that is made and written now."""
    watch = Stopwatch()
    with TerminalProgress() as progress:
        with watch.timing("load"), progress.stage("load model", None):
            lm = model_asked(options.model, options.task, engine=options.engine.engine)
        header = {
            "shard": options.shard,
            "unit_samples": options.engine.unit_samples,
            "collected": _digest_of(options.collected),
        }
        checkpoint.open({**identity(lm, task, guards, settings), **header})
        with execution_by(options.engine, progress, checkpoint) as execution:
            if shard is not None:
                run = collect_shard(lm, task, shard, settings, execution=execution, watch=watch)
                run.save(out)
                return run_document(run, str(out), None)
            run, document = train(
                lm,
                task,
                guards,
                settings,
                out,
                steps=Steps(options.evaluated, options.describe, options.collected),
                execution=execution,
                watch=watch,
            )
    write_report(run, out)
    return document


def _digest_of(run: Path | None) -> str | None:
    """What tells a run's statistics from others; None where there are none."""
    if run is None or not (run / STATISTICS_FILE).exists():
        return None
    with (run / STATISTICS_FILE).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _run_folder(options: TrainOptions, task: Task) -> Path:
    """The folder asked for; else the newest that was not finished, to resume; else a new one."""
    if options.out:
        return options.out
    left = Path("runs").glob(f"*-{Path(task.name).stem}{UNFINISHED}") if options.resume else ()
    newest = max(left, default=None)
    if newest is None:
        return new_folder(task)
    return newest.with_name(newest.name.removesuffix(UNFINISHED))


def _finished(out: Path, task: Task, settings: FitSettings) -> RunDocument:
    """The document of a run that was finished before.

    Raises:
        ArtifactError: it is not the one asked for.
    """
    run = load_run(out)
    if (run.provenance.task, run.settings) != (task.name, settings):
        claim_folder(out)
    if run.features and not (out / REPORT_FILE).exists():
        write_report(run, out)
    return run.evaluation or run_document(run, str(out), None)
