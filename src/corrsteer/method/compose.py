"""A steering by latents that somebody names.

Changes when more is made of them. No sample is run; what is made is an artifact like any other, to
be evaluated, guarded, exported and verified.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from corrsteer.errors import SAEError, UnknownNameError
from corrsteer.hook_points import HookPoint
from corrsteer.lm.models import ModelFacts
from corrsteer.lm.saes import SAEHandle
from corrsteer.runs.named_latents import NamedLatent
from corrsteer.runs.steering import DIRECTION, Steering
from corrsteer.settings import Positions

SHOWN = 6
"""Latents that an artifact's description names; it counts the others."""


def compose(
    facts: ModelFacts,
    latents: Sequence[NamedLatent],
    positions: Positions = "generated",
    strength: float = 1.0,
) -> Steering:
    """The steering by these latents: the sum of coefficient * W_dec[latent] at each hook point.

    Args:
        facts: of a model with SAEs; its weights are not needed.
        latents: of its SAEs.
        positions: where it steers.
        strength: of its own.

    Raises:
        UnknownNameError: there is no SAE of that layer, or no such latent in it.
    """
    if not facts.saes:
        raise UnknownNameError(f"{facts.id} has no SAEs to take latents of; name some with --sae")
    handles: dict[int, SAEHandle] = {}
    for handle in facts.saes:
        if handle.layer in handles:
            raise UnknownNameError(
                f"{facts.id} has several SAEs of layer {handle.layer}; name one site with --sae"
            )
        handles[handle.layer] = handle
    vectors: dict[HookPoint, Tensor] = {}
    for layer in sorted({each.layer for each in latents}):
        if layer not in handles:
            known = ", ".join(map(str, sorted(handles)))
            raise UnknownNameError(f"there is no SAE of layer {layer}; layers are {known}")
        of_layer = [each for each in latents if each.layer == layer]
        rows = _rows(handles[layer], [each.latent for each in of_layer])
        coefficients = torch.tensor([each.coefficient for each in of_layer])
        vectors[handles[layer].hook_point] = coefficients @ rows.float()
    named = ", ".join(map(str, latents[:SHOWN]))
    more = f" and {len(latents) - SHOWN} more" if len(latents) > SHOWN else ""
    about = {DIRECTION: f"latents named by hand, {named}{more}"}
    return Steering(vectors, (), facts.id, facts.revision, positions, strength, about)


def _rows(handle: SAEHandle, latents: Sequence[int]) -> Float[Tensor, "latents d_model"]:
    try:
        return handle.decoder_rows(latents)
    except SAEError as error:
        raise UnknownNameError(
            f"the SAE of layer {handle.layer} has no latent {max(latents)}"
        ) from error
