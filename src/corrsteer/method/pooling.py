"""Pooling of activations over a sample's positions, some positions at a time.

Residuals are encoded in blocks of positions as they come, and pooled. Changes when there is another
way to pool, or residuals wait in another way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from corrsteer.hook_points import HookPoint
from corrsteer.lm.decoding import Residuals
from corrsteer.lm.models import LanguageModel
from corrsteer.lm.sae_placement import RESERVE, memory_of
from corrsteer.lm.saes import SparseCoder, VisitingSAE
from corrsteer.settings import FitSettings, Pool


class RunningPool:
    """The max, the mean or the first of positions for a batch of samples, holding none of them.

    Attributes:
        kind: which.
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
        elif self.kind == "first":
            new = (self._positions[rows] == 0)[:, None]
            self._values[rows] = torch.where(new, z[0].float(), held)
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


BLOCK_ROWS = {"cpu": 256, "gpu": 1024}
"""Positions encoded at once: enough for the product to run at full speed, few enough for its
result to stay in a CPU's cache. They are the same on every run, for products of other heights
differ in their last bits."""

VISITED_BLOCKS = 16
"""Blocks that an SAE encodes in one visit, if their residuals fit: it takes several for the
transfer not to count."""


class BatchPooler:
    """Encodes and pools the residuals of one batch as they come.

    Residuals are encoded in blocks of many positions, since one large matrix product is faster
    than many small ones. Blocks depend on the order of what comes alone, so that no bit of the
    result depends on what memory is free: that decides how many blocks wait for SAEs that visit.
    """

    def __init__(
        self,
        coders: Mapping[HookPoint, SparseCoder],
        batch: int,
        settings: FitSettings,
        lm: LanguageModel,
    ):
        self._coders = coders
        self._devices = {hook: lm.device_of(hook) for hook in coders}
        self._visitors = [coder for coder in coders.values() if isinstance(coder, VisitingSAE)]
        on_cpu = all(device.type == "cpu" for device in self._devices.values())
        self._block_rows = BLOCK_ROWS["cpu" if on_cpu else "gpu"]
        self._blocks: list[list[Residuals]] = [[]]
        kinds: dict[Pool, None] = dict.fromkeys((settings.pool, settings.steer_pool, "mean"))
        self._pools = {
            hook: {
                kind: RunningPool(kind, batch, coder.d_sae, self._devices[hook]) for kind in kinds
            }
            for hook, coder in coders.items()
        }
        self._residuals = {
            hook: RunningPool("mean", batch, lm.d_model, self._devices[hook]) for hook in coders
        }
        self._kinds = settings.pool, settings.steer_pool

    def receive(self, residuals: Residuals) -> None:
        """Take one position of some samples."""
        # a copy, for it may be a view that would keep the whole prompt's residuals alive
        copied = {hook: hidden.clone() for hook, hidden in residuals.at.items()}
        self._blocks[-1].append(Residuals(residuals.rows, copied))
        if sum(len(step.rows) for step in self._blocks[-1]) >= self._block_rows:
            if self._more_may_wait():
                self._blocks.append([])
            else:
                self._flush()

    def _more_may_wait(self) -> bool:
        """Whether blocks gather for SAEs that visit, and there is room for one more."""
        if not self._visitors or len(self._blocks) >= VISITED_BLOCKS:
            return False
        for device in set(self._devices.values()):
            free = memory_of(device)
            here = [hook for hook in self._coders if self._devices[hook] == device]
            size = sum(step.at[hook].nbytes for step in self._blocks[-1] for hook in here)
            if free is not None and free.left - size < RESERVE / 2 * free.total:
                return False
        return True

    def result(self) -> dict[HookPoint, tuple[Tensor, Tensor]]:
        """Hook point -> activations pooled for the correlation, and for the coefficient.

        Both are [batch, d_sae], float32, and 0 for a sample that had no position.
        """
        self._flush()
        pool, steer_pool = self._kinds
        return {
            hook: (pools[pool].result(), pools[steer_pool].result())
            for hook, pools in self._pools.items()
        }

    def means(self) -> dict[HookPoint, tuple[Tensor, Tensor]]:
        """Hook point -> residuals and activations, both pooled by mean, whatever else is asked for.

        They are [batch, d_model] and [batch, d_sae], float32, and 0 as above.
        """
        self._flush()
        return {
            hook: (self._residuals[hook].result(), pools["mean"].result())
            for hook, pools in self._pools.items()
        }

    @torch.inference_mode()
    def _flush(self) -> None:
        blocks = [_runs(block) for block in self._blocks if block]
        self._blocks = [[]]
        hooks = list(self._coders) if blocks else []
        try:
            for index, hook in enumerate(hooks):
                for each in hooks[index : index + 2]:  # the next one comes while this one works
                    visitor = self._coders[each]
                    if isinstance(visitor, VisitingSAE):
                        visitor.fetch(self._devices[each])
                coder = self._coders[hook]
                for runs in blocks:
                    hidden = torch.cat([step.at[hook] for run in runs for step in run])
                    self._pool(hook, runs, hidden, coder.encode(hidden))
                if isinstance(coder, VisitingSAE):
                    coder.leave()
        finally:
            for visitor in self._visitors:
                visitor.leave()

    def _pool(
        self, hook: HookPoint, runs: Sequence[Sequence[Residuals]], hidden: Tensor, z: Tensor
    ) -> None:
        """Add a block's residuals and activations, run by run."""
        start = 0
        for run in runs:
            end = start + len(run) * len(run[0].rows)
            rows = run[0].rows.to(z.device)
            positions = z[start:end].view(len(run), len(rows), -1)
            for pool in self._pools[hook].values():
                pool.update(rows, positions)
            residuals = hidden[start:end].float().view(len(run), len(rows), -1)
            self._residuals[hook].update(rows, residuals)
            start = end


def _runs(block: Sequence[Residuals]) -> list[list[Residuals]]:
    """A block's positions in runs of the same samples, which are pooled at once."""
    runs: list[list[Residuals]] = []
    for step in block:
        if runs and torch.equal(runs[-1][0].rows, step.rows):
            runs[-1].append(step)
        else:
            runs.append([step])
    return runs
