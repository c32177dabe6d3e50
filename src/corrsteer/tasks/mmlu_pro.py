"""MMLU-Pro: multiple choice with up to ten options (Wang et al., arXiv 2406.01574).

Source: https://huggingface.co/datasets/rbiswasfc/MMLU-Pro, as in the paper: the rows of
https://huggingface.co/datasets/TIGER-Lab/MMLU-Pro in a train and a test split; licence MIT.
Changes when that data set, its splits or its prompt do.
"""

from __future__ import annotations

from corrsteer.samples import Sample
from corrsteer.tasks import hub
from corrsteer.tasks.base import target_reply
from corrsteer.tasks.benchmark import Benchmark
from corrsteer.tasks.lettered import lettered_sample

COLUMNS = ("question", "options", "answer")
OFFERED = "ABCDEFGHIJ"
"""In every prompt, as the paper does, also where a row has fewer options. The paper's code lists
them as ` A,  B, ...`; here the list reads as MMLU's."""


def _sample(row: hub.Row) -> Sample:
    question, options = row.text("question"), row.texts("options")
    return lettered_sample(row, question, options, "answer", OFFERED, row.others(*COLUMNS))


MMLU_PRO = Benchmark(
    name="mmlu-pro",
    description="harder multiple choice, up to ten options; the option's letter",
    source=hub.Source("rbiswasfc/MMLU-Pro", COLUMNS),
    splits=("train", "test"),
    sample=_sample,
    scorer="choice",
    max_new_tokens=1,
    may_lack=("train",),  # a copy of TIGER-Lab/MMLU-Pro is one piece
    reference=target_reply,
    letters=OFFERED,
)
