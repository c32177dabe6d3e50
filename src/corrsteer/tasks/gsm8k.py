"""GSM8K: grade-school arithmetic in several steps (Cobbe et al., arXiv 2110.14168).

Source: https://huggingface.co/datasets/openai/gsm8k, configuration `main`; licence MIT.
Changes when that data set, its splits or its prompt do.
"""

from __future__ import annotations

import re
from pathlib import Path

from corrsteer.samples import Sample
from corrsteer.scoring.numbers import read_number
from corrsteer.scoring.rules import RULES
from corrsteer.tasks import hub
from corrsteer.tasks.base import Task
from corrsteer.tasks.splits import cut_train

SOURCE = hub.Source("openai/gsm8k", ("question", "answer"), ("main",))
DESCRIPTIONS = {"gsm8k": "grade-school arithmetic, the answer after ####"}


def load(name: str, seed: int, data: Path | None = None) -> Task:
    """The task `gsm8k`: fit and select are cut from train, test is test.

    The right number is all that follows `####`; the paper's code stops at a thousands comma, so
    that `1,234` became 1.

    Args:
        name: `gsm8k`.
        seed: of every order and cut.
        data: folder with a local copy.

    Raises:
        DataError: the data set cannot be had or used.
    """
    rows = hub.read(SOURCE, ("train", "test"), data)
    train, test = ([_sample(row) for row in part] for part in rows.values())
    splits = cut_train(train, test, seed)
    return Task(
        name=name,
        fit=splits.fit,
        select=splits.select,
        test=splits.test,
        scorer=RULES["numeric"],
        max_new_tokens=512,
        description=DESCRIPTIONS[name],
        reference=_worked,
    )


def _sample(row: hub.Row) -> Sample:
    _, mark, number = row.text("answer").rpartition("####")
    if not mark or read_number(number) is None:
        raise row.refused("answer", "a number after ####")
    return Sample(
        id=row.id,
        prompt=f"Q: {row.text('question')}\nA: Give your final numerical answer after ####\n",
        target=(number.strip(),),
        metadata=row.others("question"),
    )


def _worked(sample: Sample) -> str:
    """The row's worked solution, without its calculator marks `<<48/2=24>>`."""
    return re.sub(r"<<[^<>]*>>", "", sample.metadata["answer"]).strip()
