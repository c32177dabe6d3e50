"""Random-feature controls: what steering by any active features of that size would do.

Changes when controls are drawn in another way.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from corrsteer.correlation import StreamingCorrelation
from corrsteer.errors import InsufficientDataError
from corrsteer.hook_points import HookPoint
from corrsteer.saes import SparseCoder
from corrsteer.steering import Steering


def random_controls(
    steering: Steering,
    statistics: Mapping[str, StreamingCorrelation],
    coders: Mapping[HookPoint, SparseCoder],
    draws: int,
    seed: int,
) -> list[Steering]:
    """Steerings by random features, alike in hook points, number of features and norm.

    Each draw takes, at every hook point, as many latents as the steering has there from those
    active on some fit sample, its own excepted, sums their rows of W_dec, and scales the sum to
    the steering's norm there.

    Args:
        steering: what they are controls of.
        statistics: hook point name -> statistics that say which latents are active.
        coders: the SAEs.
        draws: number of controls.
        seed: of the draws.

    Raises:
        InsufficientDataError: too few latents are active at a hook point.
    """
    generator = torch.Generator().manual_seed(seed)
    controls = []
    for _ in range(draws):
        vectors: dict[HookPoint, Tensor] = {}
        for hook, vector in steering.vectors.items():
            own = [f.latent for f in steering.features if f.hook_point == hook.name]
            latents = _draw(statistics[hook.name], own, hook, generator)
            direction = coders[hook].decoder_rows(latents).sum(0)
            norm = direction.norm()
            vectors[hook] = direction * (vector.norm() / norm) if norm > 0 else direction
        controls.append(
            Steering(
                vectors,
                (),
                steering.model,
                steering.revision,
                steering.positions,
                steering.strength,
            )
        )
    return controls


def _draw(
    statistics: StreamingCorrelation, own: list[int], hook: HookPoint, generator: torch.Generator
) -> list[int]:
    active = statistics.active.cpu() > 0
    active[own] = False
    candidates = active.nonzero()[:, 0]
    if len(candidates) < len(own):
        raise InsufficientDataError(
            f"{hook}: {len(candidates)} other active latents, but a control needs {len(own)}; "
            "use --controls 0"
        )
    order = torch.randperm(len(candidates), generator=generator)[: len(own)]
    return [int(latent) for latent in candidates[order]]
