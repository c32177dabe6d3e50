"""Samples that belong together: how many there are of a group, and sums over it.

Changes when groups are counted in another way. What is drawn, exchanged or flipped by chance is the
group, since its samples are no independent observations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Groups:
    """Which samples belong together.

    Attributes:
        codes: the group of each sample, numbered from 0 without gaps; [samples].
        sizes: samples of each group; [groups].
    """

    codes: Ints
    sizes: Ints

    @classmethod
    def of(cls, labels: Sequence[int] | Ints | None, samples: int) -> Groups:
        """Groups by a label a sample; each sample by itself where there are no labels.

        Raises:
            ValueError: there are more or fewer labels than samples.
        """
        if labels is None:
            return cls(np.arange(samples), np.ones(samples, dtype=np.int64))
        if len(labels) != samples:
            raise ValueError(f"{len(labels)} group labels for {samples} samples; give one each")
        _, codes, sizes = np.unique(labels, return_inverse=True, return_counts=True)
        return cls(codes.astype(np.int64), sizes.astype(np.int64))

    @property
    def single(self) -> bool:
        """Whether each sample is by itself."""
        return len(self.sizes) == len(self.codes)

    @property
    def typical(self) -> float:
        """The size of the group that a sample is in, mean over samples; 1 for none.

        sum n_g^2 / n, by which groups of equal size count as that size, and a few large ones
        count for what they are (Kish 1965).
        """
        return float(np.square(self.sizes).sum() / len(self.codes)) if len(self.codes) else 1.0

    @property
    def effective(self) -> float:
        """How many groups of one size would tell as much: samples / `typical`."""
        return len(self.codes) / self.typical

    def sums(self, values: Floats) -> Floats:
        """The sum of a value over each group; [samples] to [groups]."""
        found: Floats = np.bincount(self.codes, values, minlength=len(self.sizes)).astype(
            np.float64
        )
        return found
