"""What `corrsteer study paper` does and prints.

Changes when an option of it means something else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table as Grid
from rich.text import Text

from corrsteer.cli.common import emit, facts_asked, guards_of, model_asked, quietly, task_of
from corrsteer.cli.declare import flat, settings_in
from corrsteer.cli.options import PaperOptions, TaskSetup, names_in
from corrsteer.cli.output import VisibleConsole
from corrsteer.cli.terminal import TerminalProgress, print_table
from corrsteer.errors import SettingsError
from corrsteer.execution.units import Execution
from corrsteer.method.provenance import data_digest, model_digests, sae_digests
from corrsteer.mini.corpus import FAMILIES
from corrsteer.report.study import PAGE_FILE, write
from corrsteer.report.study.files import as_text
from corrsteer.scoring.registry import load_scorer
from corrsteer.studies.paper.cells import Cells
from corrsteer.studies.paper.paper import Materials, run_study
from corrsteer.studies.paper.settings import StudySettings
from corrsteer.tasks import Task, known_tasks, mini
from corrsteer.tasks.rows import is_task_file

MODEL = ("model", "revision", "sae", "hook_shift", "dtype")
"""Options that say which model a study is of."""


def run_paper(options: PaperOptions) -> None:
    """`corrsteer study paper`."""
    given = settings_in(options, StudySettings)
    settings = StudySettings(**{**given, "skip": names_in(options.skip)})
    names = names_in(options.tasks) or _tasks_of(options.model)
    scorers = _scorers(options.scorer, names)
    out = options.out or Path("studies") / f"paper-{Path(options.model).name}"
    header = {
        **{name: value for name, value in flat(options).items() if name in MODEL},
        "tasks": names,
        "scorers": scorers,
        "data": options.data,
        **settings.header(),
        "content": _content(options, names, scorers),
    }
    cells = Cells(out, header)

    def task(name: str, seed: int) -> tuple[Task, Sequence[Task]]:
        setup = TaskSetup(scorer=scorers.get(name), data=options.data, seed=seed)
        found = task_of(name, setup)
        return found, guards_of(None, found, setup)

    with quietly(), TerminalProgress() as progress:

        def model() -> Any:
            with progress.stage("load model", None):
                return model_asked(options.model_options, names[0])

        study = run_study(
            cells, options.model, names, settings, Materials(model, task), Execution(progress)
        )
    document = {"study": str(out), **write(study, out)}
    emit(document, options.as_json, _print_study)


def _content(
    options: PaperOptions, tasks: Sequence[str], scorers: Mapping[str, str]
) -> dict[str, dict[str, str]]:
    """What the names in a study's options stand for, by digests."""
    facts = facts_asked(options.model_options, tasks[0])
    folders = [name.rpartition("=")[2] for name in options.data]
    files = [name for name in tasks if is_task_file(name)]
    sources = {name: getattr(load_scorer(spec), "source", "") for name, spec in scorers.items()}
    return {
        "files": model_digests(facts.id),
        "saes": sae_digests(facts.saes),
        "data_files": {name: data_digest(Path(name)) for name in (*folders, *files)},
        "scorer_sources": sources,
    }


def _tasks_of(model: str) -> tuple[str, ...]:
    """The built-in model's own tasks, or the paper's."""
    if model == "mini":
        return tuple(FAMILIES)
    return tuple(name for name in known_tasks() if name not in mini.NAMES)


def _scorers(given: Sequence[str], tasks: Sequence[str]) -> dict[str, str]:
    """Task -> the scorer asked for in place of its own.

    Raises:
        SettingsError: a task that is not of the study, or none named.
    """
    found = {}
    for each in given:
        task, sign, scorer = each.partition("=")
        if not sign or task not in tasks:
            raise SettingsError(
                f"--scorer is {each!r}; give TASK=NAME with one of {', '.join(tasks)}"
            )
        found[task] = scorer
    return found


def _print_study(document: Mapping[str, Any]) -> None:
    console = VisibleConsole()
    console.print(Text.assemble((document["model"], "bold"), ": accuracy on the test split"))
    rows = document["tables"].get("accuracy", {"rows": []})["rows"]
    grid = Grid(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for index, name in enumerate(rows[0] if rows else ()):
        grid.add_column(name, justify="right" if index else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(as_text(value, "percent") for value in row.values()))
    print_table(console, grid)
    for note in document["notes"]:
        console.print(Text(note), soft_wrap=True)
    console.print(Text(f"Page: {Path(document['study']) / PAGE_FILE}"), soft_wrap=True)
