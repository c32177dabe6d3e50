"""What a run would have chosen from fewer samples, by its log of activations.

Changes when more is said of a number of samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from corrsteer.errors import ArtifactError
from corrsteer.features import Feature
from corrsteer.hook_points import HookPoint
from corrsteer.method.ranking import Ranking, rank
from corrsteer.runs.activation_log import ActivationLog
from corrsteer.runs.run import Run
from corrsteer.settings import MIN_SAMPLES
from corrsteer.stats.correlation import StreamingCorrelation
from corrsteer.stats.resampling import Latents, max_t, unit

FIRST = 25
"""The fewest samples looked at; each number after it is twice the one before."""


@dataclass(frozen=True)
class Snapshot:
    """What would have been chosen from some of the samples.

    Attributes:
        samples: how many.
        features: the best of every layer, in the order of layers.
        agreement: share of the layers' best features of all samples that are among them.
        same_best: whether the one best feature of all layers is that of all samples.
        largest: the largest |r| of any latent; None where outcomes do not vary.
        threshold: the |r| above which a latent is significant family-wise, by max-T permutation
            of these samples; None where outcomes do not vary.
    """

    samples: int
    features: tuple[Feature, ...]
    agreement: float
    same_best: bool
    largest: float | None
    threshold: float | None

    @property
    def strongest(self) -> Feature | None:
        """The feature of highest |r| among `features`; None where there is none."""
        return max(self.features, key=lambda feature: abs(feature.correlation), default=None)


def sample_efficiency(run: Run) -> tuple[Snapshot, ...]:
    """Snapshots at 25, 50, 100, ... and all of a run's samples, chosen by the run's own settings.

    The samples are in an order drawn by the run's seed, as the log has them by the length of their
    prompts; each snapshot is of the first of them, so it holds those before it. Activations are the
    logged ones, rounded to float16, so the choice from all samples may differ from the run's own
    where latents tie.

    Raises:
        ArtifactError: the run has no log, or it cannot be read.
        InsufficientDataError: the outcomes of all samples are equal.
    """
    log = run.log
    if log is None or not run.settings.permutations:
        raise ArtifactError(
            "the run has no log of activations, or no permutations; train it again without "
            "--no-log and --permutations 0"
        )
    order = np.random.default_rng(run.settings.seed).permutation(len(log.ids))
    sizes = _sizes(len(order))
    rankings = dict(zip(sizes, _rankings(run, log, order, sizes), strict=True))
    final = rankings[sizes[-1]] or _ranked(run, _statistics(log, order))
    return tuple(_snapshot(run, log, order[:n], rankings[n], final) for n in sizes)


def _sizes(n: int) -> list[int]:
    """25, 50, 100, ... below n, and n."""
    sizes = [FIRST * 2**k for k in range(n.bit_length())]
    return [*(size for size in sizes if size < n), n]


def _rankings(
    run: Run, log: ActivationLog, order: NDArray[np.int64], sizes: list[int]
) -> Iterator[Ranking | None]:
    """The ranking of each prefix of the order; None where its outcomes do not vary."""
    for n in sizes:
        outcomes = log.outcomes[order[:n]]
        known = n >= MIN_SAMPLES and np.ptp(outcomes) > 0
        yield _ranked(run, _statistics(log, order[:n])) if known else None


def _ranked(run: Run, statistics: dict[HookPoint, StreamingCorrelation]) -> Ranking:
    settings = run.settings
    return rank(
        statistics,
        settings.coefficient,
        min_frequency=settings.min_frequency,
        method=settings.method,
        sign=settings.sign,
    )


def _statistics(
    log: ActivationLog, index: NDArray[np.int64]
) -> dict[HookPoint, StreamingCorrelation]:
    """Statistics of some samples of the log, a block of them at a time."""
    found = {}
    for name, width in log.widths.items():
        activations = log.activations(name)[:, index]
        found[HookPoint.parse(name)] = statistics = StreamingCorrelation(width)
        for start in range(0, len(index), 256):
            part = activations[:, start : start + 256].toarray().T.copy()
            outcomes = log.outcomes[index[start : start + 256]]
            statistics.update(torch.from_numpy(part), torch.from_numpy(outcomes))
    return found


def _snapshot(
    run: Run,
    log: ActivationLog,
    index: NDArray[np.int64],
    ranking: Ranking | None,
    final: Ranking,
) -> Snapshot:
    if ranking is None:
        return Snapshot(len(index), (), 0.0, False, None, None)
    outcomes, settings = log.outcomes[index], run.settings
    largest = [0.0]

    def hook_points() -> Iterator[Latents]:
        for name in log.widths:
            latents = Latents.of(log.activations(name)[:, index], settings.min_frequency)
            if len(latents.index):
                r = latents.correlations(unit(outcomes)[:, None])
                largest.append(float(np.abs(r).max()))
            yield latents

    null = max_t(hook_points(), outcomes, settings.permutations, settings.seed)
    chosen, wanted = ({f.key for f in each.best_per_layer()} for each in (ranking, final))
    return Snapshot(
        samples=len(index),
        features=ranking.best_per_layer(),
        agreement=len(chosen & wanted) / max(len(wanted), 1),
        same_best=[f.key for f in ranking.best()] == [f.key for f in final.best()],
        largest=max(largest),
        threshold=null.threshold(settings.alpha),
    )
