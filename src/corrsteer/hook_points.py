"""Names of places in the residual stream, as TransformerLens and sae-lens write them.

Changes when a new site of a transformer block can be read and steered, or another library's name
for one is taken.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from corrsteer.errors import SAEError

Site = Literal["resid_pre", "mlp_out", "resid_post"]
"""Where in a block, in the order in which the forward pass reaches it."""

_NAME = re.compile(r"blocks\.(\d{1,5})\.hook_(\w+)", re.ASCII)

_BRIDGE_SITES: dict[str, Site] = {"in": "resid_pre", "out": "resid_post"}
"""Sites as TransformerLens 3 calls them: blocks.LAYER.hook_in and hook_out."""

_MODULE = re.compile(
    r"(?:(?:base_model|model|language_model|transformer|gpt_neox|backbone|decoder)\.)*"
    r"(?:layers|blocks|h)\.(\d{1,5})(?:\.(input|output))?",
    re.ASCII,
)
"""A block as transformers calls the module; what is meant is its output unless it says input."""


@dataclass(frozen=True)
class HookPoint:
    """One site of one transformer block.

    Attributes:
        layer: index of the block, from 0.
        site: `resid_pre` is the block's input, `resid_post` its output, `mlp_out` what its
            MLP adds to the residual stream.
    """

    layer: int
    site: Site

    @property
    def name(self) -> str:
        """The TransformerLens name, e.g. `blocks.3.hook_resid_post`."""
        return f"blocks.{self.layer}.hook_{self.site}"

    @property
    def order(self) -> tuple[int, int]:
        """Sorts hook points in the order of the forward pass."""
        return self.layer, get_args(Site).index(self.site)

    def shifted(self, layers: int) -> HookPoint:
        """The same site `layers` blocks later (earlier if negative)."""
        return HookPoint(self.layer + layers, self.site)

    @classmethod
    def parse(cls, name: str) -> HookPoint:
        """The hook point of a TransformerLens name, or of a transformers block's module.

        Raises:
            SAEError: the name is not of a site that can be steered.
        """
        match = _NAME.fullmatch(name)
        if match:
            site = _BRIDGE_SITES.get(match[2], match[2])
            if site in get_args(Site):
                return cls(int(match[1]), site)  # type: ignore[arg-type]
        module = _MODULE.fullmatch(name)
        if module:
            return cls(int(module[1]), "resid_pre" if module[2] == "input" else "resid_post")
        raise SAEError(
            f"hook point {name!r} cannot be steered; expected blocks.LAYER.hook_SITE with SITE one "
            f"of {', '.join(get_args(Site))}, or a block such as model.layers.LAYER"
        )

    def __str__(self) -> str:
        return self.name


def parts_in_words(names: Sequence[str], features: int) -> str:
    """Where a steering is, as `layer 4` or `layer 4, 20 latents`; "" where features say it.

    Args:
        names: its hook points.
        features: how many it is made of; with one at each hook point they say it themselves.
    """
    if not names or features == len(names):
        return ""
    return in_words(names) + (f", {features} latents" if features else "")


def in_words(names: Sequence[str]) -> str:
    """Where hook points of these names are, as `layer 4` or `6 layers, 0 to 5`."""
    hooks = sorted(map(HookPoint.parse, names), key=lambda hook: hook.order)
    if len(hooks) == 1:
        site = "" if hooks[0].site == "resid_post" else f" ({hooks[0].site})"
        return f"layer {hooks[0].layer}{site}"
    layers = {hook.layer for hook in hooks}
    return f"{len(layers)} layers, {min(layers)} to {max(layers)}"
