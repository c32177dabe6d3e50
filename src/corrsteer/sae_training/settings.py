"""How SAEs are trained.

Changes when there is another choice to make.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from corrsteer.errors import SettingsError, UnknownNameError

DEPTHS = (4 / 15, 7 / 15, 10 / 15, 13 / 15)
"""Where the default layers lie in a model: 8, 14, 20 and 26 of 30."""

LATENTS_PER_DIMENSION = 3
"""Latents for each dimension of the residual stream, at least; their number is a power of two."""


@dataclass(frozen=True)
class SAESettings:
    """How SAEs are trained.

    Attributes:
        layers: whose outputs they read; four, spread over the model, if None.
        latents: of each SAE; a power of two that is three a dimension of the model or more if None.
        k: latents that are active at a position, on average.
        tokens: positions to train on, if there are as many; the batch that has the last of them is
            used whole.
        epochs: passes over them.
        max_new_tokens: longest reply, where the model writes the texts.
        batch_size: texts run at once.
        seed: of every random choice.
    """

    layers: tuple[int, ...] | None = None
    latents: int | None = None
    k: int = 32
    tokens: int = 55_000
    epochs: int = 10
    max_new_tokens: int = 64
    batch_size: int = 32
    seed: int = 42

    def __post_init__(self) -> None:
        """Refuse values that cannot work.

        Raises:
            SettingsError: names the setting, its value and what is allowed.
        """
        for name in ("latents", "k", "tokens", "epochs", "max_new_tokens", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SettingsError(f"{name} is {value}; choose 1 or more")
        if not 0 <= self.seed < 2**32:
            raise SettingsError(f"seed is {self.seed}; choose 0 to {2**32 - 1}")
        if self.layers is not None and len(set(self.layers)) < len(self.layers):
            raise SettingsError(f"layers is {self.layers}; name each layer once")

    def layers_of(self, n_layers: int) -> list[int]:
        """The layers, in order, of a model that has so many.

        Raises:
            UnknownNameError: it has no such layer.
        """
        layers = {int(n_layers * depth) for depth in DEPTHS} if self.layers is None else self.layers
        for layer in layers:
            if not 0 <= layer < n_layers:
                raise UnknownNameError(
                    f"layer {layer} is not in 0..{n_layers - 1} of the model; choose --layers from "
                    "that range"
                )
        return sorted(layers)

    def latents_of(self, d_model: int) -> int:
        """Latents of each SAE for a model of that width.

        Raises:
            SettingsError: fewer than are to be active.
        """
        latents = self.latents or 2 ** math.ceil(math.log2(LATENTS_PER_DIMENSION * d_model))
        if latents <= self.k:
            raise SettingsError(
                f"k is {self.k}, but an SAE has {latents} latents; choose fewer, or more --latents"
            )
        return latents
