"""What the commands do: from options to loaded parts, to the pipelines, to what is printed.

Changes when an option means something else.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from corrsteer.cli.terminal import TerminalProgress, print_evaluation, print_names, print_run
from corrsteer.errors import SettingsError
from corrsteer.execution.checkpoint import Checkpoint, unfinished
from corrsteer.execution.ray_workers import ClusterSettings, workers_of
from corrsteer.execution.units import Execution, fingerprint
from corrsteer.files import UNFINISHED
from corrsteer.lm.models import KNOWN_MODELS, RAW, LanguageModel, load_model
from corrsteer.method.arms import ArmRunner
from corrsteer.method.evaluation import evaluate_on
from corrsteer.method.provenance import library_versions
from corrsteer.method.shards import Shard, collect_shard
from corrsteer.method.train import identity, train
from corrsteer.progress import Progress
from corrsteer.report import write as write_report
from corrsteer.report import write_figures
from corrsteer.runs.document import evaluation_document, run_document
from corrsteer.runs.folder import REPORT_FILE, claim_folder, is_run, load_run
from corrsteer.runs.run import Run
from corrsteer.runs.statistics_file import STATISTICS_FILE
from corrsteer.runs.steering import Steering
from corrsteer.scoring.base import prepare
from corrsteer.settings import FitSettings
from corrsteer.tasks import Task, known_tasks, load_task, mini
from corrsteer.timing import Stopwatch

Options = Mapping[str, Any]

DEFAULT_MODEL, DEFAULT_BENCHMARK_MODEL = "mini", "gemma2b"
"""The built-in one, and for benchmarks of the hub the paper's first."""
BASELINE = "baseline"
LOCAL = "local"
"""The engine that is this process."""


def run_train(options: Options) -> None:
    """`corrsteer train`."""
    options = _seeded(options, FitSettings.seed)
    settings = fit_settings(options)
    task = _load_task(options["task"], options)
    guards = _load_guards(options["guard"], task, options)
    shard = Shard.parse(options["shard"]) if options["shard"] else None
    if shard is not None and options["collected"]:
        raise SettingsError("--shard collects and --collected does not; give one of them")
    if options["collected"]:
        collected = load_run(options["collected"])
        settings = dataclasses.replace(settings, samples=collected.settings.samples)
    out = _run_folder(options, task)
    finished = options["resume"] and is_run(out)
    if not finished:
        claim_folder(out)
    with _quietly(), unfinished(out, options["resume"]) as checkpoint:
        document = (
            _finished(out, task, settings)
            if finished
            else _train(options, task, guards, settings, shard, out, checkpoint)
        )
    _emit(document, options["as_json"], print_run)


def _train(
    options: Options,
    task: Task,
    guards: Sequence[Task],
    settings: FitSettings,
    shard: Shard | None,
    out: Path,
    checkpoint: Checkpoint,
) -> dict[str, Any]:
    """The document of a run that is made and written now."""
    watch = Stopwatch()
    with TerminalProgress() as progress:
        with watch.timing("load"), progress.stage("load model", None):
            lm = _load_model(options)
        header = {name: options[name] for name in ("shard", "unit_samples")}
        header["collected"] = _digest_of(options["collected"])
        checkpoint.open({**identity(lm, task, guards, settings), **header})
        with _execution(options, progress, checkpoint) as execution:
            if shard is not None:
                run = collect_shard(
                    lm,
                    task,
                    shard,
                    execution=execution,
                    watch=watch,
                    **dataclasses.asdict(settings),
                )
                run.save(out)
                return run_document(run, str(out), None)
            run, document = train(
                lm,
                task,
                guards,
                settings,
                out,
                evaluated=options["evaluated"],
                explained=options["describe"],
                collected=options["collected"],
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


def _run_folder(options: Options, task: Task) -> Path:
    """The folder asked for; else the newest that was not finished, to resume; else a new one."""
    if options["out"]:
        return Path(options["out"])
    left = Path("runs").glob(f"*-{Path(task.name).stem}{UNFINISHED}") if options["resume"] else ()
    newest = max(left, default=None)
    if newest is None:
        return _new_folder(task)
    return newest.with_name(newest.name.removesuffix(UNFINISHED))


def _finished(out: Path, task: Task, settings: FitSettings) -> dict[str, Any]:
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


def run_report(options: Options) -> None:
    """`corrsteer report`."""
    run, folder = load_run(options["run"]), Path(options["out"] or options["run"])
    paths = [write_report(run, folder)]
    if options["figures"]:
        paths += write_figures(run, folder / "figures")
    sys.stdout.write("".join(f"{path}\n" for path in paths))


def run_eval(options: Options) -> None:
    """`corrsteer eval`."""
    run = None if options["run"] == BASELINE else load_run(options["run"])
    name = options["task"] or (run.provenance.task if run else None)
    if not name:
        raise SettingsError("which task? give --task NAME; see `corrsteer tasks`")
    if run is None and options["strength"]:
        raise SettingsError("the baseline is not steered; leave --strength out, or give a run")
    options = _seeded(options, run.settings.seed if run else FitSettings.seed)
    task = _load_task(name, _defaults_of(run, options, name))
    watch = Stopwatch()
    with (
        _quietly(),
        _unfinished_reading(options, options["run"]) as checkpoint,
        TerminalProgress() as progress,
        _execution(options, progress, checkpoint) as execution,
    ):
        with watch.timing("load"), progress.stage("load model", None):
            lm = _load_model(_model_of(run, options))
        checkpoint.open(_reads(lm))
        runner = ArmRunner(
            lm,
            task,
            "test",
            limit=options["test_limit"],
            seed=options["seed"],
            batch_size=options["batch_size"],
            execution=execution,
            force=options["force"],
        )
        with watch.timing("evaluate"):
            arms = [
                (steering, evaluate_on(runner, steering))
                for steering in _steerings(run, options["strength"], lm)
            ]
    path = None if run is None else options["run"]
    document = evaluation_document(run, path, lm, task, arms, watch)
    _emit(document, options["as_json"], print_evaluation)


@contextmanager
def _unfinished_reading(options: Options, name: str) -> Iterator[Checkpoint]:
    """Where work is kept that prints its result and writes nothing.

    Beside the first run read, or in `runs`, under a name that other options do not share.
    """
    base = Path("runs") / name if name == BASELINE else Path(name)
    asked = {key: str(value) for key, value in sorted(options.items()) if key != "resume"}
    place = base.with_name(f"{base.name}.{fingerprint(asked)[:8]}")
    with unfinished(place, options["resume"]) as checkpoint:
        yield checkpoint


@contextmanager
def _execution(options: Options, progress: Progress, checkpoint: Checkpoint) -> Iterator[Execution]:
    """Who does the work that the options ask for."""
    own = Execution(progress, checkpoint=checkpoint, unit_samples=options["unit_samples"])
    if options["engine"] == LOCAL:
        yield own
        return
    settings = ClusterSettings(
        options["workers"], options["ray_address"], options["gpus_per_worker"]
    )
    with workers_of(settings, progress) as workers:
        yield dataclasses.replace(own, executor=workers)


def _reads(lm: LanguageModel) -> dict[str, Any]:
    """What replies depend on beside prompts and steering, as JSON."""
    return {
        "model": lm.id,
        "revision": lm.revision,
        "dtype": str(lm.model.dtype),
        "versions": library_versions(),
    }


def list_models(as_json: bool) -> None:
    """`corrsteer models`."""
    rows = [{"name": m.name, "description": m.description} for m in KNOWN_MODELS.values()]
    _emit_names("Models", rows, as_json)


def list_tasks(as_json: bool) -> None:
    """`corrsteer tasks`."""
    rows = [{"name": name, "description": text} for name, text in known_tasks().items()]
    _emit_names("Tasks", rows, as_json)


def fit_settings(options: Options) -> FitSettings:
    """The settings of a fit that `train`'s options ask for.

    `--layer` and `--validate` are the paper's way to name strategies.

    Raises:
        SettingsError: a value that is not allowed, or options that contradict each other.
    """
    strategy, layers = options["strategy"], options["layers"]
    layer, validate = options["layer"], options["validate"]
    if layer is None and validate:
        raise SettingsError("--validate belongs to --layer foreach; or give --strategy P")
    if layer is not None:
        if strategy is not None:
            raise SettingsError("--layer and --strategy both name a strategy; give one of them")
        named = {"global": "S", "foreach": "P" if validate else "A"}
        if layer in named:
            strategy = named[layer]
        elif layer.isdigit():
            if layers is not None:
                raise SettingsError(f"--layer {layer} and --layers exclude each other; give one")
            strategy, layers = "P" if validate else "A", (int(layer),)
        else:
            raise SettingsError(f"--layer is {layer!r}; choose global, foreach or a number")
    same = (
        "samples",
        "pool",
        "steer_pool",
        "positions",
        "coefficient",
        "method",
        "sign",
        "strength",
        "controls",
        "min_frequency",
        "sae_dtype",
        "log",
        "permutations",
        "val_limit",
        "test_limit",
        "seed",
        "batch_size",
    )
    given = {name: options[name] for name in same if options[name] is not None}
    if options["strengths"] is not None:
        given["strengths"] = options["strengths"]
    return FitSettings.of(strategy=strategy or "auto", layers=layers, **given)


def _seeded(options: Options, seed: int) -> Options:
    """The options, with this seed where none is given.

    A run's own seed, when it is evaluated again: with another one, samples that it was fitted on
    could be in the test split.
    """
    return options if options["seed"] is not None else {**options, "seed": seed}


def _load_task(name: str, options: Options) -> Task:
    variant = options["filter_value"]
    if variant is not None:
        known = f"{name}-{variant}"
        if known not in known_tasks():
            raise SettingsError(f"--filter-value {variant}: there is no task {known!r}")
        name = known
    task = load_task(
        name,
        options["scorer"],
        options["seed"],
        options["max_new_tokens"],
        data=_data_folder(options, name) or _data_folder(options),
        few=options["few"] or 0,
        chat=bool(options["chat"]),
        select_token=bool(options["select_token"]),
    )
    prepare(task.scorer)
    return task


def _data_folder(options: Options, task: str | None = None) -> str | None:
    """The local copy given for a task by name, or the one given without a name.

    Raises:
        SettingsError: several are given for one.
    """
    found = []
    for given in options["data"]:
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


def _load_guards(names: str | None, task: Task, options: Options) -> list[Task]:
    """The guard tasks asked for, or the task's own; `none` for none."""
    if names == "none":
        return []
    wanted = task.guards if names is None else tuple(names.split(","))
    if task.name in wanted:
        raise SettingsError(f"--guard {task.name} is the task itself; choose others")
    guards = [
        load_task(name, seed=options["seed"], data=_data_folder(options, name)) for name in wanted
    ]
    for guard in guards:
        prepare(guard.scorer)
    return guards


def _load_model(options: Options) -> LanguageModel:
    if options["raw"] and options["sae"]:
        raise SettingsError("--raw and --sae exclude each other; give one of them")
    return load_model(
        options["model"] or _default_model(options["task"]),
        sae=RAW if options["raw"] else options["sae"],
        dtype=options["dtype"],
        device=options["device"] or ("cpu" if options.get("engine", LOCAL) != LOCAL else None),
        hook_shift=options["hook_shift"],
        revision=options["revision"],
        prepend_bos=options.get("prepend_bos", False),
    )


def _default_model(task: str) -> str:
    built_in = task in mini.NAMES or task.endswith(".jsonl")
    return DEFAULT_MODEL if built_in else DEFAULT_BENCHMARK_MODEL


def _model_of(run: Run | None, options: Options) -> Options:
    """The options, with the run's own model, at its own commit, where none is given."""
    if run is None:
        return options
    options = {**options, "prepend_bos": run.provenance.prepend_bos}
    if options["model"]:
        return options
    revision = options["revision"] or run.provenance.revision
    return {**options, "model": run.provenance.model, "revision": revision}


def _defaults_of(run: Run | None, options: Options, task_name: str) -> Options:
    """The options, with the run's own ones where its own task is evaluated again.

    A function scorer is not taken over: only what the command line names is ever imported.
    """
    if run is None or task_name != run.provenance.task:
        return options
    asked = run.provenance.task_options
    own = {
        "few": asked.few,
        "chat": asked.chat,
        "select_token": asked.select_token,
        "data": (asked.data,) if asked.data else (),
    }
    options = {
        **options,
        **{name: value for name, value in own.items() if options[name] in (None, ())},
    }
    scorer = options["scorer"] or run.provenance.scorer
    if options["scorer"] is None and ":" in scorer and not scorer.startswith("regex:"):
        raise SettingsError(
            f"the run was scored by {scorer}; name it again with --scorer to run it"
        )
    length = options["max_new_tokens"] or run.provenance.max_new_tokens
    return {**options, "scorer": scorer, "max_new_tokens": length}


def _steerings(
    run: Run | None, strengths: Sequence[float] | None, lm: LanguageModel
) -> list[Steering]:
    if run is None:
        return [Steering({}, (), lm.id, lm.revision)]
    if strengths is None:
        return [run.steering]
    return [run.steering.at(strength) for strength in strengths]


def _new_folder(task: Task) -> Path:
    """A folder that does not exist yet, named by the time and the task."""
    time = datetime.now().strftime("%Y%m%d-%H%M%S")
    base = Path("runs") / f"{time}-{Path(task.name).stem}"
    folder, number = base, 1
    while folder.exists():
        number += 1
        folder = base.with_name(f"{base.name}-{number}")
    return folder


@contextmanager
def _quietly() -> Iterator[None]:
    """Keeps other libraries' warnings out of the terminal; ours are plain lines on stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("corrsteer: %(message)s"))
    logger = logging.getLogger("corrsteer")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.removeHandler(handler)


def _emit(document: Options, as_json: bool, show: Callable[[Options], None]) -> None:
    if as_json:
        from corrsteer.json_text import to_json

        sys.stdout.write(to_json(document))
    else:
        show(document)


def _emit_names(title: str, rows: Sequence[Mapping[str, str]], as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
    else:
        print_names(title, rows)
