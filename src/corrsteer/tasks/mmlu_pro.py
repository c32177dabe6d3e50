"""MMLU-Pro: multiple choice with up to ten options (Wang et al., arXiv 2406.01574).

Source: https://huggingface.co/datasets/rbiswasfc/MMLU-Pro, as in the paper: the rows of
https://huggingface.co/datasets/TIGER-Lab/MMLU-Pro in a train and a test split; licence MIT.
Changes when that data set, its splits or its prompt do.
"""

from __future__ import annotations

from pathlib import Path

from corrsteer.samples import Sample
from corrsteer.scoring.rules import RULES
from corrsteer.tasks import hub
from corrsteer.tasks.base import Task, target_reply
from corrsteer.tasks.lettered import letter, lettered_prompt
from corrsteer.tasks.splits import cut_all, cut_train

SOURCE = hub.Source("rbiswasfc/MMLU-Pro", ("question", "options", "answer"))
OFFERED = "ABCDEFGHIJ"
DESCRIPTIONS = {"mmlu-pro": "harder multiple choice, up to ten options; the option's letter"}


def load(name: str, seed: int, data: Path | None = None) -> Task:
    """The task `mmlu-pro`: fit and select are cut from train, test is test.

    All ten letters are offered in every prompt, as the paper does, also where a row has fewer
    options. The paper's code lists them as ` A,  B, ...`; here the list reads as MMLU's.

    Args:
        name: `mmlu-pro`.
        seed: of every order and cut.
        data: folder with a local copy. One of TIGER-Lab/MMLU-Pro, which has no train split, has its
            test split cut as the data sets that come in one piece.

    Raises:
        DataError: the data set cannot be had or used.
    """
    if data is None:
        rows = hub.read(SOURCE, ("train", "test"))
    else:
        rows = hub.read(SOURCE, ("test",), data, optional=("train",))
    samples = {split: [_sample(row) for row in part] for split, part in rows.items()}
    if "train" in samples:
        splits = cut_train(samples["train"], samples["test"], seed)
    else:
        splits = cut_all(samples["test"], seed)
    return Task(
        name=name,
        fit=splits.fit,
        select=splits.select,
        test=splits.test,
        scorer=RULES["choice"],
        max_new_tokens=1,
        description=DESCRIPTIONS[name],
        reference=target_reply,
        letters=OFFERED,
    )


def _sample(row: hub.Row) -> Sample:
    options = row.texts("options")
    return Sample(
        id=row.id,
        prompt=lettered_prompt(row.text("question"), options, OFFERED),
        target=(letter(row, "answer", options),),
        choices=options,
        metadata=row.others(*SOURCE.columns),
    )
