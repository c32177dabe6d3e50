"""What several commands do alike: options to loaded parts, and results to what is printed.

Changes when a shared option means something else.
"""

from __future__ import annotations

import dataclasses
import logging
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from corrsteer.cli.declare import flat
from corrsteer.cli.options import BASELINE, LOCAL, NO_GUARDS, EngineOptions, ModelOptions, TaskSetup
from corrsteer.cli.output import OneLine, print_json
from corrsteer.errors import ArtifactError, DataError, SettingsError
from corrsteer.execution.checkpoint import Checkpoint, unfinished
from corrsteer.execution.ray_workers import ClusterSettings, workers_of
from corrsteer.execution.units import Execution, fingerprint
from corrsteer.files import check_place, expanded, place_of, regular, unfinished_place
from corrsteer.lm.known_models import RAW
from corrsteer.lm.models import LanguageModel, ModelFacts, facts_of, load_model
from corrsteer.method.provenance import (
    check_own_data,
    check_own_task,
    file_changed,
    is_own_task,
)
from corrsteer.progress import Progress
from corrsteer.runs.records import EvaluationDocument, RunDocument, TuningDocument
from corrsteer.runs.records import as_json as document_json
from corrsteer.runs.run import Run
from corrsteer.scoring.base import prepare
from corrsteer.tasks import Task, known_tasks, load_task, mini, own_guards
from corrsteer.tasks.chats import written_option
from corrsteer.tasks.rows import is_task_file

log = logging.getLogger(__name__)

DEFAULT_MODEL, DEFAULT_BENCHMARK_MODEL = "mini", "gemma2b"
"""The built-in one, and for benchmarks of the hub the paper's first."""


def task_of(name: str, setup: TaskSetup) -> Task:
    """The task asked for, with a scorer that is ready.

    Raises:
        CorrSteerError: it cannot be had or used.
    """
    name = setup.variant_of(name)
    with quietly():
        task = load_task(
            name,
            setup.scorer,
            setup.the_seed,
            setup.max_new_tokens,
            data=_data_folder(setup, name) or _data_folder(setup),
            few=setup.few or 0,
            chat=setup.template_options or bool(setup.chat),
            select_token=bool(setup.select_token),
            **setup.reply_fields,
        )
    prepare(task.scorer)
    return task


def guards_of(names: str | None, task: Task, setup: TaskSetup) -> list[Task]:
    """The guard tasks asked for, or the task's own; none where `none` is asked for.

    Raises:
        CorrSteerError: one is the task itself, or cannot be had or used.
    """
    if names == NO_GUARDS:
        return []
    if names is None:
        copies = {name: _data_folder(setup, name) for name in task.guards}
        with quietly():
            guards = own_guards(task, setup.the_seed, copies)
    else:
        wanted = names.split(",")
        if task.name in wanted:
            raise SettingsError(f"--guard {task.name} is the task itself; choose others")
        with quietly():
            guards = [
                load_task(name, seed=setup.the_seed, data=_data_folder(setup, name))
                for name in wanted
            ]
    for guard in guards:
        prepare(guard.scorer)
    return guards


def _data_folder(setup: TaskSetup, task: str | None = None) -> str | None:
    """The local copy given for a task by name, or the one given without a name.

    Raises:
        SettingsError: several are given for one.
    """
    found = []
    for given in setup.data:
        name, sign, folder = given.partition("=")
        named = name if sign and name in known_tasks() else None
        if named == task:
            found.append(folder if named else given)
    if len(found) > 1:
        raise SettingsError(
            f"--data is given {len(found)} times for {task or 'the task'}; give each task one, "
            "as in --data FOLDER --data GUARD=FOLDER"
        )
    return found[0] if found else None


def model_asked(
    options: ModelOptions, task: str, *, engine: str = LOCAL, prepend_bos: bool = False
) -> LanguageModel:
    """The model asked for, or the default one for a task.

    Args:
        options: which, and where.
        task: name of the task, or its file.
        engine: on a cluster, the model here only makes prompts, for which a CPU will do.
        prepend_bos: see `load_model`.

    Raises:
        CorrSteerError: it cannot be had or used.
    """
    return load_model(
        options.model or default_model(task), **_loading(options, engine), prepend_bos=prepend_bos
    )


def facts_asked(options: ModelOptions, task: str, engine: str = LOCAL) -> ModelFacts:
    """What `model_asked` would load, without loading it.

    Raises:
        CorrSteerError: it cannot be had or used.
    """
    return facts_of(options.model or default_model(task), **_loading(options, engine))


def _loading(options: ModelOptions, engine: str) -> dict[str, Any]:
    return {
        "sae": RAW if options.raw else options.sae,
        "dtype": options.dtype,
        "device": options.device or (None if engine == LOCAL else "cpu"),
        "hook_shift": options.hook_shift,
        "revision": options.revision,
    }


def default_model(task: str) -> str:
    """The model for a task where none is given."""
    built_in = task in mini.NAMES or is_task_file(task)
    return DEFAULT_MODEL if built_in else DEFAULT_BENCHMARK_MODEL


def model_of(run: Run | None, options: ModelOptions) -> ModelOptions:
    """The options, with the run's own model, at its own commit, where none is given."""
    if run is None or options.model:
        return options
    revision = options.revision or run.provenance.revision
    return replace(options, model=run.provenance.model, revision=revision)


def task_again(runs: Sequence[Run], name: str, given: bool, setup: TaskSetup) -> Task:
    """A task, asked for as runs did that are of it.

    Args:
        runs: those that are of it, if any; they asked alike.
        name: of the task.
        given: whether a person named it, and not a run alone, which may come from anybody.
        setup: what else is given.

    Raises:
        CorrSteerError: it cannot be had or used, or a run alone names its file, another one now.
    """
    for run in runs:
        if not given:
            check_own_task(run)
        elif str(expanded(name)) == run.provenance.task and file_changed(run):
            with quietly():
                log.warning(
                    "%s is not what it was when the run was made: its test split may hold what "
                    "the run was fitted on",
                    name,
                )
    return task_of(name, setup_of(next(iter(runs), None), setup, name))


def setup_of(run: Run | None, setup: TaskSetup, task: str) -> TaskSetup:
    """The setup, with the run's own where its own task is evaluated again.

    A function scorer is not taken over: only what the command line names is ever imported.

    Raises:
        SettingsError: the run was scored by a function that is not named.
        DataError: the run alone names a local copy, which is another one now.
    """
    if run is None or not is_own_task(run, task):
        return setup
    if not setup.data:
        check_own_data(run)
    made, asked = run.provenance, run.provenance.task_options
    scorer = setup.scorer or made.scorer
    if setup.scorer is None and ":" in scorer and not scorer.startswith("regex:"):
        raise SettingsError(
            f"the run was scored by {scorer}; name it again with --scorer to run it"
        )
    return replace(
        setup,
        scorer=scorer,
        max_new_tokens=setup.max_new_tokens or made.max_new_tokens,
        few=asked.few if setup.few is None else setup.few,
        chat=asked.chat if setup.chat is None else setup.chat,
        template_option=setup.template_option
        or tuple(written_option(*option) for option in asked.template_options.items()),
        select_token=asked.select_token if setup.select_token is None else setup.select_token,
        data=setup.data or ((asked.data,) if asked.data else ()),
        reply_field=setup.reply_field or asked.reply_field,
        score_field=setup.score_field or asked.score_field,
        good_above=asked.good_above if setup.good_above is None else setup.good_above,
    )


@contextmanager
def unfinished_reading(options: object, name: str, resume: bool) -> Iterator[Checkpoint | None]:
    """Where work is kept that prints its result and writes nothing; None if nowhere.

    Beside the first run read, or else in `runs`, under a name that other options do not share.
    """
    run = Path("runs").resolve() / name if name == BASELINE else place_of(name)
    asked = {key: str(value) for key, value in sorted(flat(options).items()) if key != "resume"}
    own_name = f"{run.name}.{fingerprint(asked)[:8]}"
    places = (run.with_name(own_name), Path("runs") / own_name)
    place = next((each for each in places if _can_hold(each)), None)
    if place is None:
        log.warning(
            "what is done is not kept until all is done: neither %s nor runs can be written to",
            places[0].parent,
        )
        yield None
        return
    with unfinished(place, resume) as checkpoint:
        yield checkpoint


def _can_hold(place: Path) -> bool:
    """Whether unfinished work can be kept towards a result."""
    try:
        check_place(unfinished_place(place))
    except ArtifactError:
        return False
    return True


@contextmanager
def execution_by(
    engine: EngineOptions, progress: Progress, checkpoint: Checkpoint | None
) -> Iterator[Execution]:
    """Who does the work that the options ask for."""
    own = Execution(progress, checkpoint=checkpoint, unit_samples=engine.unit_samples)
    if engine.engine == LOCAL:
        yield own
        return
    settings = ClusterSettings(engine.workers, engine.ray_address, engine.gpus_per_worker)
    with workers_of(settings, progress) as workers:
        yield dataclasses.replace(own, executor=workers)


def neutral_text(file: Path) -> tuple[str, ...]:
    """The paragraphs of a text file.

    Raises:
        DataError: it cannot be read, or has none.
    """
    try:
        text = regular(expanded(file)).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise DataError(f"cannot read {file}: {reason}; give a text file for --neutral") from error
    paragraphs = tuple(part.strip() for part in re.split(r"\n\s*\n", text) if part.strip())
    if not paragraphs:
        raise DataError(f"{file} has no text; give some paragraphs for --neutral")
    return paragraphs


def new_folder(task: Task) -> Path:
    """A folder that does not exist yet, named by the time and the task."""
    time = datetime.now().strftime("%Y%m%d-%H%M%S")
    base = Path("runs") / f"{time}-{Path(task.name).stem}"
    folder, number = base, 1
    while folder.exists():
        number += 1
        folder = base.with_name(f"{base.name}-{number}")
    return folder


@contextmanager
def quietly() -> Iterator[None]:
    """Keeps other libraries' warnings out of the terminal; ours are plain lines on stderr.

    What is for watchers alone is told on a terminal alone. Within itself it does nothing.
    """
    if any(isinstance(each.formatter, OneLine) for each in logging.getLogger("corrsteer").handlers):
        yield
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine())
    handler.addFilter(lambda told: sys.stderr.isatty() or not hasattr(told, "on_terminal"))
    logger = logging.getLogger("corrsteer")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.removeHandler(handler)


AnyDocument = TypeVar(
    "AnyDocument", RunDocument, EvaluationDocument, TuningDocument, Mapping[str, Any]
)


def emit(document: AnyDocument, as_json: bool, show: Callable[[AnyDocument], None]) -> None:
    """Print a result, as JSON or as it shows itself to people."""
    if as_json:
        print_json(document if isinstance(document, Mapping) else document_json(document))
    else:
        show(document)
