"""What a search chooses from: vectors with the arm that they are of, and their strengths.

Changes when another kind of vector can be steered by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from corrsteer.errors import InsufficientDataError, SettingsError
from corrsteer.features import Feature
from corrsteer.hook_points import HookPoint
from corrsteer.lm.models import LanguageModel
from corrsteer.method.ranking import Ranking
from corrsteer.runs.steering import DIRECTION, Steering, steering_of, summed
from corrsteer.settings import Positions, Strategy
from corrsteer.stats.outcome_sums import MeanPooled

Key = tuple[frozenset[Any], float]
"""What is added, and its strength."""
Rows = Mapping[tuple[str, int], Tensor]
"""`Feature.key` -> W_dec[latent]."""

REBUILT_FROM = (5, 20, 50)
"""Latents of a layer that a denoised direction may be made of."""
MOST_STEPS = 1_000
"""Of a logistic regression, which ends long before."""
BEST_OF_LAYER = (2, 3, 5, 10)
"""Features of a layer that `topk` may take."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """Vectors that may be steered by, at a strength that is to be found.

    Attributes:
        strategy: the arm that it is of.
        vectors: hook point -> what is added at strength 1.
        features: it is made of; none where it is a dense direction.
        direction: what a dense direction is, in words; "" for one of features.
    """

    strategy: Strategy
    vectors: Mapping[HookPoint, Tensor]
    features: tuple[Feature, ...] = ()
    direction: str = ""

    @classmethod
    def of(cls, strategy: Strategy, features: Sequence[Feature], rows: Rows) -> Candidate:
        """A set of features, each with its own coefficient."""
        return cls(strategy, summed(features, rows), tuple(features))

    @property
    def key(self) -> frozenset[Any]:
        """What tells candidates apart, whichever arm made them."""
        if self.direction:
            return frozenset((self.direction, hook.name) for hook in self.vectors)
        return frozenset((*feature.key, feature.coefficient) for feature in self.features)

    @property
    def size(self) -> int:
        """How many features, or dense directions, it is made of."""
        return len(self.features) or len(self.vectors)


@dataclass(frozen=True)
class Setting:
    """A candidate at a strength."""

    candidate: Candidate
    strength: float

    @property
    def key(self) -> Key:
        """What tells steerings apart, whichever arm made them."""
        return self.candidate.key, self.strength

    @property
    def strategy(self) -> Strategy:
        """The arm that it is of."""
        return self.candidate.strategy

    def steering(self, lm: LanguageModel, positions: Positions) -> Steering:
        """What it does to a model."""
        own = self.candidate
        about = {DIRECTION: own.direction} if own.direction else {}
        return steering_of(own.vectors, own.features, lm, positions, about).at(self.strength)


Grids = Mapping[Strategy, Sequence[Candidate]]
"""Arm -> what it chooses from by trying, where that is more than one set of vectors."""


def dense(means: Mapping[HookPoint, MeanPooled]) -> tuple[Candidate, ...]:
    """The difference of means of the residual on right and wrong answers: in a layer, and in all.

    Residuals are pooled by mean over the positions that activations are pooled over; right is an
    outcome above 0. Source: iPAS (arXiv 2509.22739), which takes one layer.

    Args:
        means: hook point -> what was collected there; none makes no candidate.
    """
    try:
        vectors = {hook: each.residual.contrast().float().cpu() for hook, each in means.items()}
    except InsufficientDataError:
        return ()
    return alone_and_together("dense", vectors, "difference of means")


def denoised(ranking: Ranking, rows: Rows) -> tuple[Candidate, ...]:
    """That difference rebuilt from the latents of largest contrast: in a layer, and in all.

    The sum of contrast * W_dec over the `REBUILT_FROM` latents of largest |contrast| (see
    `Ranking.by_contrast`). Source: SDCV (arXiv 2505.15038).

    Args:
        ranking: its latents by contrast; none makes no candidate.
        rows: theirs.
    """
    sets = [
        {hook: features[:count] for hook, features in ranking.by_contrast.items() if features}
        for count in REBUILT_FROM
    ]
    found: dict[frozenset[Any], Candidate] = {}
    for by_layer in sets:
        every = [feature for features in by_layer.values() for feature in features]
        for features in [*by_layer.values(), every] if every else []:
            candidate = Candidate.of("denoised", features, rows)
            found.setdefault(candidate.key, candidate)  # a layer may have fewer
    return tuple(found.values())


def probe(means: Mapping[HookPoint, MeanPooled]) -> tuple[Candidate, ...]:
    """The direction of a logistic regression on the residual: in a layer, and in all of them.

    Fitted by scikit-learn with its defaults (L2, C = 1) on the residuals that are kept, each
    dimension divided by its standard deviation; right is an outcome above 0. A probability has no
    length in the residual stream, so the direction is given that of the difference of means there.

    Args:
        means: hook point -> what was collected there; without kept residuals of both outcomes there
            is no candidate.

    Raises:
        SettingsError: scikit-learn is not installed.
    """
    vectors = {}
    for hook, each in means.items():
        if each.kept is None:
            return ()
        right = each.kept.outcomes > 0
        if right.all() or not right.any():
            return ()
        direction = _logistic(each.kept.values.double(), right)
        length = each.residual.contrast().norm().cpu()
        vectors[hook] = (direction * (length / direction.norm())).float()
    return alone_and_together("probe", vectors, "logistic direction")


def _logistic(values: Float64[Tensor, "n d_model"], right: Tensor) -> Float64[Tensor, " d_model"]:
    """The weights of a logistic regression, in units of the values."""
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise SettingsError(
            "the arm probe needs scikit-learn; install it by: pip install 'corrsteer[probe]'"
        ) from error
    spread = values.std(0, correction=0)
    spread = torch.where(spread > 0, spread, 1.0)
    model = LogisticRegression(max_iter=MOST_STEPS)
    model.fit(((values - values.mean(0)) / spread).numpy(), right.numpy())
    return torch.from_numpy(model.coef_[0]) / spread


def best_of_layers(ranking: Ranking, rows: Rows) -> tuple[Candidate, ...]:
    """Several features of every layer, the best by r, as the paper's code has it for k > 1."""
    found: dict[frozenset[Any], Candidate] = {}
    for count in BEST_OF_LAYER:
        features = [each for best in ranking.by_layer.values() for each in best[:count]]
        if features:
            candidate = Candidate.of("topk", features, rows)
            found.setdefault(candidate.key, candidate)
    return tuple(found.values())


def alone_and_together(
    strategy: Strategy, vectors: Mapping[HookPoint, Tensor], direction: str
) -> tuple[Candidate, ...]:
    """A candidate of each vector, and one of all of them, in the order of layers."""
    ordered = {hook: vectors[hook] for hook in sorted(vectors, key=lambda hook: hook.order)}
    sets = [{hook: vector} for hook, vector in ordered.items()]
    if len(sets) > 1:
        sets.append(ordered)
    return tuple(Candidate(strategy, each, direction=direction) for each in sets)
