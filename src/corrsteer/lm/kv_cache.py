"""Keys and values that grow in place.

transformers' own cache concatenates, which copies all of it at every token. Changes when its layers
hold something else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

ROOM = 64
"""Positions reserved beyond those there are, whenever there is none left."""


def growing_cache(config: Any, most_positions: int) -> DynamicCache:
    """An empty cache for a model.

    Args:
        config: the model's.
        most_positions: that any row will have; a sliding window as long never slides.
    """
    cache = DynamicCache(config=config)
    cache.layers = [_growing(layer, most_positions) for layer in cache.layers]
    return cache


def cache_of(keys: Sequence[Tensor], values: Sequence[Tensor]) -> DynamicCache:
    """A cache that begins with these keys and values, a pair for every layer, and grows."""
    cache = DynamicCache()
    for layer_keys, layer_values in zip(keys, values, strict=True):
        layer = GrowingLayer()
        layer.lazy_initialization(layer_keys, layer_values)
        layer.keys, layer.values = layer_keys, layer_values
        cache.layers.append(layer)
    return cache


def keeps_all(cache: DynamicCache) -> bool:
    """Whether every layer keeps every position."""
    return all(isinstance(layer, GrowingLayer) for layer in cache.layers)


def _growing(layer: Any, most_positions: int) -> Any:
    slides = type(layer) is DynamicSlidingWindowLayer and layer.sliding_window < most_positions
    plain = type(layer) in (DynamicLayer, DynamicSlidingWindowLayer)
    return GrowingLayer(most_positions) if plain and not slides else layer


class GrowingLayer(DynamicLayer):  # type: ignore[misc]
    """The keys and values of one layer, at the beginning of larger tensors.

    Args:
        most_positions: reserved at once on a CPU, where memory that is not written to costs nothing
            and every reservation leaves a hole.

    Attributes:
        keys, values: those there are; [batch, heads, pos, head].
    """

    keys: Tensor
    values: Tensor

    def __init__(self, most_positions: int = 0) -> None:
        super().__init__()
        self._most_positions = most_positions
        self._reserved: tuple[Tensor, Tensor] | None = None

    def update(
        self,
        key_states: Float[Tensor, "batch heads new head"],
        value_states: Float[Tensor, "batch heads new value"],
        *args: Any,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        """Add positions; returns all."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[2]
        if self._reserved is None or self._reserved[0].shape[2] < end:
            most = self._most_positions if key_states.device.type == "cpu" else 0
            positions = most if most >= end else end + ROOM
            self._reserved = (
                _reserve(self.keys, key_states, positions),
                _reserve(self.values, value_states, positions),
            )
        keys, values = self._reserved
        keys[:, :, start:end] = key_states
        values[:, :, start:end] = value_states
        self.keys, self.values = keys[:, :, :end], values[:, :, :end]
        return self.keys, self.values

    def reorder_cache(self, beam_idx: Int64[Tensor, " rows"]) -> None:
        """Keep these rows, in this order."""
        super().reorder_cache(beam_idx)
        self._reserved = None


def _reserve(held: Tensor, new: Tensor, positions: int) -> Tensor:
    """A tensor for that many positions, with those held at its beginning."""
    batch, heads, _, width = new.shape
    reserved = torch.empty(batch, heads, positions, width, dtype=new.dtype, device=new.device)
    if held.numel():
        reserved[:, :, : held.shape[2]] = held
    return reserved
