"""Pooling of activations over a sample's positions, one position at a time.

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

    def update(self, rows: Int64[Tensor, " rows"], z: Float[Tensor, "rows width"]) -> RunningPool:
        """Add one position of each of some samples.

        Args:
            rows: which samples of the batch, no sample twice.
            z: their activations at that position.
        """
        held = self._values[rows]
        self._values[rows] = torch.maximum(held, z) if self.kind == "max" else held + z
        self._positions[rows] += 1
        return self

    def result(self) -> Float[Tensor, "batch width"]:
        """Pooled activations; 0 for a sample that had no position."""
        some = (self._positions > 0)[:, None]
        if self.kind == "mean":
            return self._values / self._positions.clamp(min=1)[:, None]
        return torch.where(some, self._values, 0.0)
