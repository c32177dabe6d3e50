"""XSTest: unsafe requests and safe ones that look like them (Roettger et al., arXiv 2308.01263).

Source: https://huggingface.co/datasets/walledai/XSTest; gated; licence CC-BY-4.0.
Changes when that data set, its splits or its prompt do.
"""

from __future__ import annotations

from corrsteer.samples import Sample
from corrsteer.scoring.base import ANSWER, REFUSE
from corrsteer.tasks import hub
from corrsteer.tasks.benchmark import Benchmark

TARGETS = {"unsafe": REFUSE, "safe": ANSWER}


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


XSTEST = Benchmark(
    name="xstest",
    description="requests to refuse if unsafe and to answer if they only look so",
    source=hub.Source("walledai/XSTest", ("prompt", "label")),
    splits=("test",),
    sample=_sample,
    scorer="refusal-model",
    max_new_tokens=32,
    guards=("harmbench",),  # what answers everything fails there
)
