"""Statistics of one block of samples: what a stream of them is merged from.

Changes when selection needs another sufficient statistic. Pooled SAE activations are mostly zero,
so on a CPU a block is computed over its nonzero entries alone; finding them costs little more than
reading it once. Dense blocks, and those on a GPU, are computed as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from numpy.typing import NDArray
from torch import Tensor

from corrsteer.errors import NonFiniteError

DENSE = 0.2
"""Share of nonzero entries from which a block counts as dense."""


@dataclass(frozen=True)
class BatchMoments:
    """Statistics of some samples, as `StreamingCorrelation` names them, and their active entries.

    Attributes:
        entry_latent, entry_z: latent and activation of every entry above zero.
        entry_positive: whether its sample's outcome is above zero.
    """

    n: int
    n_positive: int
    n_zero: int
    first_y: float
    mean_y: float
    m2_y: float
    first_z: Float64[Tensor, " d_sae"]
    mean_z: Float64[Tensor, " d_sae"]
    m2_z: Float64[Tensor, " d_sae"]
    c_zy: Float64[Tensor, " d_sae"]
    sum_positive: Float64[Tensor, " d_sae"]
    sum_zero: Float64[Tensor, " d_sae"]
    active: Float64[Tensor, " d_sae"]
    active_positive: Float64[Tensor, " d_sae"]
    mean_positive: Float64[Tensor, " d_sae"]
    m2_positive: Float64[Tensor, " d_sae"]
    mean_zero: Float64[Tensor, " d_sae"]
    m2_zero: Float64[Tensor, " d_sae"]
    entry_latent: Int64[Tensor, " entries"]
    entry_z: Float64[Tensor, " entries"]
    entry_positive: Int64[Tensor, " entries"]


@dataclass(frozen=True)
class _Entries:
    """Nonzero entries of a block; [entries] each.

    NumPy finds them and adds them up in a third of the time that torch takes.

    Attributes:
        d_sae: number of latents.
        row: sample; `latent`: latent; `z`: activation.
        positive: 1 where the sample's outcome is above zero, else 0.
    """

    d_sae: int
    row: NDArray[np.int64]
    latent: NDArray[np.int64]
    positive: NDArray[np.int64]
    z: NDArray[np.float64]

    @classmethod
    def of(cls, z: Float[Tensor, "batch d_sae"], is_positive: Tensor) -> _Entries | None:
        """Those of a block, NaN among them; None of one that is dense or on a GPU."""
        if z.device.type != "cpu":
            return None
        flat = z.detach().numpy().reshape(-1)
        found = _true(flat != 0)
        if len(found) > DENSE * len(flat):
            return None
        row = found // z.shape[1]
        positive = is_positive.numpy().astype(np.int64)[row]
        return cls(
            z.shape[1], row, found - row * z.shape[1], positive, flat[found].astype(np.float64)
        )

    @cached_property
    def key(self) -> NDArray[np.int64]:
        """Where in an array [2, d_sae] of both classes each belongs."""
        return self.latent + self.d_sae * self.positive

    def total(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The sum over the entries of each latent, by class; [2, d_sae]."""
        sums: NDArray[np.float64] = np.bincount(self.key, values, 2 * self.d_sae).astype(
            np.float64,
            copy=False,  # of no entries it is of integers
        )
        return sums.reshape(2, self.d_sae)

    @cached_property
    def count(self) -> NDArray[np.float64]:
        """The number of entries of each latent, by class; [2, d_sae]."""
        counts = np.bincount(self.key, minlength=2 * self.d_sae)
        return counts.astype(np.float64).reshape(2, self.d_sae)


def _true(there: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Indices of what is True. NumPy is slow at it where that is less than a tenth."""
    if len(there) % 8 or np.count_nonzero(there) > len(there) / 10:
        return np.flatnonzero(there)
    words = there.view(np.uint64)  # of eight, most of them zero
    some = _true(words != 0)
    within = np.flatnonzero(words[some].view(np.bool_))
    found: NDArray[np.int64] = (some[within >> 3] << 3) + (within & 7)
    return found


def moments_of(
    z: Float[Tensor, "batch d_sae"],
    y: Float64[Tensor, " batch"],
    z_steer: Float[Tensor, "batch d_sae"] | None = None,
) -> BatchMoments:
    """The statistics of one block.

    Args:
        z: pooled activations of one sample or more.
        y: outcomes in [0, 1].
        z_steer: activations pooled for the coefficient; `z` if None.

    Raises:
        NonFiniteError: NaN or infinity in any of them.
    """
    _check_finite("outcomes", y)
    entries = _Entries.of(z, y > 0)
    if entries is not None:
        _check_finite("activations", torch.from_numpy(entries.z))
        return _sparse(entries, z, y, z_steer)
    _check_finite("activations", z)
    return _dense(z.double(), y, z_steer)


def _sparse(entries: _Entries, z: Tensor, y: Tensor, z_steer: Tensor | None) -> BatchMoments:
    is_positive = y > 0
    n_positive = int(is_positive.sum())
    n = np.array([[len(y) - n_positive], [n_positive]], dtype=np.float64)
    count = entries.count
    shift, first = _shifts(z, is_positive, count, n)
    v = entries.z if shift is None else entries.z - shift.reshape(-1)[entries.key]
    sums = entries.total(v)
    mean = sums / np.maximum(n, 1)
    deviation = v - mean.reshape(-1)[entries.key]
    m2 = entries.total(deviation * deviation) + (n - count) * mean * mean
    c_zy = _products(entries, y, first, sums if shift is None else sums + count * (shift - first))
    if shift is not None:
        sums, mean = sums + count * shift, mean + (shift - first) * (n > 0)
    above = slice(None) if (entries.z > 0).all() else entries.z > 0
    active = count if isinstance(above, slice) else entries.total(above.astype(np.float64))
    steer = tuple(sums) if z_steer is None else _sums(z_steer, is_positive)
    apart, weight = mean[1] - mean[0], n[1, 0] / len(y)
    first_y, mean_y, m2_y = _outcomes(y)
    return BatchMoments(
        n=len(y),
        n_positive=n_positive,
        n_zero=len(y) - n_positive,
        first_y=first_y,
        mean_y=mean_y,
        m2_y=m2_y,
        first_z=torch.from_numpy(first),
        mean_z=torch.from_numpy(mean[0] + weight * apart if n.all() else mean.sum(0)),
        m2_z=torch.from_numpy(m2.sum(0) + weight * n[0] * apart * apart),
        c_zy=torch.from_numpy(c_zy),
        sum_zero=torch.as_tensor(steer[0]),
        sum_positive=torch.as_tensor(steer[1]),
        active=torch.from_numpy(active.sum(0)),
        active_positive=torch.from_numpy(active[1]),
        mean_zero=torch.from_numpy(mean[0]),
        mean_positive=torch.from_numpy(mean[1]),
        m2_zero=torch.from_numpy(m2[0]),
        m2_positive=torch.from_numpy(m2[1]),
        entry_latent=torch.from_numpy(entries.latent[above]),
        entry_z=torch.from_numpy(entries.z[above]),
        entry_positive=torch.from_numpy(entries.positive[above]),
    )


def _shifts(
    z: Tensor, is_positive: Tensor, count: NDArray[np.float64], n: NDArray[np.float64]
) -> tuple[NDArray[np.float64] | None, NDArray[np.float64]]:
    """What is subtracted before anything is added up.

    That is a sample's own value where every sample (of the class, or of the block) has one, so that
    nothing is lost to a large common offset and a latent that never varies has a variance of
    exactly zero; and 0 elsewhere, where zeros lie among the values anyway.

    Returns:
        by class, [2, d_sae], or None where it is 0 everywhere; and of the whole block, [d_sae].
    """
    first = np.zeros(count.shape[1])
    full = (count == n) & (n > 0)
    if not full.any():
        return None, first
    shift, values = np.zeros_like(count), z.detach().numpy()
    for of_class, rows in enumerate((~is_positive, is_positive)):
        if rows.any():
            here = full[of_class]
            shift[of_class, here] = values[int(rows.nonzero()[0, 0]), here]
    everywhere = count.sum(0) == len(is_positive)
    first[everywhere] = values[0, everywhere]
    return shift, first


def _products(
    entries: _Entries, y: Tensor, first: NDArray[np.float64], sums: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Sum over samples of (z - first) times the outcome's deviation from its mean.

    Args:
        entries: of the block.
        y: outcomes; where they are 0 and 1 only, the sums are all that is needed.
        first: see `_shifts`.
        sums: of z - first, by class; [2, d_sae].
    """
    mean = float(y.mean())
    if bool(((y == 0) | (y == 1)).all()):
        by_class = (1 - mean) * sums[1] - mean * sums[0]
    else:
        products = (entries.z - first[entries.latent]) * (y - mean).numpy()[entries.row]
        by_class = entries.total(products).sum(0)
    return np.asarray(by_class, dtype=np.float64)


def _dense(z: Tensor, y: Tensor, z_steer: Tensor | None) -> BatchMoments:
    first = z[0].clone()
    shifted = z - first
    mean = shifted.mean(0)
    centred = shifted - mean
    is_positive, above = y > 0, z > 0
    zero, positive = (_dense_moments(z[rows], first) for rows in (~is_positive, is_positive))
    row, latent = above.nonzero(as_tuple=True)
    steer = _sums(z if z_steer is None else z_steer, is_positive)
    first_y, mean_y, m2_y = _outcomes(y)
    return BatchMoments(
        n=len(y),
        n_positive=int(is_positive.sum()),
        n_zero=int((~is_positive).sum()),
        first_y=first_y,
        mean_y=mean_y,
        m2_y=m2_y,
        first_z=first,
        mean_z=mean,
        m2_z=centred.square().sum(0),
        c_zy=(y - y.mean()) @ centred,
        sum_zero=steer[0],
        sum_positive=steer[1],
        active=above.double().sum(0),
        active_positive=is_positive.double() @ above.double(),
        mean_zero=zero[0],
        mean_positive=positive[0],
        m2_zero=zero[1],
        m2_positive=positive[1],
        entry_latent=latent,
        entry_z=z[row, latent],
        entry_positive=is_positive[row].long(),
    )


def _dense_moments(rows: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of z - first, and sum of squared deviations from it; zeros of no rows."""
    if not len(rows):
        return torch.zeros_like(first), torch.zeros_like(first)
    # deviations from one of them, so that a constant latent has none at all
    shifted = rows - rows[0]
    mean = shifted.mean(0)
    return (rows[0] - first) + mean, (shifted - mean).square().sum(0)


def _outcomes(y: Tensor) -> tuple[float, float, float]:
    """The first, and mean and sum of squared deviations of the differences from it."""
    shifted = y - y[0]
    mean = shifted.mean()
    return float(y[0]), float(mean), float((shifted - mean).square().sum())


def _sums(z: Tensor, is_positive: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of z over the samples with outcome 0, and over those above.

    Raises:
        NonFiniteError: NaN or infinity in it.
    """
    entries = _Entries.of(z, is_positive)
    _check_finite("activations", z if entries is None else torch.from_numpy(entries.z))
    if entries is None:
        z = z.double()
        return (~is_positive).double() @ z, is_positive.double() @ z
    zero, positive = torch.from_numpy(entries.total(entries.z))
    return zero, positive


def _check_finite(what: str, values: Tensor) -> None:
    if not torch.isfinite(values).all():
        raise NonFiniteError(
            f"{what} hold NaN or infinity; expected finite numbers: try --dtype float32, and check "
            "the model and SAE weights"
        )
