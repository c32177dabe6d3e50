"""Whether marks say something of replies: mistakes that make features of something else.

Changes when another such mistake is looked for.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from corrsteer.errors import DataError, ScorerError
from corrsteer.samples import Sample, group_ids
from corrsteer.scoring.base import Scorer

log = logging.getLogger(__name__)

PROBED = 8
"""Samples on which a user's own scorer is tried."""
PROBES = ("", "Yes.", "I cannot help with that.", "The answer is 42.")


def check_scorer_reads(scorer: Scorer, samples: Sequence[Sample]) -> None:
    """Refuse a function that gives every reply what a field of the row holds.

    It is tried on few samples, and with several replies only where its first mark is in the row.

    Raises:
        DataError: names the field.
    """
    if not getattr(scorer, "source", ""):
        return
    some = samples[:PROBED]
    try:
        first = [scorer("", each).outcome for each in some]
        fields = set.intersection(*({*each.metadata} for each in some))
        held = [f for f in sorted(fields) if [each.metadata[f] for each in some] == first]
        if not held or len(set(first)) < 2:
            return
        same = all(
            scorer(reply, each).outcome == outcome
            for each, outcome in zip(some, first, strict=True)
            for reply in (*PROBES, *each.target)
        )
    except ScorerError:  # told where it is run on replies of the model
        return
    if same:
        raise DataError(
            f"--scorer {scorer.name} gives `{held[0]}` of the row whatever the reply, so marks of "
            "other replies would be held against new ones; give the replies that were marked, by "
            f"--reply-field NAME --score-field {held[0]}"
        )


def tell_constant_groups(name: str, samples: Sequence[Sample]) -> None:
    """Say so where replies to one prompt, or of one group, always have one score."""
    marks: dict[int, list[float]] = {}
    for sample, group in zip(samples, group_ids(samples), strict=True):
        if sample.rated is not None and sample.rated.outcome is not None:
            marks.setdefault(group, []).append(sample.rated.outcome)
    several = [found for found in marks.values() if len(found) > 1]
    if len(several) < 2 or any(len(set(found)) > 1 for found in several):
        return
    if len({found[0] for found in several}) > 1:
        log.warning(
            "%s: in each of %d groups of several replies all have one score: it may be the "
            "prompt's rather than the reply's, and then so are the features",
            *(name, len(several)),
        )
