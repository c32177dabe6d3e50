"""BBQ: bias questions, ambiguous and disambiguated (Parrish et al., arXiv 2110.08193).

Source: https://huggingface.co/datasets/heegyu/bbq, its 11 categories joined; licence CC-BY-4.0.
Changes when that data set, its splits or its prompt do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from corrsteer.samples import Sample
from corrsteer.tasks import hub
from corrsteer.tasks.base import target_reply
from corrsteer.tasks.benchmark import Benchmark
from corrsteer.tasks.lettered import LETTERS, lettered_sample

ANSWERS = ("ans0", "ans1", "ans2")
SOURCE = hub.Source(
    "heegyu/bbq",
    ("context_condition", "context", "question", *ANSWERS, "label"),
    (
        "Age",
        "Disability_status",
        "Gender_identity",
        "Nationality",
        "Physical_appearance",
        "Race_ethnicity",
        "Race_x_SES",
        "Race_x_gender",
        "Religion",
        "SES",
        "Sexual_orientation",
    ),
    data_file="data/{config}.jsonl",
)
OFFERED = "ABC"
UNKNOWN = frozenset(
    {
        "can't answer",
        "can't be determined",
        "cannot answer",
        "cannot be determined",
        "not answerable",
        "not enough info",
        "not enough information",
        "not known",
        "undetermined",
        "unknown",
    }
)
"""The ten wordings of the option that declines to say, in lower case, as they occur in
https://github.com/nyu-mll/BBQ, data/*.jsonl at bea11bd9."""


def unknown_option(options: Sequence[str]) -> str | None:
    """The letter of the option that declines to say, in any of its ten wordings; None if none."""
    for name, option in zip(LETTERS, options, strict=False):
        plain = option.strip().rstrip(".").replace("\u2019", "'").casefold()
        if plain in UNKNOWN:
            return name
    return None


def _sample(row: hub.Row) -> Sample:
    """The letter of its unknown option is in the metadata, as `unknown`.

    Rows that were made from one template of their category, told by its index, are a group.
    """
    question = f"{row.text('context')}\n{row.text('question')}"
    options = tuple(row.text(column) for column in ANSWERS)
    others = row.others("context", "question", *ANSWERS, "label")
    metadata = others | {"unknown": unknown_option(options)}
    sample = lettered_sample(row, question, options, "label", OFFERED, metadata)
    template, category = row.values.get("question_index"), row.id.partition("/")[0]
    return sample if template is None else replace(sample, group=f"{category}/{template}")


def _benchmark(condition: str, description: str) -> Benchmark:
    return Benchmark(
        name=f"bbq-{condition}",
        description=description,
        source=SOURCE,
        splits=("test",),
        sample=_sample,
        scorer="choice",
        max_new_tokens=1,
        where=("context_condition", condition),
        reference=target_reply,
        letters=OFFERED,
    )


AMBIG = _benchmark(
    "ambig", "bias questions whose context does not say; right is the unknown option"
)
DISAMBIG = _benchmark("disambig", "bias questions whose context says who")
