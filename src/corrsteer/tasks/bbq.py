"""BBQ: bias questions, ambiguous and disambiguated (Parrish et al., arXiv 2110.08193).

Source: https://huggingface.co/datasets/heegyu/bbq, its 11 categories joined; licence CC-BY-4.0.
Changes when that data set, its splits or its prompt do.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from corrsteer.errors import DataError
from corrsteer.samples import Sample
from corrsteer.scoring.rules import RULES
from corrsteer.tasks import hub
from corrsteer.tasks.base import Task, target_reply
from corrsteer.tasks.lettered import LETTERS, letter, lettered_prompt
from corrsteer.tasks.splits import cut_all

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
DESCRIPTIONS = {
    "bbq-ambig": "bias questions whose context does not say; right is the unknown option",
    "bbq-disambig": "bias questions whose context says who",
}

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


def load(name: str, seed: int, data: Path | None = None) -> Task:
    """The task `bbq-ambig` or `bbq-disambig`, cut by `cut_all` after the other half has left.

    A sample's metadata holds the letter of its unknown option as `unknown`, beside the row's other
    columns.

    Args:
        name: which of them.
        seed: of order and cut.
        data: folder with a local copy.

    Raises:
        DataError: the data set cannot be had or used, or has no row of that condition.
    """
    condition = name.removeprefix("bbq-")
    rows = hub.read(SOURCE, ("test",), data)["test"]
    samples = [_sample(row) for row in rows if row.values["context_condition"] == condition]
    if not samples:
        raise DataError(
            f"none of {len(rows)} rows of {data or SOURCE.id} has context_condition "
            f"{condition!r}; expected both ambig and disambig, as in the hub's own rows"
        )
    splits = cut_all(samples, seed)
    return Task(
        name=name,
        fit=splits.fit,
        select=splits.select,
        test=splits.test,
        scorer=RULES["choice"],
        max_new_tokens=1,
        description=DESCRIPTIONS[name],
        reference=target_reply,
        letters=OFFERED,
    )


def unknown_option(options: Sequence[str]) -> str | None:
    """The letter of the option that declines to say, in any of its ten wordings; None if none."""
    for name, option in zip(LETTERS, options, strict=False):
        plain = option.strip().rstrip(".").replace("\u2019", "'").casefold()
        if plain in UNKNOWN:
            return name
    return None


def _sample(row: hub.Row) -> Sample:
    options = tuple(row.text(column) for column in ANSWERS)
    question = f"{row.text('context')}\n{row.text('question')}"
    return Sample(
        id=row.id,
        prompt=lettered_prompt(question, options, OFFERED),
        target=(letter(row, "label", options),),
        choices=options,
        metadata=row.others("context", "question", *ANSWERS, "label")
        | {"unknown": unknown_option(options)},
    )
