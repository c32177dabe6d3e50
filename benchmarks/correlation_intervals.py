"""How often 95 % intervals of r hold the true r: Fisher's and the bootstrap's (BCa).

    python benchmarks/correlation_intervals.py
    python benchmarks/correlation_intervals.py --runs 1000

Latents are active on a share of the samples, log-normally there, and outcomes of 0 and 1 have a
chance linear in the activation, so the true r is known: 0.3, or the most that the latent allows.
In the second table activations and outcomes are alike in groups of samples. Prints Markdown, in %;
an interval is counted where it is given. A bootstrap interval is given where 30 samples, or groups
of them, carry the latent's variance (`stats/intervals.py`); the column before has it everywhere.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from corrsteer.stats.groups import Groups
from corrsteer.stats.intervals import (
    CARRIERS,
    bootstrap_intervals,
    carriers,
    effective_samples,
)
from corrsteer.stats.significance import correlation_interval
from corrsteer.studies.null import correlated_probabilities

Floats = NDArray[np.float64]
R = 0.3
POPULATION = 200_000
TOGETHER = 0.25
"""How far a group moves the chance of its outcomes, up or down."""


@dataclass(frozen=True)
class Case:
    """A latent's frequency and the spread of its log, samples, and how they come in groups."""

    frequency: float
    spread: float
    samples: int
    size: int = 1
    alike: float = 0.0

    def activations(
        self, samples: int, rng: np.random.Generator
    ) -> tuple[Floats, NDArray[np.int64]]:
        """Of groups drawn anew, and the group of each."""
        group = np.arange(samples) // self.size
        normal = np.sqrt(self.alike) * rng.normal(size=group[-1] + 1)[group]
        normal = normal + np.sqrt(1 - self.alike) * rng.normal(size=samples)
        # the rank among the active ones is uniform, and so is what it is turned into
        rank = stats.norm.sf(normal) / self.frequency
        active = rank < 1
        z = np.zeros(samples)
        z[active] = np.exp(self.spread * stats.norm.isf(rank[active]))
        return z, group

    def held(self, runs: int) -> tuple[list[bool], list[bool], list[bool]]:
        """Whether Fisher's interval, any bootstrap interval, and a given one hold the true r."""
        rng = np.random.default_rng(0)
        population, _ = self.activations(POPULATION, rng)
        swing = TOGETHER if self.size > 1 else 0.0
        # within the swing's room, so that every chance stays one
        chance, true = correlated_probabilities(population, 0.5, R * (1 - 2 * swing))
        slope = np.polyfit(population, chance, 1)[0] * (1 - 2 * swing)
        true *= 1 - 2 * swing
        fisher, everywhere, given = [], [], []
        for run in range(runs):
            z, group = self.activations(self.samples, rng)
            p = 0.5 + slope * (z - population.mean())
            p = p + swing * rng.choice([-1.0, 1.0], group[-1] + 1)[group]
            y = (rng.random(self.samples) < p).astype(np.float64)
            if not (np.ptp(z) and np.ptp(y)):
                continue
            groups = Groups.of(group, self.samples)
            n = float(effective_samples(z[None], y, groups)[0])
            low, high = correlation_interval(float(np.corrcoef(z, y)[0, 1]), n)
            fisher.append(low <= true <= high)
            low, high = bootstrap_intervals(z[None], y, 1000, run, groups)[0]
            if not np.isnan(low + high):
                everywhere.append(bool(low <= true <= high))
                if carriers(z[None], groups)[0] >= CARRIERS:
                    given.append(everywhere[-1])
        return fisher, everywhere, given


def row(case: Case, runs: int) -> str:
    """A row of either table."""
    fisher, everywhere, given = case.held(runs)
    cells = [share(fisher), share(everywhere), share(given), f"{100 * len(given) / runs:.0f}"]
    return " | ".join(cells)


def share(held: Sequence[bool]) -> str:
    """In %; a dash where there are too few."""
    return f"{100 * np.mean(held):.1f}" if len(held) >= 20 else "-"


def main() -> None:
    """Print both tables, a row as soon as it is measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=400)
    runs = parser.parse_args().runs
    print("| active on | spread | samples | Fisher | BCa | BCa where given | given |")
    print("|---|---|---|---|---|---|---|")
    for frequency, samples in ((0.02, 400), (0.02, 2000), (0.05, 1000), (0.2, 400), (0.5, 400)):
        for spread in (0.3, 1.0):
            cells = row(Case(frequency, spread, samples), runs)
            print(f"| {frequency:.0%} | {spread} | {samples} | {cells} |", flush=True)
    print()
    print("| groups of | ICC | active on | Fisher | BCa | BCa where given | given |")
    print("|---|---|---|---|---|---|---|")
    for size in (2, 5, 10):
        for alike in (0.2, 0.5):
            for frequency in (0.1, 0.5):
                cells = row(Case(frequency, 0.5, 500, size, alike), runs)
                print(f"| {size} | {alike} | {frequency:.0%} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
