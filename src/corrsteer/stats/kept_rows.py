"""A bounded sample of the vectors of a stream, the same whoever saw which of them, and when.

Changes when samples are kept by another rule.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from corrsteer.errors import ArtifactError

MOST_KEPT = 1_000
"""Samples that a logistic direction is fitted on, at most."""


class KeptRows:
    """The vectors of the samples whose ids have the lowest hashes (bottom-k, Cohen & Kaplan 2007).

    Which those are depends on the ids alone, so streams, merges and parts keep the same.

    Attributes:
        keys: hashes of the samples' ids, in rising order, int64 [n].
        outcomes: in [0, 1], float64 [n].
        values: float32 [n, width], on the CPU.
    """

    def __init__(self, width: int):
        self.keys = torch.zeros(0, dtype=torch.int64)
        self.outcomes = torch.zeros(0, dtype=torch.float64)
        self.values = torch.zeros(0, width, dtype=torch.float32)

    def update(
        self, ids: Sequence[str], values: Float[Tensor, "batch width"], y: Float[Tensor, " batch"]
    ) -> KeptRows:
        """Add a batch of samples.

        Args:
            ids: of the samples.
            values: a vector a sample.
            y: their outcomes.
        """
        digests = (hashlib.sha256(each.encode()).digest()[:8] for each in ids)
        keys = torch.tensor([int.from_bytes(each) >> 1 for each in digests], dtype=torch.int64)
        return self._add(keys, y.cpu().double(), values.cpu().float())

    def merge(self, other: KeptRows) -> KeptRows:
        """Add what `other` has kept.

        Raises:
            ArtifactError: its vectors have another length.
        """
        if other.values.shape[1] != self.values.shape[1]:
            raise ArtifactError("kept vectors have different lengths; merge runs of one model only")
        return self._add(other.keys, other.outcomes, other.values)

    def _add(self, keys: Tensor, outcomes: Tensor, values: Tensor) -> KeptRows:
        keys = torch.cat([self.keys, keys])
        order = torch.argsort(keys, stable=True)[:MOST_KEPT]
        self.keys = keys[order]
        self.outcomes = torch.cat([self.outcomes, outcomes])[order]
        self.values = torch.cat([self.values, values])[order]
        return self

    def state(self) -> dict[str, Tensor]:
        """Everything, as tensors; `from_state` reads it back exactly."""
        return {"keys": self.keys, "outcomes": self.outcomes, "values": self.values}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> KeptRows:
        """What `state` describes.

        Raises:
            ArtifactError: a tensor is missing, or is not what samples have.
        """
        try:
            keys, outcomes, values = (state[name] for name in ("keys", "outcomes", "values"))
        except KeyError as error:
            raise ArtifactError(f"kept residuals lack {error}; collect again") from error
        kinds = (keys.dtype, outcomes.dtype, values.dtype)
        alike = values.dim() == 2 and keys.shape == outcomes.shape == values.shape[:1]
        if not alike or kinds != (torch.int64, torch.float64, torch.float32):
            raise ArtifactError("kept residuals are not those of any samples; collect again")
        finite = torch.isfinite(values).all() and torch.isfinite(outcomes).all()
        if not finite or len(keys) > MOST_KEPT or bool((keys.diff() < 0).any()):
            raise ArtifactError("kept residuals are not those of any samples; collect again")
        self = cls(values.shape[1])
        self.keys, self.outcomes, self.values = keys, outcomes, values
        return self
