"""MMLU: multiple choice over 57 subjects (Hendrycks et al., arXiv 2009.03300).

Source: https://huggingface.co/datasets/cais/mmlu, configuration `all`; licence MIT.
Changes when that data set, its splits or its prompt do.
"""

from __future__ import annotations

from corrsteer.samples import Sample
from corrsteer.tasks import hub
from corrsteer.tasks.base import target_reply
from corrsteer.tasks.benchmark import Benchmark
from corrsteer.tasks.lettered import lettered_sample

COLUMNS = ("question", "choices", "answer")
OFFERED = "ABCD"


def _sample(row: hub.Row) -> Sample:
    question, options = row.text("question"), row.texts("choices")
    return lettered_sample(row, question, options, "answer", OFFERED, row.others(*COLUMNS))


MMLU = Benchmark(
    name="mmlu",
    description="multiple choice over 57 subjects; the option's letter",
    source=hub.Source("cais/mmlu", COLUMNS, ("all",)),
    splits=("auxiliary_train", "validation", "test"),
    sample=_sample,
    scorer="choice",
    max_new_tokens=1,
    reference=target_reply,
    letters=OFFERED,
)
"""The scorer `choice` also accepts a letter in brackets and the option's own text, where the paper
compares the stripped reply with the letter alone: `--scorer exact`."""
