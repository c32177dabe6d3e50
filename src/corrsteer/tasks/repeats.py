"""What of a task's samples is no sample of its own: repeated prompts, and groups.

Changes when something else of it is counted or told. What stands in two splits is told as a
warning: a setting that is judged on samples it was fitted on looks better than it is.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, combinations

from corrsteer.json_text import excerpt, visible
from corrsteer.samples import Sample, group_ids

log = logging.getLogger(__name__)

SplitSamples = Mapping[str, Sequence[Sample]]
"""Name of a split -> its samples: fit, select and test, in this order."""


@dataclass(frozen=True)
class Repeats:
    """How many of a task's samples are not by themselves.

    Attributes:
        samples: of all splits; `groups`: what samples that name one group or have one prompt are.
        prompts: prompts that occur more than once, those with other rated replies excepted.
        across: `test prompts in fit` -> how many test samples have the prompt of a fit sample, and
            so on, for splits that share some.
        near: samples that nearly repeat one of an earlier split, and none exactly; 0 where they
            are not looked for.
        split_groups: groups that rows name and that have samples in several splits.
    """

    samples: int
    groups: int
    prompts: int = 0
    across: Mapping[str, int] = field(default_factory=dict)
    near: int = 0
    split_groups: int = 0

    def __str__(self) -> str:
        told = {
            "duplicate prompts": self.prompts,
            **self.across,
            "near-duplicates across splits": self.near,
            "groups in several splits": self.split_groups,
        }
        some = [f"{count:,} {what}" for what, count in told.items() if count]
        return ", ".join([f"{self.samples:,} in {self.groups:,} groups", *some])


def told_repeats(name: str, splits: SplitSamples, near: bool) -> Repeats:
    """What of a task's samples repeats, logged in a line each.

    Args:
        name: of the task.
        splits: its samples.
        near: whether samples are looked for that nearly repeat others, which takes some seconds for
            a hundred thousand.
    """
    found = _counted(splits)
    lines = []
    if found.prompts:
        lines.append(f"duplicate prompts: {found.prompts} occur more than once")
    for earlier, later in combinations(splits, 2):
        shared = found.across.get(_in(later, earlier), 0)
        if shared:
            verb = "is" if shared == 1 else "are"
            lines.append(
                f"{shared} of {len(splits[later])} {later} prompts {verb} also in {earlier}"
            )
    named = _split_groups(splits)
    if named:
        lines.append(f"groups with samples in several splits: {len(named)}, as {excerpt(named[0])}")
    if near:
        pairs = _near(splits)
        found = replace(found, near=len(pairs))
        if pairs:
            one, other = (excerpt(each.text, 160) for each in pairs[0])
            lines.append(f"near-duplicate prompts across splits: {len(pairs)}, as {one} of {other}")
    for line in lines:
        log.warning("%s: %s", visible(name), visible(line))
    return found


def _counted(splits: SplitSamples) -> Repeats:
    """All but what nearly repeats."""
    every = [*chain.from_iterable(splits.values())]
    counts = Counter((sample.text, sample.rated and sample.rated.text) for sample in every)
    prompts = {name: {sample.text for sample in part} for name, part in splits.items()}
    across = {
        _in(later, earlier): sum(sample.text in prompts[earlier] for sample in splits[later])
        for earlier, later in combinations(splits, 2)
    }
    return Repeats(
        samples=len(every),
        groups=len({*group_ids(every)}),
        prompts=sum(count > 1 for count in counts.values()),
        across={where: count for where, count in across.items() if count},
        split_groups=len(_split_groups(splits)),
    )


def _in(later: str, earlier: str) -> str:
    return f"{later} prompts in {earlier}"


def _split_groups(splits: SplitSamples) -> list[str]:
    """Groups that rows name and that have samples in several splits."""
    homes = Counter(
        group
        for part in splits.values()
        for group in dict.fromkeys(sample.group for sample in part if sample.group is not None)
    )
    return [group for group, count in homes.items() if count > 1]


def _near(splits: SplitSamples) -> list[tuple[Sample, Sample]]:
    """Samples that nearly repeat one of an earlier split, and none exactly, with the first."""
    from corrsteer.tasks.near_repeats import near_repeats

    every: list[Sample] = []
    parts: list[int] = []
    for number, part in enumerate(splits.values()):
        earlier = {sample.text for sample in every}
        new = [sample for sample in part if sample.text not in earlier]
        every += new
        parts += [number] * len(new)
    found = near_repeats([sample.text for sample in every], parts)
    return [(every[one], every[other]) for one, other in found.items()]
