"""What `corrsteer eval` does.

Changes when an option of it means something else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from corrsteer.cli.common import (
    emit,
    execution_by,
    model_asked,
    model_of,
    neutral_text,
    quietly,
    task_again,
    unfinished_reading,
)
from corrsteer.cli.options import BASELINE, EvalOptions
from corrsteer.cli.terminal import TerminalProgress, print_evaluation
from corrsteer.errors import SettingsError
from corrsteer.lm.models import LanguageModel
from corrsteer.method.arms import ArmRunner
from corrsteer.method.evaluation import evaluate_on
from corrsteer.method.provenance import check_own_model, reading_header
from corrsteer.method.receipts import receipts_of
from corrsteer.runs.document import evaluation_document
from corrsteer.runs.folder import load_run
from corrsteer.runs.run import Run
from corrsteer.runs.steering import Steering
from corrsteer.settings import FitSettings
from corrsteer.timing import Stopwatch


def run_eval(options: EvalOptions) -> None:
    """`corrsteer eval`."""
    run = None if options.run == BASELINE else load_run(options.run)
    neutral = () if options.neutral is None else neutral_text(options.neutral)
    name = options.task or (run.provenance.task if run else None)
    if not name:
        raise SettingsError("which task? give --task NAME; see `corrsteer tasks`")
    # with another seed than the run's own, samples that it was fitted on could be tested
    setup = options.setup.seeded(run.settings.seed if run else FitSettings.seed)
    task = task_again([run] if run else [], name, options.task is not None, setup)
    watch = Stopwatch()
    with (
        quietly(),
        unfinished_reading(options, options.run, options.resume) as checkpoint,
        TerminalProgress() as progress,
        execution_by(options.engine, progress, checkpoint) as execution,
    ):
        if run is not None and not options.model.model and not options.force:
            check_own_model(run)
        with watch.timing("load"), progress.stage("load model", None):
            lm = model_asked(
                model_of(run, options.model),
                name,
                engine=options.engine.engine,
                prepend_bos=run is not None and run.provenance.prepend_bos,
            )
        if checkpoint is not None:
            checkpoint.open(reading_header(lm.facts))
        runner = ArmRunner(
            lm,
            task,
            "test",
            limit=setup.test_limit,
            seed=setup.the_seed,
            batch_size=setup.batch_size,
            execution=execution,
            force=options.force,
        )
        with watch.timing("evaluate"):
            steerings = _steerings(run, options.strength, lm)
            found = [evaluate_on(runner, steering) for steering in steerings]
        with watch.timing("receipts"):
            texts = ([each.steered_text for each in one.predictions] for one in found)
            receipts = receipts_of(runner, list(zip(steerings, texts, strict=True)), neutral)
            arms = [
                (steering, replace(evaluation, receipts=each))
                for steering, evaluation, each in zip(steerings, found, receipts, strict=True)
            ]
    path = None if run is None else options.run
    document = evaluation_document(run, path, lm, task, arms, watch)
    emit(document, options.as_json, print_evaluation)


def _steerings(
    run: Run | None, strengths: Sequence[float] | None, lm: LanguageModel
) -> list[Steering]:
    if run is None:
        return [Steering({}, (), lm.id, lm.revision)]
    if strengths is None:
        return [run.steering]
    return [run.steering.at(strength) for strength in strengths]
