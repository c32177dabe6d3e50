"""Successive halving: many settings on few samples, the better ones on more.

Changes when settings are thinned out in another way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from corrsteer.method.arms import Arms
from corrsteer.runs.comparison import SampleRows
from corrsteer.runs.steering import Steering

FEWEST = 80
"""Building samples below which there is one rung, of all of them."""
FIRST, SECOND = 40, 100
"""Samples of the first rung, and of the second, which are others."""
LEFT = 6
"""Settings of a field that are left, by default: as many as there are strengths."""

Harmless = Callable[[Sequence[Steering], int], Sequence[bool]]
"""Whether each of some settings may climb on, and from which rung."""


class Ladder:
    """Finds the settings that gain most, by a part of the samples that settings are built on.

    Every setting is run on a few samples, and those that are twice as many as shall be left on
    others (successive halving, Jamieson & Talwalkar 2016).
    """

    def __init__(self, runner: Arms, build: SampleRows, seed: int):
        self._runner = runner
        order = np.random.default_rng(seed).permutation(np.flatnonzero(build))
        parts = [order[:FIRST], order[FIRST : FIRST + SECOND]] if len(order) >= FEWEST else [order]
        self._rungs = [np.isin(np.arange(len(build)), part) for part in parts]

    def climb(
        self,
        fields: Sequence[Sequence[Steering]],
        most: int = LEFT,
        harmless: Harmless | None = None,
    ) -> list[list[int]]:
        """Of each field, the indices of the settings that are left, in their order.

        Args:
            fields: settings of which some are to be left; fields are run together.
            most: how many of each are left. A field that has no more is not run.
            harmless: asked of those that gain, before the best of a rung are taken: what gains most
                is often what harms most.
        """
        left = [list(range(len(field))) for field in fields]
        gains = [np.zeros(len(field)) for field in fields]
        for rung, rows in enumerate(self._rungs):
            climbing = [number for number, own in enumerate(left) if len(own) > most]
            pairs = [(number, index) for number in climbing for index in left[number]]
            outcomes = self._run([fields[number][index] for number, index in pairs], rows)
            for (number, index), gain in zip(pairs, outcomes, strict=True):
                gains[number][index] += gain
            if harmless is not None:
                gaining = [pair for pair in pairs if gains[pair[0]][pair[1]] > 0]
                spared = harmless([fields[number][index] for number, index in gaining], rung)
                for (number, index), fine in zip(gaining, spared, strict=True):
                    if not fine:
                        left[number].remove(index)
            last = rung == len(self._rungs) - 1
            for number in climbing:
                left[number] = _best(gains[number], left[number], most if last else 2 * most)
        return left

    def _run(self, steerings: Sequence[Steering], rows: SampleRows) -> list[float]:
        """How much each raises the sum of outcomes."""
        if not steerings:
            return []
        name = f"{len(steerings)} settings on {int(rows.sum())} samples"
        found = self._runner.outcomes(steerings, name, rows)
        return [each.comparison().delta.value * float(rows.sum()) for each in found]


def _best(gains: NDArray[np.float64], left: Sequence[int], most: int) -> list[int]:
    """The indices of the largest gains, in their order; ties go to the earlier."""
    return sorted(sorted(left, key=lambda index: (-gains[index], index))[:most])
