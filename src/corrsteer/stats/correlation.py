"""Streaming statistics of many latents and one outcome: correlation, and all else selection needs.

Changes when selection or steering needs another sufficient statistic of the pooled activations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from corrsteer.errors import ArtifactError, InsufficientDataError
from corrsteer.settings import Coefficient
from corrsteer.stats.batch_moments import BatchMoments, moments_of

_PER_LATENT = (
    "first_z",
    "mean_z",
    "m2_z",
    "c_zy",
    "sum_positive",
    "sum_zero",
    "active",
    "active_positive",
)
_BY_CLASS = ("mean_positive", "m2_positive", "mean_zero", "m2_zero")
_SCALAR = ("n", "n_positive", "n_zero", "first_y", "mean_y", "m2_y")

EDGES = tuple(2.0**power for power in range(-4, 9))
"""Bins of the histograms: z <= 0, then up to and with each edge, then above the last. Activations
of SAEs in use lie between; factors of two tell as much as the outcomes of some thousand samples
can."""
BINS = len(EDGES) + 1
"""Bins of z > 0."""


_LOWEST = math.frexp(EDGES[0])[1] - 1
_EXPONENT_BITS, _EXPONENT_BIAS = 52, 1023  # of a float64, before which its fraction lies


def _bins(z: Float64[Tensor, " entries"]) -> Int64[Tensor, " entries"]:
    """The bin of each z > 0, read off its exponent, for edges are powers of two."""
    # one less, and a power of two has the exponent of the numbers below it
    exponent = (z.view(torch.int64) - 1).bitwise_right_shift_(_EXPONENT_BITS)
    return exponent.sub_(_EXPONENT_BIAS + _LOWEST - 1).clamp_(0, len(EDGES))


class StreamingCorrelation:
    """Sufficient statistics of pooled activations z and outcomes y, in float64.

    Moments are updated by the pairwise formulas of Chan, Golub & LeVeque (1983), on values
    shifted by the first sample's, so they are exact under any batching or merge, lose nothing to
    a large common offset, and are exactly zero for a latent that never varies. Memory is fixed
    by `d_sae` whatever the number of samples.

    Attributes:
        d_sae: number of latents.
        n: samples seen.
        n_positive: samples with y > 0; `n_zero`: with y = 0.
        first_z, first_y: the shifts; y of the first sample, and its z where all of the first
            block's are nonzero, else 0.
        mean_z, mean_y: means of z - first_z and y - first_y.
        m2_z, m2_y: sums of squared deviations from the mean.
        c_zy: sum of products of deviations.
        sum_positive, sum_zero: sums over samples with y > 0, and with y = 0, of the activation
            that coefficients are made of (z itself, unless it is pooled otherwise).
        active, active_positive: samples with z > 0, and those of them with y > 0.
        mean_positive, m2_positive: mean of z - first_z and sum of squared deviations from it over
            the samples with y > 0; `mean_zero`, `m2_zero`: over those with y = 0.
        histogram: int32 [d_sae, 2, BINS], samples with z > 0 by their bin (see `EDGES`), for
            outcomes of 0 and for outcomes above.
        by_class: whether the last five are known; statistics saved before there were any lack
            them.
    """

    def __init__(self, d_sae: int, device: torch.device | str = "cpu"):
        if d_sae < 1:
            raise InsufficientDataError(f"d_sae is {d_sae}; a statistic needs at least 1 latent")
        self.d_sae = d_sae
        for name in (*_PER_LATENT, *_BY_CLASS):
            setattr(self, name, torch.zeros(d_sae, dtype=torch.float64, device=device))
        self.histogram = torch.zeros((d_sae, 2, BINS), dtype=torch.int32, device=device)
        self.by_class = True
        self.n = self.n_positive = self.n_zero = 0
        self.first_y = self.mean_y = self.m2_y = 0.0

    first_z: Tensor
    mean_z: Tensor
    m2_z: Tensor
    c_zy: Tensor
    sum_positive: Tensor
    sum_zero: Tensor
    active: Tensor
    active_positive: Tensor
    mean_positive: Tensor
    m2_positive: Tensor
    mean_zero: Tensor
    m2_zero: Tensor

    def update(
        self,
        z: Float[Tensor, "batch d_sae"],
        y: Float[Tensor, " batch"],
        z_steer: Float[Tensor, "batch d_sae"] | None = None,
    ) -> StreamingCorrelation:
        """Add a batch of samples.

        Args:
            z: pooled activations.
            y: outcomes in [0, 1].
            z_steer: activations pooled for the coefficient; `z` if None.

        Raises:
            NonFiniteError: NaN or infinity in any of them; nothing is added then.
        """
        if len(y) == 0:
            return self
        block = moments_of(
            z.to(self.mean_z.device),
            y.to(self.mean_z),
            None if z_steer is None else z_steer.to(self.mean_z.device),
        )
        place = _bins(block.entry_z) + BINS * (2 * block.entry_latent + block.entry_positive)
        ones = torch.ones_like(place, dtype=torch.int32)
        self.histogram.view(-1).scatter_add_(0, place, ones)
        return self._merge_moments(block)

    def merge(self, other: StreamingCorrelation) -> StreamingCorrelation:
        """Add the samples that `other` has seen.

        Raises:
            ArtifactError: `other` has another number of latents.
        """
        if other.d_sae != self.d_sae:
            raise ArtifactError(
                f"statistics over {other.d_sae} latents cannot be merged into {self.d_sae}; "
                "merge runs of the same SAE only"
            )
        if other.n == 0:
            return self
        self.histogram += other.histogram
        self.by_class = self.by_class and other.by_class
        return self._merge_moments(other)

    def _merge_moments(self, other: StreamingCorrelation | BatchMoments) -> StreamingCorrelation:
        if self.n == 0:
            self.first_z, self.first_y = other.first_z.to(self.mean_z), other.first_y
        n = self.n + other.n
        weight, offset = other.n / n, other.first_z - self.first_z
        delta_z = (other.mean_z + offset).sub_(self.mean_z)
        delta_y = other.mean_y + (other.first_y - self.first_y) - self.mean_y
        scale = self.n * weight
        self.m2_z.add_(other.m2_z).addcmul_(delta_z, delta_z, value=scale)
        self.m2_y += other.m2_y + scale * delta_y**2
        self.c_zy.add_(other.c_zy).add_(delta_z, alpha=scale * delta_y)
        self.mean_z.add_(delta_z, alpha=weight)
        self.mean_y += weight * delta_y
        for name in ("sum_positive", "sum_zero", "active", "active_positive"):
            getattr(self, name).add_(getattr(other, name))
        self._merge_by_class(other, offset)
        self.n, self.n_positive, self.n_zero = (
            n,
            self.n_positive + other.n_positive,
            self.n_zero + other.n_zero,
        )
        return self

    def _merge_by_class(self, other: StreamingCorrelation | BatchMoments, offset: Tensor) -> None:
        for name in ("positive", "zero"):
            count, added = getattr(self, f"n_{name}"), getattr(other, f"n_{name}")
            if added:
                mean, m2 = getattr(self, f"mean_{name}"), getattr(self, f"m2_{name}")
                weight = added / (count + added)
                delta = (getattr(other, f"mean_{name}") + offset).sub_(mean)
                m2.add_(getattr(other, f"m2_{name}")).addcmul_(delta, delta, value=count * weight)
                mean.add_(delta, alpha=weight)

    def correlation(self) -> Float64[Tensor, " d_sae"]:
        """Pearson r between each latent's pooled activation and the outcome.

        Returns:
            r in [-1, 1]; NaN where the latent or the outcome is constant.

        Raises:
            InsufficientDataError: fewer than two samples.
        """
        if self.n < 2:
            raise InsufficientDataError(
                f"a correlation needs 2 samples or more, not {self.n}; raise --samples"
            )
        # sqrt before the product: m2_z * m2_y could underflow
        spread = self.m2_z.sqrt() * self.m2_y**0.5
        r = (self.c_zy / spread).clamp(-1.0, 1.0)
        return torch.where(spread > 0, r, torch.nan)

    def coefficient(self, kind: Coefficient = "positive") -> Float64[Tensor, " d_sae"]:
        """What steering multiplies `W_dec` with, in units of SAE activation.

        Args:
            kind: `positive` is the mean over samples with y > 0; `contrast` subtracts the mean
                over samples with y = 0; `active` is the mean over samples with y > 0 and z > 0,
                and 0 where there are none.

        Raises:
            InsufficientDataError: no sample with y > 0, or none with y = 0 for `contrast`.
        """
        if self.n_positive == 0:
            raise InsufficientDataError(
                "no fit sample has an outcome above 0, so there is nothing to steer towards; "
                "check the scorer or take an easier task"
            )
        positive = self.sum_positive / self.n_positive
        if kind == "positive":
            return positive
        if kind == "active":
            return self.sum_positive / self.active_positive.clamp(min=1)
        if self.n_zero == 0:
            raise InsufficientDataError(
                "no fit sample has outcome 0; --coefficient contrast needs some, "
                "use --coefficient positive"
            )
        return positive - self.sum_zero / self.n_zero

    def contrast(self) -> Float64[Tensor, " d_sae"]:
        """Mean pooled activation over samples with y > 0, minus that over samples with y = 0.

        Raises:
            ArtifactError: saved before statistics held it.
            InsufficientDataError: no sample with y > 0, or none with y = 0.
        """
        self._need_classes()
        return self.mean_positive - self.mean_zero

    def fisher_ratio(self) -> Float64[Tensor, " d_sae"]:
        """Squared contrast over the sum of both classes' variances, Fisher (1936).

        Classes are y > 0 and y = 0; variances are of the population (divided by n).

        Returns:
            0 or more; NaN where z is constant, and the largest float64 where it is constant in
            both classes but not the same.

        Raises:
            ArtifactError, InsufficientDataError: see `contrast`.
        """
        between = self.contrast().square()
        within = self.m2_positive / self.n_positive + self.m2_zero / self.n_zero
        largest = torch.finfo(torch.float64).max
        apart = torch.full_like(between, largest).masked_fill(between == 0, torch.nan)
        return torch.where(within > 0, between / within, apart).clamp(max=largest)

    def mutual_information(self) -> Float64[Tensor, " d_sae"]:
        """Mutual information, in nats, of the bin of z (see `EDGES`) and of y > 0.

        That of the empirical distribution, so it is above 0 by chance too; 0 where z or the
        outcome stays in one bin.

        Raises:
            ArtifactError, InsufficientDataError: see `contrast`.
        """
        self._need_classes()
        counts = self.histogram.double()
        classes = torch.tensor([self.n - self.n_positive, self.n_positive]).to(counts)
        inactive = classes[:, None] - counts.sum(2, keepdim=True)
        joint = torch.cat([inactive, counts], dim=2) / self.n
        expected = joint.sum(1, keepdim=True) * joint.sum(2, keepdim=True)
        information = torch.xlogy(joint, joint / expected.clamp(min=1e-300))
        return information.sum((1, 2)).clamp(min=0.0)

    def _need_classes(self) -> None:
        if not self.by_class:
            raise ArtifactError(
                "these statistics were saved before they held what --method contrast, fisher and "
                "mi need; collect again with train"
            )
        if self.n_positive == 0 or self.n_zero == 0:
            raise InsufficientDataError(
                f"{self.n_positive} fit outcomes are above 0 and {self.n_zero} equal 0; --method "
                "contrast, fisher and mi compare the two: use --method corr"
            )

    def frequency(
        self, among: Literal["all", "positive", "rest"] = "all"
    ) -> Float64[Tensor, " d_sae"]:
        """Share of samples on which each latent is active (pooled z > 0).

        Args:
            among: all samples, those with y > 0, or the rest.

        Returns:
            values in [0, 1]; NaN where there is no such sample.
        """
        if among == "all":
            return self.active / self.n if self.n else torch.full_like(self.active, torch.nan)
        if among == "positive":
            count, active = self.n_positive, self.active_positive
        else:
            count, active = self.n - self.n_positive, self.active - self.active_positive
        return active / count if count else torch.full_like(active, torch.nan)

    def state(self) -> dict[str, Tensor]:
        """Everything, as tensors on the CPU; `from_state` reads it back exactly."""
        scalars = torch.tensor([getattr(self, name) for name in _SCALAR], dtype=torch.float64)
        names = (*_PER_LATENT, *_BY_CLASS, "histogram") if self.by_class else _PER_LATENT
        per_latent = {name: getattr(self, name).cpu().contiguous() for name in names}
        return {"scalars": scalars, **per_latent}

    @classmethod
    def from_state(
        cls, state: Mapping[str, Tensor], device: torch.device | str = "cpu"
    ) -> StreamingCorrelation:
        """The statistics that `state` describes, on a device.

        Raises:
            ArtifactError: a tensor is missing, or has the wrong shape, dtype or values.
        """
        missing = {"scalars", *_PER_LATENT} - set(state)
        if missing:
            raise ArtifactError(f"statistics lack {', '.join(sorted(missing))}; collect again")
        d_sae = state["mean_z"].numel()
        by_class = state.keys() & {*_BY_CLASS, "histogram"}
        if by_class and len(by_class) <= len(_BY_CLASS):
            raise ArtifactError(
                f"statistics have only {', '.join(sorted(by_class))}; collect again"
            )
        shapes = {"scalars": (len(_SCALAR),), "histogram": (d_sae, 2, BINS)}
        for name, tensor in state.items():
            shape = shapes.get(name, (d_sae,))
            dtype = torch.int32 if name == "histogram" else torch.float64
            if tensor.dtype != dtype or tuple(tensor.shape) != shape:
                raise ArtifactError(
                    f"statistics: {name} is {tensor.dtype} {list(tensor.shape)}, expected "
                    f"{dtype} {list(shape)}; the file is not of this kind"
                )
            if not torch.isfinite(tensor).all():
                raise ArtifactError(f"statistics: {name} holds NaN or infinity; collect again")
        self = cls(d_sae)
        self.by_class = bool(by_class)
        for name in (*_PER_LATENT, *by_class):
            setattr(self, name, state[name].to(device, copy=True))
        for name, value in zip(_SCALAR, state["scalars"].tolist(), strict=True):
            setattr(self, name, int(value) if name.startswith("n") else value)
        self._check_possible(state["scalars"])
        return self

    def _check_possible(self, scalars: Tensor) -> None:
        """Refuse counts and moments that no samples have.

        Raises:
            ArtifactError: names what is impossible.
        """
        possible = {
            "n, n_positive, n_zero": bool((scalars[:3] == scalars[:3].trunc()).all())
            and 0 <= self.n < 2**53
            and min(self.n_positive, self.n_zero) >= 0
            and self.n_positive + self.n_zero <= self.n,
            "m2_y": self.m2_y >= 0,
            "active": bool(((self.active >= 0) & (self.active <= scalars[0])).all()),
            "histogram": bool((self.histogram >= 0).all()),
        }
        for name in ("m2_z", "m2_positive", "m2_zero"):
            possible[name] = bool((getattr(self, name) >= 0).all())
        for name, fine in possible.items():
            if not fine:
                raise ArtifactError(f"statistics: no samples have such {name}; collect again")

    def __repr__(self) -> str:
        return f"StreamingCorrelation(d_sae={self.d_sae}, n={self.n})"
