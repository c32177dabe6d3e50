"""Random controls: what steering by any active features, or directions, of that size would do.

Changes when controls are drawn in another way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from corrsteer.errors import InsufficientDataError
from corrsteer.hook_points import HookPoint
from corrsteer.lm.saes import SAEHandle
from corrsteer.method.splitting import SelectSplit
from corrsteer.runs.steering import Steering
from corrsteer.settings import FitSettings
from corrsteer.stats.correlation import StreamingCorrelation


def random_controls(
    steering: Steering,
    statistics: Mapping[str, StreamingCorrelation],
    handles: Sequence[SAEHandle],
    draws: int,
    seed: int,
) -> list[Steering]:
    """Steerings by random features, alike in hook points, number of features and norm.

    Each draw takes, at every hook point, as many latents as the steering has there from those
    active on some fit sample, its own excepted where enough others are, sums their rows of W_dec,
    and scales the sum to the steering's norm there.

    Args:
        steering: what they are controls of.
        statistics: hook point name -> statistics that say which latents are active.
        handles: the model's SAEs.
        draws: number of controls.
        seed: of the draws.

    Raises:
        InsufficientDataError: too few latents are active at a hook point.
    """
    generator = torch.Generator().manual_seed(seed)
    own = {
        hook: [f.latent for f in steering.features if f.hook_point == hook.name]
        for hook in steering.vectors
    }
    drawn = [
        {hook: _draw(statistics[hook.name], own[hook], hook, generator) for hook in own}
        for _ in range(draws)
    ]
    vectors: list[dict[HookPoint, Tensor]] = [{} for _ in range(draws)]
    for handle in handles:
        hook = handle.hook_point
        if hook in own:
            # read together, for each read goes through the whole of W_dec
            rows = handle.decoder_rows([latent for draw in drawn for latent in draw[hook]])
            norm = steering.vectors[hook].norm()
            for control, directions in zip(vectors, torch.split(rows, len(own[hook])), strict=True):
                control[hook] = _of_norm(directions.sum(0), norm)
    return [replace(steering, vectors=control, features=()) for control in vectors]


def random_directions(steering: Steering, draws: int, seed: int) -> list[Steering]:
    """Steerings by random directions, alike in hook points and norm.

    Every direction is as likely as any other.

    Args:
        steering: what they are controls of.
        draws: number of controls.
        seed: of the draws.
    """
    generator = torch.Generator().manual_seed(seed)
    return [
        replace(
            steering,
            vectors={
                hook: _of_norm(torch.randn(len(vector), generator=generator), vector.norm())
                for hook, vector in steering.vectors.items()
            },
        )
        for _ in range(draws)
    ]


def searched(
    controls: Sequence[Steering], select: SelectSplit, settings: FitSettings
) -> list[Steering]:
    """Each control at its best strength, found as that of the steering was.

    The steering's strength is the best of several on the select split, so a control that had but
    one strength would be held against a choice that it never had.

    Args:
        controls: at any strength.
        select: where the steering's strength was found.
        settings: of the fit.
    """
    strengths = settings.searched_strengths
    if not controls or len(strengths) == 1:
        return list(controls)
    arms = [control.at(strength) for control in controls for strength in strengths]
    build = select.halves.build
    outcomes = select.runner.outcomes(arms, f"{len(arms)} random controls", build)
    gains = np.array([each.comparison().delta.value for each in outcomes])
    best = gains.reshape(len(controls), len(strengths)).argmax(axis=1)
    return [
        control.at(strengths[index]) for control, index in zip(controls, best.tolist(), strict=True)
    ]


def _of_norm(direction: Float[Tensor, " d_model"], norm: Tensor) -> Float[Tensor, " d_model"]:
    own = direction.norm()
    return direction * (norm / own) if own > 0 else direction


def _draw(
    statistics: StreamingCorrelation, own: list[int], hook: HookPoint, generator: torch.Generator
) -> list[int]:
    active = statistics.active.cpu() > 0
    if int(active.sum()) >= 2 * len(own):
        active[own] = False
    candidates = active.nonzero()[:, 0]
    if len(candidates) < len(own):
        raise InsufficientDataError(
            f"{hook}: {len(candidates)} other active latents, but a control needs {len(own)}; "
            "use --controls 0"
        )
    order = torch.randperm(len(candidates), generator=generator)[: len(own)]
    return [int(latent) for latent in candidates[order]]
