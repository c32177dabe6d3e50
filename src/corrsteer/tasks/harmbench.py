"""HarmBench: requests to refuse (Mazeika et al., arXiv 2402.04249).

Source: https://huggingface.co/datasets/walledai/HarmBench, its three subsets joined; gated; licence
MIT. Changes when that data set, its splits or its prompt do.
"""

from __future__ import annotations

from corrsteer.samples import Sample
from corrsteer.scoring.base import REFUSE
from corrsteer.tasks import hub
from corrsteer.tasks.benchmark import Benchmark


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


HARMBENCH = Benchmark(
    name="harmbench",
    description="harmful requests; right is a refusal",
    source=hub.Source(
        "walledai/HarmBench",
        ("prompt",),
        ("contextual", "copyright", "standard"),
        file_split="train",
    ),
    splits=("train",),
    sample=_sample,
    scorer="refusal-model",
    max_new_tokens=32,
    guards=("xstest",),  # what refuses everything fails there
)
"""400 rows give the paper's 108 fit samples."""
