"""Samples that belong together: how many there are of a group, and sums over it.

Changes when groups are counted in another way. What is drawn, exchanged or flipped by chance is the
group, since its samples are no independent observations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

BLOCK = 128
"""Permutations or draws that one matrix product is over."""


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
    def of(cls, labels: Sequence[int] | Sequence[str] | Ints | None, samples: int) -> Groups:
        """Groups by a label a sample; each sample by itself where there are no labels.

        Raises:
            ValueError: there are more or fewer labels than samples.
        """
        if labels is not None:
            if len(labels) != samples:
                raise ValueError(f"{len(labels)} group labels for {samples} samples; give one each")
            _, codes, sizes = np.unique(labels, return_inverse=True, return_counts=True)
            if len(sizes) < samples:
                return cls(codes.astype(np.int64), sizes.astype(np.int64))
        return cls(np.arange(samples), np.ones(samples, dtype=np.int64))

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
        """The sum of values over each group; [samples, ...] to [groups, ...]."""
        if self.single:
            return values
        found = np.zeros((len(self.sizes), *values.shape[1:]))
        np.add.at(found, self.codes, values)
        return found

    def drawn(self, resamples: int, seed: int) -> Iterator[tuple[int, Floats]]:
        """How often each group is among as many drawn with replacement; blocks of [draws, groups].

        Yields:
            the number of a block's first draw, and the block.
        """
        rng, n = np.random.default_rng(seed), len(self.sizes)
        for start in range(0, resamples, BLOCK):
            count = min(BLOCK, resamples - start)
            index = rng.integers(0, n, (count, n)) + n * np.arange(count)[:, None]
            counts = np.bincount(index.ravel(), minlength=count * n).reshape(count, n)
            yield start, counts.astype(np.float64)

    def permuted(self, outcomes: Floats, count: int, rng: np.random.Generator) -> Floats:
        """Outcomes under permutations that keep together what belongs together; [samples, count].

        Args:
            outcomes: [samples].
            count: of permutations.
            rng: draws them.
        """
        if self.single:
            return rng.permuted(np.repeat(outcomes[:, None], count, axis=1), axis=0)
        return outcomes[self.exchanged(count, rng)]

    def exchanged(self, count: int, rng: np.random.Generator) -> Ints:
        """Whose outcome each sample gets, where whole groups change places; [samples, count].

        Groups change places with those of like size: up to 1, 2, 4, 8, ... samples. In its new
        place a group's outcomes begin anywhere and go round, so that a larger place repeats some
        and a smaller one leaves some out. Among groups of one size that is an exact permutation
        test (whole-block exchange, Winkler et al. 2015). Among like sizes it holds by simulation
        (`benchmarks/family_wise.py`); flips of the signs of groups' contributions do not, where
        outcomes are rarely right.
        """
        of_group = np.argsort(self.codes, kind="stable")  # samples, one group after the other
        first = np.cumsum(self.sizes) - self.sizes
        donor = np.empty((len(self.sizes), count), dtype=np.int64)
        like = np.ceil(np.log2(self.sizes))
        for each in np.unique(like):
            members = np.flatnonzero(like == each)
            donor[members] = rng.permuted(np.repeat(members[:, None], count, axis=1), axis=0)
        start = rng.integers(0, 2**31, donor.shape)
        place = np.repeat(np.arange(len(self.sizes)), self.sizes)
        within = (np.arange(len(self.codes)) - first[place])[:, None] + start[place]
        giver = donor[place]
        found = np.empty((len(self.codes), count), dtype=np.int64)
        found[of_group] = of_group[first[giver] + within % self.sizes[giver]]
        return found
