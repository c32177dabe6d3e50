"""Sufficient statistics of a run as a safetensors file.

Changes when statistics are stored in another way.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from corrsteer.errors import ArtifactError
from corrsteer.files import regular
from corrsteer.hook_points import HookPoint
from corrsteer.runs.records import RUN_SCHEMA
from corrsteer.runs.tensor_files import tensor_bytes
from corrsteer.stats.correlation import StreamingCorrelation
from corrsteer.stats.kept_rows import KeptRows
from corrsteer.stats.outcome_sums import MeanPooled, OutcomeSums

STATISTICS_FILE = "statistics.safetensors"


PARTS = ("residual", "latents", "kept")
"""Of `MeanPooled`, the last where it is kept; a tensor's name begins with one and a dot."""


@dataclass(frozen=True)
class StoredStatistics:
    """What a file of statistics holds, hook points in the order of layers.

    Attributes:
        statistics: hook point name -> statistics.
        means: hook point name -> what was pooled by mean; empty in files from before it was kept.
        about: what was kept beside them, from JSON.
    """

    statistics: dict[str, StreamingCorrelation]
    means: dict[str, MeanPooled]
    about: dict[str, Any]


def statistics_bytes(
    statistics: Mapping[str, StreamingCorrelation],
    means: Mapping[str, MeanPooled] | None = None,
    about: Mapping[str, Any] | None = None,
) -> bytes:
    """Statistics by hook point name as one safetensors file, which `read_statistics` reads.

    Args:
        statistics: hook point name -> statistics.
        means: hook point name -> what was pooled by mean, over the same samples.
        about: kept beside them, as JSON.
    """
    tensors = {
        f"{hook}/{name}": tensor
        for hook, each in statistics.items()
        for name, tensor in each.state().items()
    }
    for hook, mean in (means or {}).items():
        for part in PARTS:
            own = getattr(mean, part)
            state = own.state() if own is not None else {}
            tensors |= {f"{hook}/{part}.{name}": tensor for name, tensor in state.items()}
    metadata = {"schema": RUN_SCHEMA}
    if about is not None:
        metadata["about"] = json.dumps(about)
    return tensor_bytes(tensors, metadata)


def read_statistics(path: Path) -> StoredStatistics:
    """What `statistics_bytes` made a file of.

    Raises:
        ArtifactError: the file is missing, corrupt, or holds what no samples have.
    """
    try:
        with safe_open(regular(path), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            about = json.loads((file.metadata() or {}).get("about", "{}"))
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ArtifactError(f"{path} is corrupt or missing ({reason}); train again") from error
    states: dict[str, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        hook, _, statistic = name.rpartition("/")
        state = states.setdefault(HookPoint.parse(hook).name, {})
        if statistic in state:
            raise ArtifactError(f"{path} has {statistic} of {hook} twice; train again")
        state[statistic] = tensor
    hooks = sorted(states, key=lambda name: HookPoint.parse(name).order)
    parts = {hook: _taken_out(states[hook]) for hook in hooks}
    statistics = {hook: StreamingCorrelation.from_state(states[hook]) for hook in hooks}
    means = {hook: _means(parts[hook]) for hook in hooks}
    found = {hook: mean for hook, mean in means.items() if mean is not None}
    for hook, mean in found.items():
        _check_same(path, hook, mean, statistics[hook])
    if found and len(found) < len(hooks):
        raise ArtifactError(f"{path} has residuals of some hook points only; train again")
    return StoredStatistics(statistics, found, about)


def _taken_out(state: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The tensors of what was pooled by mean, by part, taken out of a hook point's."""
    parts: dict[str, dict[str, Any]] = {part: {} for part in PARTS}
    for statistic in [name for name in state if name.partition(".")[0] in PARTS]:
        part, _, name = statistic.partition(".")
        parts[part][name] = state.pop(statistic)
    return parts


def _means(parts: dict[str, dict[str, Any]]) -> MeanPooled | None:
    """What was pooled by mean, if it was."""
    if not any(parts.values()):
        return None
    kept = parts.pop("kept")
    sums = {part: OutcomeSums.from_state(each) for part, each in parts.items()}
    return MeanPooled(**sums, kept=KeptRows.from_state(kept) if kept else None)


def _check_same(path: Path, hook: str, mean: MeanPooled, own: StreamingCorrelation) -> None:
    """Refuse what was pooled by mean over other samples or latents than the statistics."""
    counts = {(each.n_positive, each.n_zero) for each in (mean.residual, mean.latents, own)}
    widths = mean.latents.width, mean.kept and mean.kept.values.shape[1]
    if len(counts) > 1 or widths not in ((own.d_sae, None), (own.d_sae, mean.residual.width)):
        raise ArtifactError(f"{path} has residuals of other samples at {hook}; train again")
