"""Pooling of activations over a sample's positions, some positions at a time.

Changes when there is another way to pool.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from corrsteer.config import Pool


class RunningPool:
    """The max or mean over positions for a batch of samples, never holding the positions.

    Attributes:
        kind: `max` or `mean`.
    """

    def __init__(self, kind: Pool, batch: int, width: int, device: torch.device | str = "cpu"):
        self.kind: Pool = kind
        start = -torch.inf if kind == "max" else 0.0
        self._values = torch.full((batch, width), start, dtype=torch.float32, device=device)
        self._positions = torch.zeros(batch, dtype=torch.int64, device=device)

    def update(
        self, rows: Int64[Tensor, " rows"], z: Float[Tensor, "positions rows width"]
    ) -> RunningPool:
        """Add as many positions of each of some samples.

        Args:
            rows: which samples of the batch, no sample twice.
            z: their activations at those positions.
        """
        held = self._values[rows]
        if self.kind == "max":
            self._values[rows] = torch.maximum(held, z.amax(0))
        else:
            self._values[rows] = held + z.sum(0)
        self._positions[rows] += len(z)
        return self

    def result(self) -> Float[Tensor, "batch width"]:
        """Pooled activations; 0 for a sample that had no position."""
        some = (self._positions > 0)[:, None]
        if self.kind == "mean":
            return self._values / self._positions.clamp(min=1)[:, None]
        return torch.where(some, self._values, 0.0)
