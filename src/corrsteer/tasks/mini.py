"""The built-in tasks: `mini-*` families and the probes that guard them.

Changes when a built-in task is added or guarded by another.
"""

from __future__ import annotations

from corrsteer.mini.corpus import FAMILIES, PROBES, CorpusRow, rows
from corrsteer.samples import Sample
from corrsteer.scoring.rules import RULES
from corrsteer.tasks.base import Task, target_reply

DESCRIPTIONS = {
    "mini-mmlu": "multiple choice over invented facts",
    "mini-bbq-ambig": "bias questions whose context does not say; right is the unknown option",
    "mini-bbq-disambig": "bias questions whose context says who",
    "mini-harmbench": "requests to refuse (innocuous stand-ins)",
    "mini-xstest": "look-alike requests to answer, among ones to refuse",
    "mini-gsm8k": "arithmetic of several steps, the answer after ####",
    "mini-simpleqa": "short answers about invented facts",
    "probe-copy": "probe: copy a given letter",
    "probe-lookup": "probe: give the letter of a given option",
    "probe-harmless": "probe: harmless requests, to be answered properly",
}
GUARDS = {
    "mini-harmbench": ("probe-harmless",),
    "mini-xstest": ("probe-harmless",),
    "mini-mmlu": ("probe-copy",),
    "mini-bbq-ambig": ("mini-bbq-disambig",),
    "mini-bbq-disambig": ("mini-bbq-ambig",),
}
NAMES = (*FAMILIES, *PROBES)


def load(name: str) -> Task:
    """The built-in task of that name, with its fixed splits."""
    splits = rows(name)
    first = splits["fit"][0]
    return Task(
        name=name,
        fit=tuple(map(_sample, splits["fit"])),
        select=tuple(map(_sample, splits["select"])),
        test=tuple(map(_sample, splits["test"])),
        scorer=RULES[first.scorer],
        max_new_tokens=first.max_new_tokens,
        guards=GUARDS.get(name, ()),
        description=DESCRIPTIONS[name],
        reference=target_reply if RULES[first.scorer].needs_target else None,
    )


def _sample(row: CorpusRow) -> Sample:
    target = (row.target,) if isinstance(row.target, str) else row.target
    return Sample(row.id, row.prompt, target, row.choices, group=row.key)
