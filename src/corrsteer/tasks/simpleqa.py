"""SimpleQA: short factual questions (Wei et al., arXiv 2411.04368).

Source: https://huggingface.co/datasets/basicv8vc/SimpleQA; licence MIT.
Changes when that data set, its splits or its prompt do.
"""

from __future__ import annotations

from corrsteer.samples import Sample
from corrsteer.tasks import hub
from corrsteer.tasks.base import target_reply
from corrsteer.tasks.benchmark import Benchmark

COLUMNS = ("problem", "answer")
INSTRUCTION = "Answer the question with a short, direct response. Be concise and factual."
"""https://github.com/seonglae/CorrSteer, corrsteer/config.py at 51847215, `system_prompt`."""


def _sample(row: hub.Row) -> Sample:
    return Sample(
        id=row.id,
        prompt=f"{INSTRUCTION}\n\nQ: {row.text('problem')}\nA:",
        target=(row.text("answer").strip(),),
        metadata=row.others(*COLUMNS),
    )


SIMPLEQA = Benchmark(
    name="simpleqa",
    description="short factual answers, compared by meaning",
    source=hub.Source("basicv8vc/SimpleQA", COLUMNS),
    splits=("test",),
    sample=_sample,
    scorer="semantic",
    max_new_tokens=16,
    reference=target_reply,
)
