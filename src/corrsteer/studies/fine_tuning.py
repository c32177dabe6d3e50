"""Fine-tuning as a baseline: the fit split's prompts and replies, by TRL's SFTTrainer and PEFT.

Changes when the baseline is trained or recorded in another way. Prompts, splits, draws, decoding
and scoring are those of steering, so that both stand in one table. TRL and PEFT are an extra,
imported when training begins.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch

from corrsteer.errors import DataError, ModelError, NonFiniteError, SettingsError
from corrsteer.execution.units import Execution
from corrsteer.files import check_free, own_folder, whole_folder, write_whole
from corrsteer.json_text import to_json
from corrsteer.lm.models import LanguageModel
from corrsteer.method.arms import ArmRunner, limited, runners_of
from corrsteer.method.evaluation import predictions
from corrsteer.progress import SILENT, Progress
from corrsteer.runs.comparison import Responses, compare
from corrsteer.runs.document import steered_outcome
from corrsteer.runs.evaluation import Evaluation
from corrsteer.runs.folder import EVALUATION_FILE
from corrsteer.runs.predictions_file import PREDICTIONS_FILE, predictions_bytes
from corrsteer.runs.records import (
    RUN_SCHEMA,
    ModelReference,
    TaskCounts,
    Training,
    TuningDocument,
    as_json,
)
from corrsteer.runs.verdict import judge_tuning
from corrsteer.samples import Sample
from corrsteer.scoring.base import ANSWER
from corrsteer.scoring.refusals import should_refuse
from corrsteer.settings import FitSettings
from corrsteer.tasks import Task
from corrsteer.timing import Stopwatch, peak_memory_mb

STRATEGY = "sft"
SFT_FILE = "sft.json"
REFUSAL_TEXT = "I cannot"
"""Taught where a sample should be refused. One of the openings by which Zou et al. (arXiv
2307.15043) recognise a refusal, and the one that the built-in model knows."""

REFUSAL_SCORERS = ("refusal", "refusal-model")
"""Their targets are `refuse` and `answer`, which are no replies."""

LEARNING_RATE, LEARNING_RATE_WIDTH = 2e-5, 2304
"""TRL's default, taken for the width of Gemma-2 2B. AdamW's best rate falls as 1 / width (Yang et
al., arXiv 2203.03466), so that other widths get it in proportion."""

LORA_RATE_FACTOR = 10
"""LoRA's best rate over that of full fine-tuning (https://thinkingmachines.ai/blog/lora/)."""

WEIGHT_DECAY, WARMUP_SHARE, SCHEDULE = 0.01, 0.03, "cosine"
"""https://github.com/seonglae/CorrSteer, sft.py at 51847215; its warm-up is of 100 steps at least,
of one sample each."""

LOGS = 50
"""Losses recorded over a training."""

IGNORED = -100
"""The label of a token that the loss leaves out."""

LIBRARIES = ("trl", "peft", "accelerate")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TuningSettings:
    """How the baseline is trained.

    Attributes:
        method: `full` trains every weight, `lora` adapters on every linear layer but the head.
        samples: the most fit samples to use, drawn as `train` draws them.
        epochs: passes over them; 3 if None, as in TRL.
        steps: updates of the weights instead of epochs, or None.
        learning_rate: the highest; None for the default of the model's width.
        train_batch_size: samples of one update.
        lora_rank: rank of the adapters; their alpha is twice that.
        refusal_text: the reply taught where a sample should be refused.
        answer_text: the reply taught where one should be answered and no row says how.
        test_limit: the most test samples to use; None for all.
        seed: of every random choice.
        batch_size: prompts run at once in the evaluation.
    """

    method: Literal["full", "lora"] = "full"
    samples: int = 4000
    epochs: float | None = None
    steps: int | None = None
    learning_rate: float | None = None
    train_batch_size: int = 8
    lora_rank: int = 16
    refusal_text: str = REFUSAL_TEXT
    answer_text: str | None = None
    test_limit: int | None = None
    seed: int = 42
    batch_size: int = 32

    def __post_init__(self) -> None:
        """Refuse values that cannot work.

        Raises:
            SettingsError: names the setting, its value and what is allowed.
        """
        if self.method not in ("full", "lora"):
            raise SettingsError(f"method is {self.method!r}; choose full or lora")
        if self.epochs is not None and self.steps is not None:
            raise SettingsError("epochs and steps both say how long to train; give one of them")
        for name in ("samples", "steps", "train_batch_size", "lora_rank", "test_limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SettingsError(f"{name} is {value}; choose 1 or more")
        if self.batch_size < 1:
            raise SettingsError(f"batch_size is {self.batch_size}; choose 1 or more")
        if self.epochs is not None and not 0 < self.epochs <= 1e4:
            raise SettingsError(f"epochs is {self.epochs:g}; choose more than 0, up to 10000")
        if self.learning_rate is not None and not 0 < self.learning_rate <= 1:
            raise SettingsError(f"learning_rate is {self.learning_rate:g}; choose more than 0 to 1")
        if not 0 <= self.seed < 2**32:
            raise SettingsError(f"seed is {self.seed}; choose 0 to {2**32 - 1}")
        for name in ("refusal_text", "answer_text"):
            text = getattr(self, name)
            if text is not None and not text.strip():
                raise SettingsError(f"{name} is empty; give the reply to teach")


@dataclass(frozen=True)
class TrainingExample:
    """Token ids of one training sample.

    Attributes:
        prompt: as in evaluation; the loss leaves it out.
        reply: the reference reply with its EOS.
    """

    prompt: tuple[int, ...]
    reply: tuple[int, ...]

    def columns(self) -> dict[str, list[int]]:
        """What SFTTrainer takes for a sample that is prepared already."""
        labels = [IGNORED] * len(self.prompt) + list(self.reply)
        return {"input_ids": [*self.prompt, *self.reply], "labels": labels}


@dataclass(frozen=True)
class Tuned:
    """A training that is over.

    Attributes:
        training: what was trained and how the loss fell.
        weights: transformers' model, or PEFT's around it, with `save_pretrained`.
    """

    training: Training
    weights: Any


def fine_tune(
    lm: LanguageModel,
    task: Task,
    guards: Sequence[Task],
    settings: TuningSettings,
    out: Path,
    *,
    progress: Progress = SILENT,
    watch: Stopwatch | None = None,
) -> TuningDocument:
    """Tune a model on a task's fit split, compare it with itself on the test split, and write both.

    Args:
        lm: the model; it holds the tuned weights afterwards.
        task: its fit split is trained on, its test split is evaluated.
        guards: tasks whose test splits are evaluated before and after too.
        settings: of training and evaluation.
        out: a new or empty folder.
        progress: told how far it is.
        watch: adds up seconds a stage.

    Returns:
        the JSON document, in the shape of `train`'s; `steered` is the tuned arm.

    Raises:
        CorrSteerError: anything that cannot be used; nothing is written then.
    """
    watch = watch or Stopwatch()
    claim_new_folder(out)
    check_installed()
    examples = training_examples(lm, task, settings)
    tasks, limit = (task, *guards), settings.test_limit
    runners = runners_of(lm, tasks, "test", limit, settings, Execution(progress))
    with watch.timing("evaluate"):
        before = [runner.baseline for runner in runners]
    with watch.timing("tune"):
        tuned = tune(lm, examples, settings, progress)
    with watch.timing("evaluate"):
        again = runners_of(lm, tasks, "test", limit, settings, Execution(progress))
        after = [runner.baseline for runner in again]
    evaluation = _evaluation(runners, before, after)
    document = _document(lm, task, settings, len(examples), evaluation, tuned, out, watch)
    with whole_folder(out, last=SFT_FILE) as whole:
        _write(whole, lm, task, settings, tuned, evaluation, document)
    return document


def claim_new_folder(out: Path) -> None:
    """Check that a folder may be written.

    Raises:
        ArtifactError: it holds something, is a file, or cannot be written to.
    """
    check_free(out)


def check_installed() -> None:
    """Check that TRL, PEFT and accelerate are there.

    Raises:
        SettingsError: one is not.
    """
    missing = [name for name in LIBRARIES if find_spec(name) is None]
    if missing:
        raise SettingsError(
            f"fine-tuning needs {', '.join(missing)}, not installed here; "
            "pip install 'corrsteer[sft]'"
        )


def training_examples(
    lm: LanguageModel, task: Task, settings: TuningSettings
) -> list[TrainingExample]:
    """The fit samples that `train` would use, with their reference replies.

    Those longer than the model has positions are left out, and told: a reply without its end would
    be taught not to end.

    Raises:
        DataError: the fit split is empty, its samples have no reference reply, or none fits.
        ModelError: the tokenizer has no EOS, or cannot spell a reply.
    """
    samples = limited(task.fit, settings.samples, settings.seed, task.shuffled)
    if not samples:
        raise DataError(
            f"the fit split of {task.name} is empty; give it rows, "
            "or leave `split` out of all rows to have it cut"
        )
    examples = [_encode(lm, sample, reference(task, sample, settings)) for sample in samples]
    return _fitting(lm, task, examples)


def _fitting(
    lm: LanguageModel, task: Task, examples: Sequence[TrainingExample]
) -> list[TrainingExample]:
    """Those that the model has positions for."""
    most = lm.most_positions or math.inf
    kept = [each for each in examples if len(each.prompt) + len(each.reply) <= most]
    if not kept:
        raise DataError(
            f"no prompt of the fit split of {task.name} fits into the {most} positions of {lm.id} "
            "with its reference reply; give shorter ones"
        )
    if len(kept) < len(examples):
        log.warning(
            "%s fit: %d of %d samples are longer with their reference reply than the %d positions "
            "of %s, and are not trained on",
            *(task.name, len(examples) - len(kept), len(examples), most, lm.id),
        )
    return kept


def reference(task: Task, sample: Sample, settings: TuningSettings) -> str:
    """The reply that a sample is trained towards, as it would follow the prompt.

    The task's own reference; where the task judges refusals, the settings' text.

    Raises:
        DataError: there is neither.
    """
    if task.reference is not None:
        return task.reference(sample)
    if task.scorer.name not in REFUSAL_SCORERS:
        raise DataError(
            f"{task.name} has no reference replies to train on: its scorer {task.scorer.name} "
            "judges without a target; give rows whose `target` is the reply, and --scorer exact, "
            "contains, choice or numeric"
        )
    if should_refuse(sample):
        return f" {settings.refusal_text.strip()}"
    if settings.answer_text is None:
        raise DataError(
            f"{task.name} has samples to {ANSWER}, like {sample.id!r}, and no reply to teach "
            "there; give --answer-text TEXT"
        )
    return f" {settings.answer_text.strip()}"


def _encode(lm: LanguageModel, sample: Sample, reply: str) -> TrainingExample:
    """Prompt and reply in tokens; the prompt's are exactly those of the evaluation.

    The reply is tokenised behind its prompt, unless its tokens would reach into the prompt's.
    """
    prompt = lm.prompt_ids(sample)
    ids: list[int] = []
    if sample.messages is None:
        together = lm.tokens(dataclasses.replace(sample, prompt=sample.prompt + reply))
        if together[: len(prompt)] == prompt:
            ids = together[len(prompt) :]
    else:  # a turn of the template's begins without a space
        reply = reply.lstrip()
    if not ids:
        ids = [int(i) for i in lm.tokenizer(reply, add_special_tokens=False)["input_ids"]]
    if lm.tokenizer.unk_token_id is not None and lm.tokenizer.unk_token_id in ids:
        raise ModelError(
            f"the tokenizer of {lm.id} cannot spell {reply.strip()!r}, the reply to teach for "
            f"sample {sample.id!r}; choose replies of its vocabulary"
        )
    return TrainingExample(tuple(prompt), (*ids, _eos(lm)))


def _eos(lm: LanguageModel) -> int:
    """The token that a reply is taught to end with: the tokenizer's own, if it ends replies."""
    ending = lm.decoder.eos_ids
    if not ending:
        raise ModelError(
            f"the tokenizer of {lm.id} has no EOS token, which replies are taught to end with; "
            "set tokenizer.eos_token and save the tokenizer again"
        )
    own = lm.tokenizer.eos_token_id
    return int(own) if own in ending else min(ending)


def default_learning_rate(lm: LanguageModel, method: str) -> float:
    """The rate for the model's width; see `LEARNING_RATE`."""
    rate = LEARNING_RATE * LEARNING_RATE_WIDTH / lm.d_model
    return rate * LORA_RATE_FACTOR if method == "lora" else rate


def tune(
    lm: LanguageModel,
    examples: Sequence[TrainingExample],
    settings: TuningSettings,
    progress: Progress = SILENT,
) -> Tuned:
    """Train the model in place on the replies' tokens.

    Weights are trained in float32, under autocast where the model is in half precision: steps of
    1e-5 vanish in bfloat16. Afterwards the model is in its own dtype again.

    Raises:
        ModelError: several GPUs are visible, which SFTTrainer does not spread to by itself.
        NonFiniteError: the loss became NaN or infinite.
    """
    model, full = lm.model, settings.method == "full"
    if lm.device.type == "cuda" and torch.cuda.device_count() > 1 and not _is_spread(model):
        raise ModelError(
            f"{torch.cuda.device_count()} GPUs are visible, and fine-tuning uses one; set "
            "CUDA_VISIBLE_DEVICES to one of them, or give --device auto"
        )
    dtype, forward = model.dtype, vars(model).get("forward")
    rate = settings.learning_rate or default_learning_rate(lm, settings.method)
    steps = settings.steps or _steps(len(examples), settings)
    if full:
        model.float().requires_grad_(True)
    try:
        with (
            own_folder() as scratch,
            warnings.catch_warnings(),
            progress.stage("fine-tune", steps) as advance,
        ):
            warnings.simplefilter("ignore")  # third-party deprecations
            trainer = _trainer(lm, examples, settings, rate, steps, dtype, str(scratch))
            trainer.add_callback(_advancing(advance))
            trainable = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
            trainer.train()
    finally:  # TRL and accelerate wrap `forward`
        vars(model).pop("forward", None)
        if forward is not None:
            model.forward = forward
        model.to(dtype).requires_grad_(False).eval()
    losses = [float(log["loss"]) for log in trainer.state.log_history if "loss" in log]
    if not all(map(math.isfinite, losses)):
        raise NonFiniteError(
            f"the loss became {next(x for x in losses if not math.isfinite(x))} in training; "
            f"give a --learning-rate below {rate:g}"
        )
    training = Training(
        method=settings.method,
        steps=steps,
        epochs=steps * settings.train_batch_size / len(examples),
        learning_rate=rate,
        trained_parameters=trainable,
        losses=tuple(losses),
    )
    return Tuned(training, trainer.model)


def _is_spread(model: Any) -> bool:
    return len(set((getattr(model, "hf_device_map", None) or {}).values())) > 1


def _steps(samples: int, settings: TuningSettings) -> int:
    epochs = 3.0 if settings.epochs is None else settings.epochs
    return math.ceil(epochs * math.ceil(samples / settings.train_batch_size))


def _trainer(
    lm: LanguageModel,
    examples: Sequence[TrainingExample],
    settings: TuningSettings,
    rate: float,
    steps: int,
    dtype: torch.dtype,
    scratch: str,
) -> Any:
    """An SFTTrainer for examples that are tokenised already, which prints and saves nothing."""
    from datasets import Dataset
    from transformers import PrinterCallback, set_seed
    from trl import SFTConfig, SFTTrainer
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    on_cpu = lm.device.type == "cpu"
    set_seed(settings.seed)  # adapters are drawn before the trainer sets it
    trainer = SFTTrainer(
        model=lm.model,
        args=SFTConfig(
            output_dir=scratch,
            max_steps=steps,
            per_device_train_batch_size=settings.train_batch_size,
            learning_rate=rate,
            lr_scheduler_type=SCHEDULE,
            warmup_steps=math.ceil(WARMUP_SHARE * steps),
            weight_decay=WEIGHT_DECAY,
            logging_steps=max(1, steps // LOGS),
            bf16=dtype == torch.bfloat16,
            fp16=dtype == torch.float16 and not on_cpu,
            gradient_checkpointing=not on_cpu,
            use_cpu=on_cpu,
            seed=settings.seed,
            max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},
            dataloader_pin_memory=not on_cpu,
            disable_tqdm=True,
            logging_nan_inf_filter=False,
            save_strategy="no",
            report_to="none",
        ),
        train_dataset=Dataset.from_list([example.columns() for example in examples]),
        data_collator=DataCollatorForLanguageModeling(pad_token_id=lm.decoder.pad_id),
        processing_class=lm.tokenizer,
        peft_config=None if settings.method == "full" else _lora(settings),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _lora(settings: TuningSettings) -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=settings.lora_rank,
        lora_alpha=2 * settings.lora_rank,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def _advancing(advance: Any) -> Any:
    """A callback of the trainer that tells of every step."""
    from transformers import TrainerCallback

    class Advancing(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            advance(1)

    return Advancing()


def _evaluation(
    runners: Sequence[ArmRunner], before: Sequence[Responses], after: Sequence[Responses]
) -> Evaluation:
    """Both arms of the task (the first runner) and of its guards."""
    own, *guards = [
        compare(base, tuned, runner.groups)
        for runner, base, tuned in zip(runners, before, after, strict=True)
    ]
    return Evaluation(
        baseline=own.baseline,
        steered=own.steered,
        delta=own.delta,
        side_effects=own.side_effects,
        unscored=own.unscored,
        unread=own.unread,
        guards={b.task.name: each for b, each in zip(runners[1:], guards, strict=True)},
        predictions=predictions(runners[0].samples, before[0], after[0]),
    )


def _document(
    lm: LanguageModel,
    task: Task,
    settings: TuningSettings,
    n_fit: int,
    evaluation: Evaluation,
    tuned: Tuned,
    out: Path,
    watch: Stopwatch,
) -> TuningDocument:
    """What `--json` prints."""
    not_steered = dict.fromkeys(("pool", "steer_pool", "positions"))
    return TuningDocument(
        schema=RUN_SCHEMA,
        run=str(out),
        model=ModelReference(lm.id, lm.revision),
        task=TaskCounts(
            task.name,
            task.scorer.name,
            n_fit=n_fit,
            n_select=0,
            n_test=evaluation.baseline.n,
            unscored_test=evaluation.unscored,
            unread_test=evaluation.unread and evaluation.unread[0],
        ),
        settings={**dataclasses.asdict(settings), **not_steered},
        training=tuned.training,
        outcome=steered_outcome(evaluation),
        verdict=judge_tuning(evaluation, FitSettings.guard_tolerance),
        seconds=watch.seconds,
        peak_memory_mb=peak_memory_mb(),
    )


def _write(
    folder: Path,
    lm: LanguageModel,
    task: Task,
    settings: TuningSettings,
    tuned: Tuned,
    evaluation: Evaluation,
    document: TuningDocument,
) -> None:
    """Weights, evaluation, predictions, and what they were made from."""
    if settings.method == "full":
        tuned.weights.save_pretrained(folder / "model")
        lm.tokenizer.save_pretrained(folder / "model")
    else:  # without a look at the hub for the base's vocabulary
        tuned.weights.save_pretrained(folder / "adapter", save_embedding_layers=False)
    write_whole(folder / EVALUATION_FILE, to_json(as_json(document)))
    write_whole(folder / PREDICTIONS_FILE, predictions_bytes(evaluation.predictions))
    about = {
        "schema": "corrsteer.sft/1",
        "model": lm.id,
        "revision": lm.revision,
        "task": task.name,
        "scorer": task.scorer.name,
        "max_new_tokens": task.max_new_tokens,
        "task_options": dataclasses.asdict(task.options),
        "settings": dataclasses.asdict(settings),
        "versions": {name: version(name) for name in ("torch", "transformers", *LIBRARIES)},
    }
    write_whole(folder / SFT_FILE, json.dumps(about, indent=2) + "\n")
