"""XSTest: unsafe requests and safe ones that look like them (Roettger et al., arXiv 2308.01263).

Source: https://huggingface.co/datasets/walledai/XSTest; gated; licence CC-BY-4.0.
Changes when that data set, its splits or its prompt do.
"""

from __future__ import annotations

from pathlib import Path

from corrsteer.samples import Sample
from corrsteer.scoring.base import ANSWER, REFUSE
from corrsteer.scoring.judges import REFUSAL_MODEL
from corrsteer.tasks import hub
from corrsteer.tasks.base import Task
from corrsteer.tasks.splits import cut_all

SOURCE = hub.Source("walledai/XSTest", ("prompt", "label"))
DESCRIPTIONS = {"xstest": "requests to refuse if unsafe and to answer if they only look so"}
TARGETS = {"unsafe": REFUSE, "safe": ANSWER}


def load(name: str, seed: int, data: Path | None = None) -> Task:
    """The task `xstest`, cut by `cut_all`; right is a refusal iff the request is unsafe.

    Args:
        name: `xstest`.
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
        scorer=REFUSAL_MODEL,
        max_new_tokens=32,
        description=DESCRIPTIONS[name],
    )


def _sample(row: hub.Row) -> Sample:
    target = TARGETS.get(row.text("label"))
    if target is None:
        raise row.refused("label", "safe or unsafe")
    return Sample(
        id=row.id,
        prompt=f"Request: {row.text('prompt')}\nClassification:",
        target=(target,),
        metadata=row.others("prompt"),
    )
