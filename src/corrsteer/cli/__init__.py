"""The command line: commands, their options, and exit codes.

Changes when a command or an option does. What commands do is in `cli.run`, imported when one runs,
so that `--help` loads no heavy library.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from corrsteer import __version__
from corrsteer.errors import CorrSteerError

EXIT_MISTAKE, EXIT_INTERRUPTED = 2, 130

Decorator = Callable[[Callable[..., None]], Callable[..., None]]


class Numbers(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """Numbers with commas between them, as a tuple."""

    name = "numbers"

    def __init__(self, kind: type[int] | type[float]):
        self._kind = kind

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """The numbers of a text like `1,2,5`."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(self._kind(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers like 1,2,5", param, ctx)


def _options(*options: Decorator) -> Decorator:
    """Several options as one decorator, in the order given."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


MODEL_OPTIONS = _options(
    click.option(
        "--model",
        help="Known name (see `models`), hub id or folder; mini for built-in tasks and files.",
    ),
    click.option(
        "--sae",
        metavar="FOLDER|RELEASE",
        help="Folder of SAEs, or a release of sae-lens's directory; a known model brings its own.",
    ),
    click.option("--raw", is_flag=True, help="Use residual dimensions instead of SAE latents."),
    click.option("--revision", help="Commit of a hub id. [default: main, or the run's own]"),
    click.option("--hook-shift", type=int, default=0, help="Steer this many blocks later."),
    click.option("--dtype", help="float32, bfloat16 or float16."),
    click.option("--device", help="cpu, cuda, cuda:1, ..., or auto to spread over several GPUs."),
)
TASK_OPTIONS = _options(
    click.option("--scorer", metavar="NAME", help="Judge replies by this instead."),
    click.option("--max-new-tokens", type=int, help="Longest reply."),
    click.option("--filter-value", metavar="V", help="The variant V of a task, as bbq's disambig."),
    click.option(
        "--data",
        metavar="[TASK=]FOLDER",
        multiple=True,
        help="Local copy of a benchmark's data set; TASK= for one that is a guard.",
    ),
    click.option("--few", type=int, help="Solved examples in front of every prompt."),
    click.option("--chat", is_flag=True, default=None, help="Use the model's own chat template."),
    click.option(
        "--select-token",
        is_flag=True,
        default=None,
        help="Choose the reply among the options' letters alone.",
    ),
    click.option("--seed", type=int, help="Of splits, draws and controls. [default: 42]"),
    click.option("--batch-size", type=int, default=32, show_default=True),
    click.option("--test-limit", type=int, help="At most this many test samples."),
)
SELECT_OPTIONS = _options(
    click.option("--method", help="Rank by corr, mi, fisher or contrast. [default: corr]"),
    click.option("--sign", help="positive, negative or both. [default: positive]"),
    click.option("--coefficient", help="positive, contrast or active. [default: positive]"),
    click.option("--min-frequency", type=float, help="Of a feature, to be selected. [default: 0]"),
)
ENGINE_OPTIONS = _options(
    click.option(
        "--engine",
        type=click.Choice(["local", "ray"]),
        default="local",
        show_default=True,
        help="Who does the work: this process, or workers on a Ray cluster.",
    ),
    click.option(
        "--workers", type=click.IntRange(1), default=2, show_default=True, help="On the cluster."
    ),
    click.option(
        "--ray-address", metavar="HOST:PORT", help="A running cluster. [default: one started here]"
    ),
    click.option("--gpus-per-worker", type=click.FloatRange(0), default=0.0, show_default=True),
    click.option(
        "--unit-samples",
        type=click.IntRange(1),
        default=64,
        show_default=True,
        help="Samples that are done, kept and handed out together.",
    ),
)
RESUME_OPTION = click.option(
    "--resume", is_flag=True, help="Go on where a run that was killed or stopped has left off."
)
JSON_OPTION = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")

TRAIN_EPILOG = """\b
Examples:
  corrsteer train --task mini-harmbench
  corrsteer train --task mini-mmlu --strategy A --strength 0.5
  corrsteer train --task mini-mmlu --layer global --pool mean
  corrsteer train --task my.jsonl --scorer exact --guard mini-mmlu --out runs/mine
  corrsteer train --task my.jsonl --scorer exact --guard mini-mmlu --out runs/mine --resume
  corrsteer train --task mini-mmlu --collected runs/merged --strategy P --out runs/searched
"""
EVAL_EPILOG = """\b
Examples:
  corrsteer eval baseline --task mini-mmlu
  corrsteer eval runs/mine
  corrsteer eval runs/mine --task mini-xstest --strength 0.5,1,2
"""

SELECT_EPILOG = """\b
Examples:
  corrsteer select runs/mine --method mi
  corrsteer select runs/mine --sign both --coefficient contrast --strategy S --out runs/both
"""
VERIFY_EPILOG = """\b
Examples:
  corrsteer verify runs/mine --with torch
  corrsteer verify runs/mine --with lm-eval --python .venv-lm-eval/bin/python
  corrsteer verify runs/mine --with llama.cpp --model-path model-f32.gguf --drop-block-0
"""
EXPORT_EPILOG = """\b
Examples:
  corrsteer export runs/mine --to gguf --out mine.gguf
  corrsteer export runs/mine --to lm-eval --out mine.pt --strength 0.5
  corrsteer export runs/mine --to torch --out shared/mine
  corrsteer export runs/mine --to space --out space
"""
TRANSFER_EPILOG = """\b
Examples:
  corrsteer transfer runs/mmlu runs/refuse
  corrsteer transfer runs/mmlu --tasks mini-mmlu,mini-simpleqa,mini-gsm8k
"""
NULL_EPILOG = """\b
Examples:
  corrsteer study null --task mini-mmlu
  corrsteer study null --model mini --task mini-harmbench --runs 50 --val-limit 100 --out null
"""

PAPER_EPILOG = """\b
Examples:
  corrsteer study paper --model mini
  corrsteer study paper --model mini --tasks mini-mmlu,mini-harmbench --seeds 42 --skip sft
  corrsteer study paper --model gemma2b --samples 4000 --test-limit 1000 --val-limit 300
"""

SFT_EPILOG = """\b
Examples:
  corrsteer sft --task mini-mmlu
  corrsteer sft --task mini-simpleqa --lora --samples 100 --out runs/tuned
"""


@click.group(
    context_settings={
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": lambda token: token.replace("_", "-"),
        "max_content_width": 100,
    },
    epilog="Start with: corrsteer train --task mini-harmbench",
)
@click.version_option(__version__, prog_name="corrsteer")
def cli() -> None:
    """Scored samples in, a steering artifact for a language model out."""


@cli.command(epilog=TRAIN_EPILOG)
@MODEL_OPTIONS
@click.option("--task", required=True, help="Known name (see `tasks`) or a .jsonl file.")
@TASK_OPTIONS
@click.option("--strategy", help="S, A, P, G, or auto to try all and recommend. [default: auto]")
@click.option("--layer", help="global for S, foreach for A, or the number of one layer.")
@click.option("--validate", is_flag=True, help="With --layer foreach: P.")
@click.option("--layers", type=Numbers(int), metavar="1,2,5", help="SAE layers to use.")
@click.option("--guard", metavar="T,T", help="Tasks not to harm; `none` for none.")
@click.option("--samples", "--num-samples", type=int, default=4000, show_default=True)
@click.option("--pool", default="max", show_default=True, help="max or mean, for r.")
@click.option("--steer-pool", default="max", show_default=True, help="For the coefficient.")
@click.option("--positions", "--mask", default="generated", show_default=True, help="Or: all.")
@SELECT_OPTIONS
@click.option("--strength", type=float, default=1.0, show_default=True)
@click.option("--strengths", type=Numbers(float), metavar="a,b,c", help="To choose from.")
@click.option("--controls", type=int, default=10, show_default=True, help="Random controls.")
@click.option("--permutations", type=int, default=1000, show_default=True, help="For p-values.")
@click.option("--sae-dtype", default="float32", show_default=True, help="Or: bfloat16, faster.")
@click.option("--log/--no-log", default=True, help="Keep the activations, for permutations.")
@click.option("--shard", metavar="I/N", help="Collect part I of N alone, to `merge` later.")
@click.option(
    "--collected",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Collect nothing, but take what that run did, as after `merge`.",
)
@click.option("--val-limit", type=int, help="At most this many select samples.")
@click.option("--describe", is_flag=True, help="Look the features up on Neuronpedia.")
@click.option("--eval/--no-eval", "evaluated", default=True, help="Run the test split too.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Run folder; runs/TIME-TASK by default."
)
@ENGINE_OPTIONS
@RESUME_OPTION
@JSON_OPTION
def train(**options: Any) -> None:
    """Find, validate and evaluate steering features, and write a run.

    Progress goes to stderr. Exit codes: 0 done, 2 a mistake in what was given, 130 interrupted.
    """
    from corrsteer.cli.run import run_train

    run_train(options)


@cli.command("eval", epilog=EVAL_EPILOG)
@click.argument("run", metavar="RUN|baseline")
@MODEL_OPTIONS
@click.option("--task", help="Known name or .jsonl file. [default: the run's own]")
@TASK_OPTIONS
@click.option("--strength", type=Numbers(float), metavar="a,b,c", help="[default: the run's own]")
@click.option("--force", is_flag=True, help="Steer a model that the run was not made on.")
@ENGINE_OPTIONS
@RESUME_OPTION
@JSON_OPTION
def evaluate(**options: Any) -> None:
    """Evaluate a saved run, or the unsteered model alone, on a task's test split.

    RUN is a folder that `train` wrote; its model is used unless --model says otherwise.
    """
    from corrsteer.cli.run import run_eval

    run_eval(options)


@cli.command()
@click.argument("run")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for it; the run's by default.")
@click.option("--figures", is_flag=True, help="Write its figures as SVG and PNG too.")
def report(**options: Any) -> None:
    """Write a run's report as one self-contained HTML file."""
    from corrsteer.cli.run import run_report

    run_report(options)


@cli.command(epilog=SELECT_EPILOG)
@click.argument("run")
@SELECT_OPTIONS
@click.option("--strategy", help="S or A. [default: the run's own, or A]")
@click.option("--strength", type=float, help="[default: the run's own]")
@click.option("--out", type=click.Path(path_type=Path), help="Write a run there; none by default.")
@JSON_OPTION
def select(**options: Any) -> None:
    """Choose a run's features again from what it saved: no model is loaded.

    What is not given stays as it was in the run.
    """
    from corrsteer.cli.derive import run_select

    run_select(options)


@cli.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN...")
@SELECT_OPTIONS
@click.option("--strategy", help="S or A. [default: the first run's own, or A]")
@click.option("--strength", type=float, help="[default: the first run's own]")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the run.")
@JSON_OPTION
def merge(**options: Any) -> None:
    """Add up runs of one model and task that were collected apart, and choose features again."""
    from corrsteer.cli.derive import run_merge

    run_merge(options)


@cli.command()
@click.option("--frequency", type=float, required=True, help="Share of samples a latent is on.")
@click.option("--k", type=int, default=10, show_default=True, help="Activations wanted.")
@click.option("--delta", type=float, default=0.05, show_default=True, help="Chance of fewer.")
@click.option("--correlation", type=float, help="The r to measure and find.")
@click.option("--width", type=float, default=0.2, show_default=True, help="Of its 95 % interval.")
@click.option(
    "--comparisons", type=int, default=26 * 16_384, show_default=True, help="Latents compared."
)
@click.option("--alpha", type=float, default=0.05, show_default=True, help="Family-wise level.")
@click.option("--samples", type=Numbers(int), metavar="a,b,c", help="Give the smallest |r| there.")
@JSON_OPTION
def plan(**options: Any) -> None:
    """How many samples are enough to see, measure and find a feature."""
    from corrsteer.cli.plan import run_plan

    run_plan(options)


@cli.command("export", epilog=EXPORT_EPILOG)
@click.argument("run")
@click.option("--to", required=True, help="lm-eval, gguf, vllm, torch or space.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="A new file or folder.")
@click.option("--strength", type=float, help="[default: the run's own]")
@click.option("--drop-block-0", is_flag=True, help="gguf: leave out what it cannot steer.")
@JSON_OPTION
def export_(**options: Any) -> None:
    """Write a run's steering in the format of another program, or the run as a Gradio Space."""
    from corrsteer.cli.export import run_export

    run_export(options)


@cli.command(epilog=VERIFY_EPILOG)
@click.argument("run")
@click.option("--with", "consumer", required=True, help="lm-eval, llama.cpp, vllm or torch.")
@click.option("--model", help="Known name, hub id or folder. [default: the run's own]")
@click.option("--revision", help="Commit of a hub id. [default: the run's own]")
@click.option("--model-path", metavar="FILE", help="llama.cpp: the same model as GGUF.")
@click.option("--python", metavar="PATH", help="A Python that has the consumer. [default: this]")
@click.option("--prompt", "prompts", multiple=True, help="Repeatable. [default: of the run's test]")
@click.option("--max-new-tokens", type=click.IntRange(1), default=16, show_default=True)
@click.option("--strength", type=float, help="[default: the run's own]")
@click.option("--drop-block-0", is_flag=True, help="llama.cpp: leave out what it cannot steer.")
@click.option("--tolerance", type=float, help="Of logits. [default: 1e-4; 2e-3 for Gemma]")
@JSON_OPTION
def verify(**options: Any) -> None:
    """Run another program with a run's steering, and compare what it does with what we do.

    Exit codes: 0 it does the same, 1 it does not, 2 it could not be tried.
    """
    from corrsteer.cli.export import run_verify

    run_verify(options)


@cli.command("demo")
@click.argument("runs", nargs=-1, required=True, metavar="RUN [RUN ...]")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=7860, show_default=True)
@click.option("--password", is_flag=True, help="Ask here for a password visitors must give.")
@click.option("--password-env", metavar="NAME", help="Take it from this environment variable.")
@click.option("--device", help="cpu, cuda, cuda:1, ..., or auto to spread over several GPUs.")
@click.option("--open/--no-open", default=True, help="Open the page in a browser.")
def serve_demo(**options: Any) -> None:
    """Try runs on a live web page, with and without steering side by side."""
    from corrsteer.cli.demo import run_demo

    run_demo(options)


@cli.command(epilog=SFT_EPILOG)
@MODEL_OPTIONS
@click.option("--task", required=True, help="Known name (see `tasks`) or a .jsonl file.")
@TASK_OPTIONS
@click.option("--lora", is_flag=True, help="Train LoRA adapters instead of every weight.")
@click.option("--lora-rank", type=int, default=16, show_default=True)
@click.option("--samples", "--num-samples", type=int, default=4000, show_default=True)
@click.option("--epochs", type=float, help="Passes over the samples. [default: 3]")
@click.option("--steps", type=int, help="Updates, instead of epochs.")
@click.option("--learning-rate", type=float, help="[default: by the model's width]")
@click.option("--train-batch-size", type=int, default=8, show_default=True, help="Of one update.")
@click.option("--refusal-text", metavar="TEXT", help="Reply where to refuse. [default: I cannot]")
@click.option("--answer-text", metavar="TEXT", help="Reply where to answer and no row says how.")
@click.option("--guard", metavar="T,T", help="Tasks to run before and after; `none` for none.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder; runs/TIME-TASK by default.")
@JSON_OPTION
def sft(**options: Any) -> None:
    """Fine-tune on the fit split, and compare the model before and after on the test split.

    The baseline that steering is held against: same prompts, splits, decoding and scorer.
    """
    from corrsteer.cli.sft import run_sft

    run_sft(options)


@cli.command(epilog=TRANSFER_EPILOG)
@click.argument("runs", nargs=-1, required=True, metavar="RUN [RUN ...]")
@click.option("--tasks", metavar="T,T", help="To try the runs on. [default: the runs' own]")
@click.option("--model", help="Known name, hub id or folder. [default: the runs' own]")
@click.option("--revision", help="Commit of a hub id. [default: the runs' own]")
@click.option("--dtype", help="float32, bfloat16 or float16.")
@click.option("--device", help="cpu, cuda, cuda:1, ..., or auto to spread over several GPUs.")
@click.option("--data", metavar="[TASK=]FOLDER", multiple=True, help="Local copy of a data set.")
@click.option("--seed", type=int, help="Of the splits. [default: the runs' own]")
@click.option("--batch-size", type=int, default=32, show_default=True)
@click.option("--test-limit", type=int, help="At most this many test samples of each task.")
@ENGINE_OPTIONS
@RESUME_OPTION
@JSON_OPTION
def transfer(**options: Any) -> None:
    """What each run's steering does to other tasks: source x target, on their test splits."""
    from corrsteer.cli.transfer import run_transfer

    run_transfer(options)


@cli.group()
def study() -> None:
    """Measure CorrSteer itself on a model."""


@study.command("null", epilog=NULL_EPILOG)
@MODEL_OPTIONS
@click.option("--task", required=True, help="Known name (see `tasks`) or a .jsonl file.")
@click.option("--scorer", metavar="NAME", help="Judge replies by this instead.")
@click.option("--max-new-tokens", type=int, help="Longest reply.")
@click.option("--data", metavar="FOLDER", multiple=True, help="Local copy of the data set.")
@click.option("--runs", type=int, default=200, show_default=True, help="Null runs of each part.")
@click.option("--samples", "--num-samples", type=int, default=4000, show_default=True)
@click.option("--val-limit", type=int, default=200, show_default=True, help="Select samples.")
@click.option("--permutations", type=int, default=1000, show_default=True, help="For p-values.")
@click.option("--seed", type=int, help="Of splits and null runs. [default: 42]")
@click.option("--batch-size", type=int, default=32, show_default=True)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder; studies/null-MODEL-TASK by default."
)
@JSON_OPTION
def study_null(**options: Any) -> None:
    """How often something is found where there is nothing.

    Shares of null runs in which a feature is called significant or a setting is recommended, and
    of intervals that hold the true r. A study that was stopped continues where it was.
    """
    from corrsteer.cli.study import run_null

    run_null(options)


@study.command("paper", epilog=PAPER_EPILOG)
@click.option("--model", required=True, help="Known name (see `models`), hub id or folder.")
@click.option("--sae", metavar="FOLDER|RELEASE", help="A known model brings its own.")
@click.option("--revision", help="Commit of a hub id. [default: main]")
@click.option("--hook-shift", type=int, default=0, help="Steer this many blocks later.")
@click.option("--dtype", help="float32, bfloat16 or float16.")
@click.option("--device", help="cpu, cuda, cuda:1, ..., or auto to spread over several GPUs.")
@click.option("--tasks", metavar="T,T", help="[default: mini's own, or the paper's]")
@click.option("--scorer", metavar="TASK=NAME", multiple=True, help="Judge a task's replies by it.")
@click.option("--data", metavar="[TASK=]FOLDER", multiple=True, help="Local copy of a data set.")
@click.option("--seeds", type=Numbers(int), metavar="a,b,c", help="[default: 42,43,44]")
@click.option("--samples", "--num-samples", type=int, default=4000, show_default=True)
@click.option("--val-limit", type=int, help="At most this many select samples of each task.")
@click.option("--test-limit", type=int, help="At most this many test samples of each task.")
@click.option("--permutations", type=int, default=1000, show_default=True, help="For p-values.")
@click.option("--controls", type=int, default=10, show_default=True, help="Random controls.")
@click.option("--batch-size", type=int, default=32, show_default=True)
@click.option(
    "--skip",
    metavar="PART,PART",
    help="Of methods, pooling, raw, samples, transfer, seeds and sft.",
)
@click.option("--lora", is_flag=True, help="Fine-tune LoRA adapters instead of every weight.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder; studies/paper-MODEL by default."
)
@JSON_OPTION
def study_paper(**options: Any) -> None:
    """Every table and figure of the paper for a model, beside the paper's own where it has them.

    As CSV, Markdown, SVG, PNG and one HTML page. The same command goes on where it was stopped.
    """
    from corrsteer.cli.paper import run_paper

    run_paper(options)


@study.command("samples")
@click.argument("run")
@click.option("--accuracy", is_flag=True, help="Load the model, and run the test split too.")
@click.option("--test-limit", type=int, help="At most this many test samples.")
@click.option("--batch-size", type=int, default=32, show_default=True)
@click.option("--device", help="cpu, cuda, cuda:1, ..., or auto to spread over several GPUs.")
@click.option("--data", metavar="FOLDER", multiple=True, help="Local copy of the data set.")
@JSON_OPTION
def study_samples(**options: Any) -> None:
    """What a run would have chosen from 25, 50, 100, ... of its samples.

    No model is loaded, unless the accuracy of those choices is asked for.
    """
    from corrsteer.cli.study import run_samples

    run_samples(options)


@cli.command()
@JSON_OPTION
def models(as_json: bool) -> None:
    """List the models known by name; hub ids and folders work too."""
    from corrsteer.cli.run import list_models

    list_models(as_json)


@cli.command()
@JSON_OPTION
def tasks(as_json: bool) -> None:
    """List the tasks known by name; .jsonl files work too."""
    from corrsteer.cli.run import list_tasks

    list_tasks(as_json)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 2 a user's mistake, 130 interrupted.

    A mistake is told in one line on stderr. Anything else that goes wrong is a bug and shows its
    traceback.
    """
    try:
        cli.main(arguments, prog_name="corrsteer", standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt) as interrupt:
        _fail(f"interrupted; {str(interrupt) or 'nothing was written'}", EXIT_INTERRUPTED)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(EXIT_MISTAKE)
    except click.ClickException as error:
        _fail(f"{error.format_message()}; see corrsteer --help", EXIT_MISTAKE)
    except CorrSteerError as error:
        _fail(str(error), EXIT_MISTAKE)


def _fail(message: str, code: int) -> None:
    click.echo("corrsteer: " + " ".join(message.split()), err=True)
    sys.exit(code)
