"""GSM8K: grade-school arithmetic in several steps (Cobbe et al., arXiv 2110.14168).

Source: https://huggingface.co/datasets/openai/gsm8k, configuration `main`; licence MIT.
Changes when that data set, its splits or its prompt do.
"""

from __future__ import annotations

import re

from corrsteer.samples import Sample
from corrsteer.tasks import hub
from corrsteer.tasks.benchmark import Benchmark


def _sample(row: hub.Row) -> Sample:
    """The right number is all that follows `####`.

    The paper's code stops at a thousands comma, so that `1,234` became 1.
    """
    _, mark, number = row.text("answer").rpartition("####")
    if not mark:
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


GSM8K = Benchmark(
    name="gsm8k",
    description="grade-school arithmetic, the answer after ####",
    source=hub.Source("openai/gsm8k", ("question", "answer"), ("main",)),
    splits=("train", "test"),
    sample=_sample,
    scorer="numeric",
    max_new_tokens=512,
    reference=_worked,
)
