"""What `corrsteer study null` and `corrsteer study samples` do and print.

Changes when an option of theirs means something else.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from corrsteer.cli.common import (
    default_model,
    emit,
    model_asked,
    model_of,
    quietly,
    task_again,
    task_of,
)
from corrsteer.cli.options import ModelOptions, NullOptions, SamplesOptions, TaskSetup
from corrsteer.cli.output import VisibleConsole
from corrsteer.cli.terminal import TerminalProgress, accuracy_text, print_table
from corrsteer.errors import ArtifactError
from corrsteer.execution.journal import Journal
from corrsteer.execution.units import Execution
from corrsteer.files import check_place, write_whole
from corrsteer.json_text import to_json
from corrsteer.lm.models import saes_of
from corrsteer.method.arms import ArmRunner
from corrsteer.method.provenance import check_own_model
from corrsteer.runs.folder import load_run
from corrsteer.runs.run import Run
from corrsteer.stats.metrics import Accuracy
from corrsteer.studies.null import null_document, null_study
from corrsteer.studies.paper.arms import tried
from corrsteer.studies.paper.parts import snapshot_arms
from corrsteer.studies.sample_efficiency import Snapshot, sample_efficiency

SAMPLES_SCHEMA = "corrsteer.samples/1"
NULL_FILE = "null.json"


def run_null(options: NullOptions) -> None:
    """`corrsteer study null`."""
    settings = options.settings
    model = options.model.model or default_model(options.task)
    names = (Path(name).stem for name in (model, options.task))
    path = (options.out or Path("studies") / "-".join(("null", *names))) / NULL_FILE
    _check_free(path)
    task = task_of(options.task, options.setup)
    with quietly(), TerminalProgress() as progress:
        with progress.stage("load model", None):
            lm = model_asked(options.model, options.task)
        study, journal = null_study(
            lm,
            task,
            settings,
            options.runs,
            lambda header: Journal(path.with_name(f"{NULL_FILE}.partial"), header),
            progress,
        )
    document = null_document(study, lm, task, settings)
    content = to_json(document)
    write_whole(path, content)
    journal.remove()
    emit(json.loads(content), options.as_json, lambda found: _print_null(found, path))


def _check_free(path: Path) -> None:
    """Refuse a place where a study is already, or none can be.

    Raises:
        ArtifactError: says why.
    """
    check_place(path)
    if path.exists():
        raise ArtifactError(
            f"{path} is of a finished study; choose another --out, or remove it to start anew"
        )


def _print_null(document: Mapping[str, Any], path: Path) -> None:
    console = VisibleConsole()
    names = (document["model"]["id"], " on ", document["task"]["name"])
    counts = f"{document['n_fit']} fit and {document['n_select']} select samples"
    console.print(Text.assemble(*((name, "bold") for name in names), f": {counts}"))
    table = _table("where there is nothing", "runs", "share % [95 %]")
    for name, label in (
        ("family_wise", "any feature significant family-wise"),
        ("recommended", "any setting recommended"),
        ("uncorrected", "the same, were nothing corrected"),
    ):
        share = document[name]
        table.add_row(label, f"{share['count']} of {share['runs']}", _percent(share))
    print_table(console, table)
    console.print(f"{document['settings_tried']} sets and strengths were tried on the model.\n")
    table = _table("intervals of r, by frequency", "true r", "n", "Fisher %", "BCa %")
    for row in document["coverage"]:
        band = row["frequency"]
        table.add_row(
            "all" if band is None else f"{100 * band[0]:g} to {100 * band[1]:g} %",
            "" if band is None else f"{row['true']:.2f}",
            str(row["fisher"]["runs"]),
            _percent(row["fisher"]),
            _percent(row["bootstrap"]),
        )
    print_table(console, table)
    console.print(Text(f"Written to {path}"), soft_wrap=True)


def run_samples(options: SamplesOptions) -> None:
    """`corrsteer study samples`."""
    run = load_run(options.run)
    with quietly(), TerminalProgress() as progress:
        snapshots = sample_efficiency(run)
        arms = _accuracies(run, snapshots, options, progress) if options.accuracy else []
    document = {
        "schema": SAMPLES_SCHEMA,
        "run": options.run,
        "model": {"id": run.provenance.model, "revision": run.provenance.revision},
        "task": run.provenance.task,
        "settings": dataclasses.asdict(run.settings),
        "snapshots": [
            {
                **dataclasses.asdict(snapshot),
                **{arm["strategy"]: arm for arm in arms if arm["samples"] == snapshot.samples},
            }
            for snapshot in snapshots
        ],
    }
    emit(document, options.as_json, _print_samples)


def _accuracies(
    run: Run, snapshots: Sequence[Snapshot], options: SamplesOptions, progress: TerminalProgress
) -> list[dict[str, Any]]:
    """What S and A of every snapshot do on the run's own test split, by its own model."""
    made, name = run.provenance, options.task or run.provenance.task
    setup = TaskSetup(data=options.data, seed=run.settings.seed)
    task = task_again([run], name, options.task is not None, setup)
    asked = model_of(run, ModelOptions(device=options.device))
    check_own_model(run)
    with progress.stage("load model", None):
        lm = model_asked(asked, name, prepend_bos=made.prepend_bos)
    handles = saes_of(made.model, made.sae_source, made.hook_shift)
    limit, size = options.test_limit, options.batch_size
    seed = run.settings.seed
    runner = ArmRunner(
        lm, task, "test", limit=limit, seed=seed, batch_size=size, execution=Execution(progress)
    )
    return tried(runner, snapshot_arms(snapshots, run, lm, handles))


def _print_samples(document: Mapping[str, Any]) -> None:
    console = VisibleConsole()
    names = (document["model"]["id"], " on ", document["task"])
    console.print(Text.assemble(*((name, "bold") for name in names)))
    others = ("largest |r|", "significant above", "same best of layers", "same best of all")
    arms = [name for name in ("S", "A") if name in document["snapshots"][0]]
    table = _table("samples", *others, *(f"accuracy of {name}" for name in arms))
    for row in document["snapshots"]:
        table.add_row(
            f"{row['samples']:,}",
            *("-" if row[of] is None else f"{row[of]:.3f}" for of in ("largest", "threshold")),
            f"{100 * row['agreement']:.0f} %",
            "yes" if row["same_best"] else "no",
            *(accuracy_text(Accuracy(**row[name]["steered"])) for name in arms),
        )
    print_table(console, table)


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(first, overflow="fold")
    for column in others:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _percent(share: Mapping[str, Any]) -> str:
    if share["share"] is None:
        return "-"
    low, high = (100 * bound for bound in share["ci"])
    return f"{100 * share['share']:.1f} [{low:.1f}, {high:.1f}]"
