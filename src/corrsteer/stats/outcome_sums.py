"""Sums of vectors over samples by their outcome, from which differences of means are made.

Changes when a direction needs more of the samples than their means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from corrsteer.errors import ArtifactError, InsufficientDataError, NonFiniteError
from corrsteer.stats.kept_rows import KeptRows


class OutcomeSums:
    """Sums of a vector over samples with y > 0, and over those with y = 0, in float64.

    Attributes:
        positive, zero: the sums, [width].
        n_positive, n_zero: samples in them.
    """

    def __init__(self, width: int, device: torch.device | str = "cpu"):
        self.positive = torch.zeros(width, dtype=torch.float64, device=device)
        self.zero = torch.zeros(width, dtype=torch.float64, device=device)
        self.n_positive = self.n_zero = 0

    @property
    def width(self) -> int:
        """The length of the vector."""
        return len(self.positive)

    def update(
        self, values: Float[Tensor, "batch width"], y: Float[Tensor, " batch"]
    ) -> OutcomeSums:
        """Add a batch of samples.

        Args:
            values: a vector a sample.
            y: outcomes in [0, 1].

        Raises:
            NonFiniteError: NaN or infinity among the values; nothing is added then.
        """
        right = (y > 0).to(self.positive.device)
        values = values.to(self.positive)
        if not torch.isfinite(values).all():
            raise NonFiniteError(
                "residuals hold NaN or infinity; expected finite numbers: try --dtype float32, "
                "and check the model's weights"
            )
        self.positive += right.double() @ values
        self.zero += (~right).double() @ values
        self.n_positive += int(right.sum())
        self.n_zero += int((~right).sum())
        return self

    def merge(self, other: OutcomeSums) -> OutcomeSums:
        """Add the samples that `other` has seen.

        Raises:
            ArtifactError: its vectors have another length.
        """
        if other.width != self.width:
            raise ArtifactError(
                f"sums of vectors of length {other.width} cannot be merged into {self.width}; "
                "merge runs of the same model and SAEs only"
            )
        self.positive += other.positive.to(self.positive)
        self.zero += other.zero.to(self.zero)
        self.n_positive += other.n_positive
        self.n_zero += other.n_zero
        return self

    def contrast(self) -> Float64[Tensor, " width"]:
        """The mean over samples with y > 0, minus that over samples with y = 0.

        Raises:
            InsufficientDataError: one of the two has no sample.
        """
        if not self.n_positive or not self.n_zero:
            raise InsufficientDataError(
                f"{self.n_positive} fit outcomes are above 0 and {self.n_zero} equal 0; a "
                "difference of means compares the two"
            )
        return self.positive / self.n_positive - self.zero / self.n_zero

    def state(self) -> dict[str, Tensor]:
        """Everything, as tensors on the CPU; `from_state` reads it back exactly."""
        counts = torch.tensor([self.n_positive, self.n_zero], dtype=torch.int64)
        return {"positive": self.positive.cpu(), "zero": self.zero.cpu(), "counts": counts}

    @classmethod
    def from_state(
        cls, state: Mapping[str, Tensor], device: torch.device | str = "cpu"
    ) -> OutcomeSums:
        """The sums that `state` describes, on a device.

        Raises:
            ArtifactError: a tensor is missing, or is not what sums of samples are.
        """
        try:
            positive, zero, counts = (state[name] for name in ("positive", "zero", "counts"))
        except KeyError as error:
            raise ArtifactError(f"sums lack {error}; collect again") from error
        own = counts.dtype == torch.int64 and counts.shape == (2,) and bool((counts >= 0).all())
        alike = positive.dim() == 1 and positive.shape == zero.shape and len(positive) > 0
        whole = own and alike and positive.dtype == zero.dtype == torch.float64
        if not whole or not torch.isfinite(torch.stack([positive, zero])).all():
            raise ArtifactError("sums are not those of any samples; collect again")
        self = cls(len(positive))
        self.positive, self.zero = (each.to(device, copy=True) for each in (positive, zero))
        self.n_positive, self.n_zero = map(int, counts.tolist())
        return self


@dataclass(frozen=True)
class MeanPooled:
    """What is pooled by mean at a hook point, added up by outcome.

    Attributes:
        residual: the residual stream there, width d_model.
        latents: activations of the SAE there, width d_sae.
        kept: residuals of some samples, where they are to be kept.
    """

    residual: OutcomeSums
    latents: OutcomeSums
    kept: KeptRows | None = None

    @classmethod
    def empty(
        cls, d_model: int, d_sae: int, device: torch.device | str = "cpu", keeps: bool = False
    ) -> MeanPooled:
        """Of no sample."""
        kept = KeptRows(d_model) if keeps else None
        return cls(OutcomeSums(d_model, device), OutcomeSums(d_sae, device), kept)

    def like(self) -> MeanPooled:
        """Of no sample, of the same widths and on the same device."""
        device = self.residual.positive.device
        keeps = self.kept is not None
        return self.empty(self.residual.width, self.latents.width, device, keeps)

    def update(
        self,
        residual: Float[Tensor, "batch d_model"],
        latents: Float[Tensor, "batch d_sae"],
        y: Float[Tensor, " batch"],
        ids: Sequence[str],
    ) -> MeanPooled:
        """Add a batch of samples.

        Raises:
            NonFiniteError: NaN or infinity.
        """
        self.residual.update(residual, y)
        self.latents.update(latents, y)
        if self.kept is not None:
            self.kept.update(ids, residual, y)
        return self

    def merge(self, other: MeanPooled) -> MeanPooled:
        """Add the samples that `other` has seen.

        Raises:
            ArtifactError: other widths.
        """
        self.residual.merge(other.residual)
        self.latents.merge(other.latents)
        if self.kept is not None and other.kept is not None:
            self.kept.merge(other.kept)
        return self
