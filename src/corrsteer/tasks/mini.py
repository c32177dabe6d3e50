"""The built-in tasks: `mini-*` families and the probes that guard them.

Changes when a built-in task is added or guarded by another.
"""

from __future__ import annotations

from corrsteer.mini.corpus import FAMILIES, PROBES, CorpusRow, rows
from corrsteer.samples import Sample
from corrsteer.scoring.base import Scorer
from corrsteer.scoring.rules import RULES
from corrsteer.tasks.base import Task, target_reply
from corrsteer.tasks.targets import check_targets

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


def load(name: str, scorer: Scorer | None = None) -> Task:
    """The built-in task of that name, with its fixed splits and its own scorer, or another.

    Raises:
        DataError: another scorer cannot read its targets.
    """
    splits = rows(name)
    first = splits["fit"][0]
    fit, select, test = (tuple(map(_sample, splits[part])) for part in ("fit", "select", "test"))
    scorer = scorer or RULES[first.scorer]
    check_targets(((f"{name}, row {each.id}", each) for each in (*fit, *select, *test)), scorer)
    return Task(
        name=name,
        fit=fit,
        select=select,
        test=test,
        scorer=scorer,
        max_new_tokens=first.max_new_tokens,
        guards=GUARDS.get(name, ()),
        description=DESCRIPTIONS[name],
        reference=target_reply if RULES[first.scorer].needs_target else None,
    )


def _sample(row: CorpusRow) -> Sample:
    target = (row.target,) if isinstance(row.target, str) else row.target
    return Sample(row.id, row.prompt, target, row.choices, group=row.key)
