"""What a model does with a short prompt, to hold it and its SAEs to what their libraries say.

Changes when something else is checked as a model or its SAEs are loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from corrsteer.errors import DeviceMemoryError
from corrsteer.hook_points import HookPoint
from corrsteer.lm.device_memory import NO_ROOM, is_out_of_memory
from corrsteer.lm.hooks import Tap, tapped

TEXTS = ("The weather is", "Question: how many days are in a week?\nAnswer:")
"""Prompts of different lengths."""


@torch.inference_mode()
def residuals_of(
    model: Any, prompt: Sequence[int], hook_points: Sequence[HookPoint]
) -> dict[HookPoint, Float[Tensor, "pos d_model"]]:
    """The residuals of one prompt at some hook points, in the model's dtype.

    Raises:
        DeviceMemoryError: there is no room for them.
    """
    seen: dict[HookPoint, Tensor] = {}

    def keep(hook_point: HookPoint) -> Tap:
        return lambda hidden: seen.__setitem__(hook_point, hidden[0])

    device = model.get_input_embeddings().weight.device
    try:
        with tapped(model, {hook_point: keep(hook_point) for hook_point in hook_points}):
            model(torch.tensor([list(prompt)], device=device))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise DeviceMemoryError(NO_ROOM) from error
    return seen
