"""What an SAE is worth: how much of the residuals, and of the model's loss, it keeps.

Changes when quality is measured by something else.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from corrsteer.hook_points import HookPoint
from corrsteer.lm.models import LanguageModel
from corrsteer.lm.texts import Documents, loss_of

ROWS = 4096
"""Positions encoded at once."""


@dataclass(frozen=True)
class SAEQuality:
    """What an SAE is worth on texts that it was not trained on.

    Attributes:
        layer: whose output it reads.
        fvu: fraction of variance unexplained: the squared error of reconstructions over the squared
            distance of residuals from their mean.
        l0: latents that are active at a position, on average.
        dead: share of latents that are active at no position that was trained on.
        loss: the model's cross-entropy, in nats a token.
        loss_reconstructed: the same with reconstructions in place of the residuals.
        loss_zeroed: the same with zeros in their place.
    """

    layer: int
    fvu: float
    l0: float
    dead: float
    loss: float
    loss_reconstructed: float
    loss_zeroed: float

    @property
    def loss_recovered(self) -> float:
        """1 where reconstructions do as well as residuals, 0 where no better than zeros.

        NaN where zeros do no worse than residuals.
        """
        worst = self.loss_zeroed - self.loss
        return (self.loss_zeroed - self.loss_reconstructed) / worst if worst > 0 else math.nan


def quality_of(
    lm: LanguageModel,
    sae: Any,
    hook_point: HookPoint,
    trained: Float[Tensor, "trained d_model"],
    residuals: Float[Tensor, "rows d_model"],
    held_out: Documents,
) -> SAEQuality:
    """The quality of an SAE.

    Args:
        lm: the model.
        sae: of sae-lens, as it was written.
        hook_point: where it reads.
        trained: residuals that it was trained on.
        residuals: those of the held-out documents.
        held_out: texts that it was not trained on.
    """
    alive = torch.stack([(z > 0).any(0) for _, z in _encoded(sae, trained)]).any(0)
    error = active = 0.0
    for x, z in _encoded(sae, residuals):
        error += float((sae.decode(z) - x).double().square().sum())
        active += float((z > 0).sum())
    variance = float((residuals - residuals.mean(0)).double().square().sum())
    return SAEQuality(
        layer=hook_point.layer,
        fvu=error / variance if variance else math.nan,
        l0=active / len(residuals),
        dead=1 - float(alive.float().mean()),
        loss=loss_of(lm, held_out),
        loss_reconstructed=loss_of(lm, held_out, {hook_point: lambda x: sae.decode(sae.encode(x))}),
        loss_zeroed=loss_of(lm, held_out, {hook_point: torch.zeros_like}),
    )


@torch.no_grad()
def _encoded(sae: Any, residuals: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Residuals and their activations, some positions at a time, on the SAE's device."""
    for rows in torch.split(residuals, ROWS):
        x = rows.to(sae.W_enc.device)
        yield x, sae.encode(x)
