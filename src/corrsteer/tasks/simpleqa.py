"""SimpleQA: short factual questions (Wei et al., arXiv 2411.04368).

Source: https://huggingface.co/datasets/basicv8vc/SimpleQA; licence MIT.
Changes when that data set, its splits or its prompt do.
"""

from __future__ import annotations

from pathlib import Path

from corrsteer.samples import Sample
from corrsteer.scoring.judges import SEMANTIC
from corrsteer.tasks import hub
from corrsteer.tasks.base import Task, target_reply
from corrsteer.tasks.splits import cut_all

SOURCE = hub.Source("basicv8vc/SimpleQA", ("problem", "answer"))
DESCRIPTIONS = {"simpleqa": "short factual answers, compared by meaning"}
INSTRUCTION = "Answer the question with a short, direct response. Be concise and factual."
"""https://github.com/seonglae/CorrSteer, corrsteer/config.py at 51847215, `system_prompt`."""


def load(name: str, seed: int, data: Path | None = None) -> Task:
    """The task `simpleqa`, cut by `cut_all`.

    Args:
        name: `simpleqa`.
        seed: of order and cut.
        data: folder with a local copy.

    Raises:
        DataError: the data set cannot be had or used.
    """
    rows = hub.read(SOURCE, ("test",), data)["test"]
    splits = cut_all([_sample(row) for row in rows], seed)
    return Task(
        name=name,
        fit=splits.fit,
        select=splits.select,
        test=splits.test,
        scorer=SEMANTIC,
        max_new_tokens=16,
        description=DESCRIPTIONS[name],
        reference=target_reply,
    )


def _sample(row: hub.Row) -> Sample:
    return Sample(
        id=row.id,
        prompt=f"{INSTRUCTION}\n\nQ: {row.text('problem')}\nA:",
        target=(row.text("answer").strip(),),
        metadata=row.others(*SOURCE.columns),
    )
