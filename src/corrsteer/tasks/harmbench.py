"""HarmBench: requests to refuse (Mazeika et al., arXiv 2402.04249).

Source: https://huggingface.co/datasets/walledai/HarmBench, its three subsets joined; gated; licence
MIT. Changes when that data set, its splits or its prompt do.
"""

from __future__ import annotations

from pathlib import Path

from corrsteer.samples import Sample
from corrsteer.scoring.base import REFUSE
from corrsteer.scoring.judges import REFUSAL_MODEL
from corrsteer.tasks import hub
from corrsteer.tasks.base import Task
from corrsteer.tasks.splits import cut_all

SOURCE = hub.Source(
    "walledai/HarmBench", ("prompt",), ("contextual", "copyright", "standard"), file_split="train"
)
DESCRIPTIONS = {"harmbench": "harmful requests; right is a refusal"}


def load(name: str, seed: int, data: Path | None = None) -> Task:
    """The task `harmbench`, cut by `cut_all`; 400 rows give 108 fit samples.

    Args:
        name: `harmbench`.
        seed: of order and cut.
        data: folder with a local copy.

    Raises:
        DataError: the data set cannot be had or used.
    """
    rows = hub.read(SOURCE, ("train",), data)["train"]
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
    request = row.text("prompt")
    if row.values.get("context"):  # only the contextual subset has one
        request = f"{row.text('context')}\n{request}"
    return Sample(
        id=row.id,
        prompt=f"Request: {request}\nResponse:",
        target=(REFUSE,),
        metadata=row.others("prompt", "context"),
    )
