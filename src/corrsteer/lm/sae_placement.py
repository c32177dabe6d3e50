"""On which device each SAE lies: beside its transformer block, or visiting from main memory.

Changes when SAEs share memory with the model in another way.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from corrsteer.errors import SAEError, UnknownNameError
from corrsteer.hook_points import HookPoint
from corrsteer.lm.known_models import without_saes
from corrsteer.lm.models import LanguageModel, ModelFacts
from corrsteer.lm.saes import LensSAE, SAEHandle, SparseCoder, VisitingSAE
from corrsteer.settings import SAEDtype

log = logging.getLogger(__name__)

RESERVE = 0.3
"""Share of a GPU's memory kept for the cache of keys and values, residuals and statistics."""


def choose_handles(lm: LanguageModel | ModelFacts, layers: Sequence[int] | None) -> list[SAEHandle]:
    """The model's SAEs of some layers, or of all.

    Raises:
        UnknownNameError: there is no SAE at a layer asked for, or none at all.
    """
    if not lm.saes:
        raise UnknownNameError(f"{lm.id} has no SAEs; {without_saes(lm.id)}")
    if layers is None:
        return list(lm.saes)
    there = [handle.layer for handle in lm.saes]
    for layer in layers:
        if layer not in there:
            raise UnknownNameError(
                f"layer {layer} is not in {_ranges(there)} of {lm.id}; "
                "choose --layers from that range"
            )
    return [handle for handle in lm.saes if handle.layer in layers]


def load_coders(
    handles: Sequence[SAEHandle], lm: LanguageModel, dtype: SAEDtype = "float32"
) -> dict[HookPoint, SparseCoder]:
    """The SAEs of some handles, loaded one at a time, each where its block is.

    Once a GPU has too little room left, further SAEs wait in main memory and visit it in turn,
    which costs their transfer for every few blocks of residuals.

    Args:
        handles: the SAEs.
        lm: the model that they read.
        dtype: of their products, see `FitSettings.sae_dtype`.

    Raises:
        SAEError: one cannot be loaded, or has no bfloat16 products.
    """
    coders: dict[HookPoint, SparseCoder] = {}
    residuals = lm.own_residuals([handle.hook_point for handle in handles])
    largest = visiting = 0
    for handle in handles:
        device = lm.device_of(handle.hook_point)
        free = memory_of(device)
        if free is not None and handle.load_visiting and free.left - largest < RESERVE * free.total:
            coders[handle.hook_point] = handle.load_visiting(residuals[handle.hook_point])
            visiting += 1
            continue
        coders[handle.hook_point] = handle.load(device, residuals[handle.hook_point])
        if free is not None:
            largest = max(largest, free.left - (memory_of(device) or free).left)
    if visiting:
        log.info("%d of %d SAEs do not fit beside the model and visit it", visiting, len(coders))
    if dtype == "bfloat16":
        for hook, coder in coders.items():
            if not isinstance(coder, LensSAE | VisitingSAE):
                raise SAEError(f"{hook} is read as it is; --sae-dtype bfloat16 is for SAEs")
            coder.multiply_in_bfloat16()
    return coders


def settled(
    coders: Mapping[HookPoint, SparseCoder], lm: LanguageModel
) -> dict[HookPoint, SparseCoder]:
    """SAEs that came in main memory, each where its block is, or visiting where there is no room.

    As `load_coders` leaves them, for a worker that they were sent to.
    """
    settled: dict[HookPoint, SparseCoder] = {}
    for hook, coder in coders.items():
        settled[hook], free = coder, memory_of(lm.device_of(hook))
        if free is None or not isinstance(coder, LensSAE):
            continue
        weights = coder.weights()
        size = sum(weight.nbytes for weight in weights.values())
        if free.left - size < RESERVE * free.total:
            settled[hook] = VisitingSAE(coder)
        else:
            device = lm.device_of(hook)
            coder.put({name: weight.to(device) for name, weight in weights.items()})
    return settled


@dataclass(frozen=True)
class DeviceMemory:
    """Bytes of a GPU: those free, and all."""

    left: int
    total: int


def memory_of(device: torch.device) -> DeviceMemory | None:
    """The memory of a GPU; None of any other device."""
    return DeviceMemory(*torch.cuda.mem_get_info(device)) if device.type == "cuda" else None


def _ranges(layers: Sequence[int]) -> str:
    """Layers in words: `0..25` where they are consecutive, else a list."""
    low, high = min(layers), max(layers)
    if sorted(layers) == list(range(low, high + 1)):
        return f"{low}..{high}"
    return ", ".join(map(str, sorted(layers)))
