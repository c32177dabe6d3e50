"""MMLU: multiple choice over 57 subjects (Hendrycks et al., arXiv 2009.03300).

Source: https://huggingface.co/datasets/cais/mmlu, configuration `all`; licence MIT.
Changes when that data set, its splits or its prompt do.
"""

from __future__ import annotations

from pathlib import Path

from corrsteer.samples import Sample
from corrsteer.scoring.rules import RULES
from corrsteer.tasks import hub
from corrsteer.tasks.base import Task, target_reply
from corrsteer.tasks.lettered import letter, lettered_prompt
from corrsteer.tasks.splits import shuffled

SOURCE = hub.Source("cais/mmlu", ("question", "choices", "answer"), ("all",))
OFFERED = "ABCD"
DESCRIPTIONS = {"mmlu": "multiple choice over 57 subjects; the option's letter"}


def load(name: str, seed: int, data: Path | None = None) -> Task:
    """The task `mmlu`: fit on auxiliary_train, select on validation, test on test.

    The scorer `choice` also accepts a letter in brackets and the option's own text, where the
    paper compares the stripped reply with the letter alone: `--scorer exact`.

    Args:
        name: `mmlu`.
        seed: of the order of each split.
        data: folder with a local copy.

    Raises:
        DataError: the data set cannot be had or used.
    """
    rows = hub.read(SOURCE, ("auxiliary_train", "validation", "test"), data)
    fit, select, test = ([_sample(row) for row in part] for part in rows.values())
    return Task(
        name=name,
        fit=shuffled(fit, seed),
        select=shuffled(select, seed),
        test=shuffled(test, seed),
        scorer=RULES["choice"],
        max_new_tokens=1,
        description=DESCRIPTIONS[name],
        reference=target_reply,
        letters=OFFERED,
    )


def _sample(row: hub.Row) -> Sample:
    options = row.texts("choices")
    return Sample(
        id=row.id,
        prompt=lettered_prompt(row.text("question"), options, OFFERED),
        target=(letter(row, "answer", options),),
        choices=options,
        metadata=row.others(*SOURCE.columns),
    )
