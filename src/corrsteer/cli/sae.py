"""What `corrsteer sae train` does and prints.

Changes when an option of it means something else, or more is told of an SAE.
"""

from __future__ import annotations

from pathlib import Path

from rich.table import Table
from rich.text import Text

from corrsteer.cli.common import quietly, task_of
from corrsteer.cli.options import SAETrainOptions
from corrsteer.cli.output import VisibleConsole, print_json
from corrsteer.cli.terminal import TerminalProgress, print_table
from corrsteer.errors import DataError
from corrsteer.files import check_free, expanded
from corrsteer.lm.known_models import RAW
from corrsteer.lm.models import LanguageModel, load_model
from corrsteer.sae_training.documents import TextSource, own_prompts, prompts_of, texts_of
from corrsteer.sae_training.training import QualityCard, train_saes
from corrsteer.tasks import Task


def run_sae_train(options: SAETrainOptions) -> None:
    """`corrsteer sae train`."""
    out = check_free(options.folder)
    texts = texts_of(map(expanded, options.text)) if options.text else None
    task = task_of(options.task, options.setup) if options.task else None
    with quietly(), TerminalProgress() as progress:
        with progress.stage("load model", None):
            lm = load_model(options.model, RAW, options.dtype, options.device, 0, options.revision)
        kinds = _kinds(lm, texts, task)
        card = train_saes(
            lm, kinds, options.settings, out, progress=progress, resume=options.resume
        )
    if options.as_json:
        print_json({**card.document(), "folder": str(out)})
    else:
        _print_card(card, out, options)


def _kinds(
    lm: LanguageModel, texts: list[TextSource] | None, task: Task | None
) -> list[list[TextSource]]:
    """What is trained on: the texts or our own prompts, and the task's fit prompts."""
    kinds = [own_prompts(lm) if texts is None else texts]
    if task is not None:
        if not task.fit:
            raise DataError(f"the fit split of {task.name} is empty; leave --task out")
        kinds.append(prompts_of(task.fit))
    return kinds


def _print_card(card: QualityCard, out: Path, options: SAETrainOptions) -> None:
    console = VisibleConsole()
    console.print(
        Text.assemble(
            (f"SAEs of {card.model}", "bold"),
            f": {card.latents:,} latents, trained on {card.trained:,} tokens, "
            f"measured on {card.held_out:,} of other texts",
        )
    )
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("layer", "FVU", "L0", "dead", "loss", "reconstructed", "zeroed", "recovered"):
        table.add_column(column, justify="right", no_wrap=True)
    for each in card.saes:
        table.add_row(
            str(each.layer),
            f"{each.fvu:.3f}",
            f"{each.l0:.1f}",
            f"{each.dead:.1%}",
            f"{each.loss:.3f}",
            f"{each.loss_reconstructed:.3f}",
            f"{each.loss_zeroed:.3f}",
            f"{each.loss_recovered:.1%}",
        )
    print_table(console, table)
    given = f"--model {options.model}" + (f" --sae {out}" if options.out else "")
    console.print(Text(f"Folder: {out}"), soft_wrap=True)
    console.print(Text(f"Use them by: corrsteer train {given} --task T"), soft_wrap=True)
