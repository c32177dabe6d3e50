"""How often a search recommends a steering where every setting's true effect is exactly zero.

    python benchmarks/zero_effect.py
    python benchmarks/zero_effect.py --runs 1000

A stand-in for the model: half of the samples are right without steering, and a setting turns one in
ten of all outcomes round, whatever they were. Which ones is drawn for every setting by itself, or
for every feature, so that sets that share features do alike. The search is the real one: S, A, P, G
and dense directions of every layer at every strength, built on one part of the select samples and
confirmed on the other. Prints the share of runs that recommend anything with its exact 95 %
interval, as Markdown.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from corrsteer.features import Feature
from corrsteer.hook_points import HookPoint
from corrsteer.method.candidates import Grids, alone_and_together
from corrsteer.method.ranking import Ranking
from corrsteer.method.splitting import Halves, Proving
from corrsteer.method.strategies import Searcher
from corrsteer.runs.comparison import PairedOutcomes
from corrsteer.runs.steering import Steering
from corrsteer.settings import FitSettings
from corrsteer.studies.null import Share

TURNED = 0.1
"""Share of outcomes that a setting, or a feature, turns round."""


@dataclass
class StandIn:
    """A select split on which nothing has an effect; see `Arms`."""

    samples: int
    alike: bool
    seed: int
    lm: Any = field(init=False)
    task: Any = field(init=False)
    groups: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        config = SimpleNamespace(model_type="stand-in")
        self.lm = SimpleNamespace(
            model=SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: config)),
            id="stand-in",
            revision=None,
        )
        self.task = SimpleNamespace(name="stand-in")
        self.groups = np.arange(self.samples)
        self._baseline = self._drawn("baseline", 0.5)

    def outcomes(
        self,
        steerings: Sequence[Steering],
        name: str = "steered",
        rows: NDArray[np.bool_] | None = None,
    ) -> list[PairedOutcomes]:
        """Each steering's outcomes with the baseline's, on some samples or all."""
        every = [self._outcomes(steering) for steering in steerings]
        return every if rows is None else [each.part(rows) for each in every]

    def _outcomes(self, steering: Steering) -> PairedOutcomes:
        names = sorted(f"{layer}/{latent}" for layer, latent in (f.key for f in steering.features))
        names = names or sorted(f"dense {hook}" for hook in steering.vectors)
        keys = names if self.alike else ["+".join(names)]
        turned = np.zeros(self.samples, dtype=bool)
        for key in keys:
            turned |= self._drawn(f"{key} x {steering.strength}", TURNED)
        turned &= bool(names)
        steered = self._baseline ^ turned
        return PairedOutcomes(
            self._baseline.astype(np.float64), steered.astype(np.float64), ~turned, self.groups
        )

    def _drawn(self, key: str, share: float) -> NDArray[np.bool_]:
        digest = hashlib.sha256(f"{self.seed} {key}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(digest[:8]))
        return np.asarray(rng.random(self.samples) < share)


def ranking(layers: int, near_ties: int) -> Ranking:
    """Features of every layer whose r are all alike."""
    by_layer = {}
    for layer in range(layers):
        hook = HookPoint(layer, "resid_post")
        by_layer[hook] = tuple(
            Feature(
                hook_point=hook.name,
                layer=layer,
                latent=latent,
                coefficient=1.0,
                correlation=0.3 - 1e-4 * latent - 1e-5 * layer,
                correlation_ci=(0.2, 0.4),
                p_adjusted=0.01,
                frequency=0.5,
                frequency_correct=None,
                frequency_incorrect=None,
            )
            for latent in range(near_ties)
        )
    return Ranking(by_layer, layers * 16_384, 400)


def recommends(layers: int, samples: int, alike: bool, seed: int) -> bool:
    """Whether a run of the search recommends anything."""
    settings = FitSettings(seed=seed)
    found = ranking(layers, settings.near_ties)
    rows = {f.key: torch.ones(1) for features in found.by_layer.values() for f in features}
    stand_in = StandIn(samples, alike, seed)
    halves = Halves.of(stand_in.groups, seed)
    directions = {HookPoint(layer, "resid_post"): torch.ones(1) for layer in range(layers)}
    grids: Grids = {"dense": alone_and_together("dense", directions, "difference of means")}
    search = Searcher(Proving(stand_in, halves), [], found, rows, settings, grids).run()
    return search.recommended is not None


def main() -> None:
    """Print the table, a row as soon as it is measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=200)
    runs = parser.parse_args().runs
    print("| layers | select samples | effects | recommends |")
    print("|---|---|---|---|")
    for layers in (26, 32):
        for samples in (400, 1500):
            for alike in (False, True):
                share = Share.of([recommends(layers, samples, alike, each) for each in range(runs)])
                low, high = share.ci or (0.0, 1.0)
                effects = "of shared features alike" if alike else "independent"
                told = f"{share.count} of {runs}, {100 * low:.1f} to {100 * high:.1f} %"
                print(f"| {layers} | {samples} | {effects} | {told} |", flush=True)


if __name__ == "__main__":
    main()
