"""Whether steering moves a model towards replies that were rated good, as one outcome a reply.

Changes when the movement of probabilities is judged otherwise.

A reply's mean log-probability per token is x without steering and x + d with it. Much moves d that
prefers no reply: steering that sharpens, flattens or breaks a model moves likely replies otherwise
than unlikely ones, and good replies may well be the likelier ones. So what 1, x and x^2 explain is
taken from the movement and from the marks alike (Frisch & Waugh 1933). What is left of the
movement, e, is how much more a reply gained than its likelihood foretold; what is left of its mark,
w, is how much better it was rated. With w in units of its largest size

    outcome = 1/2 + w tanh(e / 2) / 2,

for 1/2 + tanh(e / 2) / 2 = 1 / (1 + exp(-e)) is the probability that a reply whose likelihood per
token rose by e came from the steered model rather than the unsteered one. No steering gives 1/2.
The signs of changes are flipped at random to test them: a score test by the wild bootstrap (Kline &
Santos 2012).

Replies of one group that were marked differently are compared with each other, all others among
themselves.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from corrsteer.stats.metrics import Labels, Outcomes

Floats: TypeAlias = NDArray[np.float64]

UNMOVED = 0.5
"""The outcome of a reply that steering makes neither likelier nor less likely than others."""

TINY = 1e-9
"""Of what is left of a mark: rounding, where its likelihood explains all of it."""


def preference_outcomes(before: Floats, after: Floats, marks: Outcomes, groups: Labels) -> Outcomes:
    """The outcome of each reply under a steering, in [0, 1]; NaN where it has no mark.

    Args:
        before: mean log-probability per token without steering; NaN for a reply without tokens.
        after: with it.
        marks: what replies were rated, in [0, 1]; NaN for no mark.
        groups: a label a reply, the same for those that belong together.
    """
    rated = ~(np.isnan(marks) | np.isnan(before) | np.isnan(after))
    found = np.full(len(marks), np.nan)
    if rated.any():
        x, mark, strata = before[rated], marks[rated], _strata(marks[rated], groups[rated])
        explaining = _centred(np.stack([x, np.square(x - x.mean())], 1), strata)
        left = _centred(np.stack([mark, after[rated] - x], 1), strata)
        left = left - explaining @ np.linalg.lstsq(explaining, left, rcond=None)[0]
        weights, gains = left.T
        largest = float(np.abs(weights).max())
        weights = weights / largest if largest > TINY else np.zeros(len(weights))
        found[rated] = UNMOVED + weights * np.tanh(gains / 2) / 2
    return found


def _strata(marks: Floats, groups: Labels) -> Labels:
    """What replies are compared within: their group, where it has several marks, or all others."""
    found = np.full(len(marks), -1, dtype=np.int64)
    for number, group in enumerate(np.unique(groups)):
        own = groups == group
        if np.ptp(marks[own]) > 0:
            found[own] = number
    return found


def _centred(values: Floats, strata: Labels) -> Floats:
    """Columns less their means within each stratum."""
    _, index, counts = np.unique(strata, return_inverse=True, return_counts=True)
    sums = np.zeros((len(counts), values.shape[1]))
    np.add.at(sums, index, values)
    return np.asarray(values - (sums / counts[:, None])[index])
