"""Statistics of one block of samples: what a stream of them is merged from.

Changes when selection needs another sufficient statistic. Pooled SAE activations are mostly zero,
so on a CPU a block is computed over its nonzero entries alone; finding them costs little more than
reading it once. Dense blocks, and those on a GPU, are computed as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from corrsteer.errors import NonFiniteError

DENSE = 0.2
"""Share of nonzero entries from which a block counts as dense."""


@dataclass(frozen=True)
class Block:
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

    Attributes:
        key: 2 * latent, + 1 where the sample's outcome is above zero.
    """

    row: Int64[Tensor, " entries"]
    key: Int64[Tensor, " entries"]
    z: Float64[Tensor, " entries"]

    @classmethod
    def of(cls, z: Float[Tensor, "batch d_sae"], is_positive: Tensor) -> _Entries | None:
        """Those of a block, NaN among them; None of one that is dense or on a GPU."""
        if z.device.type != "cpu":
            return None
        # NumPy finds them in a third of the time that torch takes
        found = np.flatnonzero(z.detach().numpy() != 0)
        if len(found) > DENSE * z.numel():
            return None
        flat = torch.from_numpy(found)
        row = flat // z.shape[1]
        key = (flat - row * z.shape[1]).mul_(2).add_(is_positive[row])
        return cls(row, key, z.reshape(-1)[flat].double())

    def total(self, values: Tensor, d_sae: int) -> Float64[Tensor, "d_sae 2"]:
        """The sum over the entries of each latent, by class."""
        sums = torch.zeros(2 * d_sae, dtype=torch.float64)
        return sums.index_add_(0, self.key, values).view(d_sae, 2)


def block_of(
    z: Float[Tensor, "batch d_sae"],
    y: Float64[Tensor, " batch"],
    z_steer: Float[Tensor, "batch d_sae"] | None = None,
) -> Block:
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
        _check_finite("activations", entries.z)
        return _sparse(entries, z, y, z_steer)
    _check_finite("activations", z)
    return _dense(z.double(), y, z_steer)


def _sparse(entries: _Entries, z: Tensor, y: Tensor, z_steer: Tensor | None) -> Block:
    d_sae, is_positive = z.shape[1], y > 0
    n = torch.stack([(~is_positive).sum(), is_positive.sum()]).double()
    count = torch.bincount(entries.key, minlength=2 * d_sae).view(d_sae, 2).double()
    shift, first = _shifts(z, is_positive, count, n)
    v = entries.z if shift is None else entries.z - shift.view(-1)[entries.key]
    sums = entries.total(v, d_sae)
    mean = sums / n.clamp(min=1)
    deviation = v - mean.view(-1)[entries.key]
    m2 = entries.total(deviation.mul_(deviation), d_sae) + (n - count) * mean.square()
    if shift is not None:
        sums, mean = sums + count * shift, mean + (shift - first[:, None]) * (n > 0)
    above = entries.z > 0
    if above.all():
        key, active = entries.key, count
    else:
        key, active = entries.key[above], entries.total(above.double(), d_sae)
    steer = (sums[:, 0], sums[:, 1]) if z_steer is None else _sums(z_steer, is_positive)
    apart = mean[:, 1] - mean[:, 0]
    weight = n[1] / len(y)
    first_y, mean_y, m2_y = _outcomes(y)
    return Block(
        n=len(y),
        n_positive=int(is_positive.sum()),
        n_zero=int((~is_positive).sum()),
        first_y=first_y,
        mean_y=mean_y,
        m2_y=m2_y,
        first_z=first,
        mean_z=mean[:, 0] + weight * apart if n.all() else mean.sum(1),
        m2_z=m2.sum(1) + weight * n[0] * apart.square(),
        c_zy=_products(entries, y, first, sums - count * first[:, None]),
        sum_zero=steer[0],
        sum_positive=steer[1],
        active=active.sum(1),
        active_positive=active[:, 1],
        mean_zero=mean[:, 0],
        mean_positive=mean[:, 1],
        m2_zero=m2[:, 0],
        m2_positive=m2[:, 1],
        entry_latent=key // 2,
        entry_z=entries.z[above] if len(key) < len(entries.z) else entries.z,
        entry_positive=key % 2,
    )


def _shifts(
    z: Tensor, is_positive: Tensor, count: Tensor, n: Tensor
) -> tuple[Float64[Tensor, "d_sae 2"] | None, Float64[Tensor, " d_sae"]]:
    """What is subtracted before anything is added up.

    That is a sample's own value where every sample (of the class, or of the block) has one, so that
    nothing is lost to a large common offset and a latent that never varies has a variance of
    exactly zero; and 0 elsewhere, where zeros lie among the values anyway.

    Returns:
        by class, or None where it is 0 everywhere; and of the whole block.
    """
    first = torch.zeros(len(count), dtype=torch.float64)
    full = (count == n) & (n > 0)
    if not full.any():
        return None, first
    shift = torch.zeros_like(count)
    for of_class, rows in enumerate((~is_positive, is_positive)):
        if rows.any():
            here = full[:, of_class]
            shift[here, of_class] = z[int(rows.nonzero()[0, 0]), here].double()
    everywhere = count.sum(1) == len(is_positive)
    first[everywhere] = z[0, everywhere].double()
    return shift, first


def _products(entries: _Entries, y: Tensor, first: Tensor, sums: Tensor) -> Tensor:
    """Sum over samples of (z - first) times the outcome's deviation from its mean.

    Args:
        entries: of the block.
        y: outcomes; where they are 0 and 1 only, the sums are all that is needed.
        first: see `_shifts`.
        sums: of z - first, by class; [d_sae, 2].
    """
    mean = y.mean()
    if bool(((y == 0) | (y == 1)).all()):
        return sums @ torch.stack([-mean, 1 - mean])
    products = (entries.z - first[entries.key // 2]) * (y - mean)[entries.row]
    return entries.total(products, len(first)).sum(1)


def _dense(z: Tensor, y: Tensor, z_steer: Tensor | None) -> Block:
    first = z[0].clone()
    shifted = z - first
    mean = shifted.mean(0)
    centred = shifted - mean
    is_positive, above = y > 0, z > 0
    zero, positive = (_dense_moments(z[rows], first) for rows in (~is_positive, is_positive))
    row, latent = above.nonzero(as_tuple=True)
    steer = _sums(z if z_steer is None else z_steer, is_positive)
    first_y, mean_y, m2_y = _outcomes(y)
    return Block(
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
    _check_finite("activations", z if entries is None else entries.z)
    if entries is None:
        z = z.double()
        return (~is_positive).double() @ z, is_positive.double() @ z
    zero, positive = entries.total(entries.z, z.shape[1]).T
    return zero, positive


def _check_finite(what: str, values: Tensor) -> None:
    if not torch.isfinite(values).all():
        raise NonFiniteError(
            f"{what} hold NaN or infinity; expected finite numbers: try --dtype float32, and check "
            "the model and SAE weights"
        )
