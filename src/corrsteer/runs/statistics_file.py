"""Sufficient statistics of a run as a safetensors file.

Changes when statistics are stored in another way.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from corrsteer.errors import ArtifactError
from corrsteer.files import regular
from corrsteer.hook_points import HookPoint
from corrsteer.runs.records import RUN_SCHEMA
from corrsteer.runs.tensor_files import tensor_bytes
from corrsteer.stats.correlation import StreamingCorrelation

STATISTICS_FILE = "statistics.safetensors"


def statistics_bytes(
    statistics: Mapping[str, StreamingCorrelation], about: Mapping[str, Any] | None = None
) -> bytes:
    """Statistics by hook point name as one safetensors file, which `read_statistics` reads.

    Args:
        statistics: hook point name -> statistics.
        about: kept beside them, as JSON.
    """
    tensors = {
        f"{hook}/{name}": tensor
        for hook, each in statistics.items()
        for name, tensor in each.state().items()
    }
    metadata = {"schema": RUN_SCHEMA}
    if about is not None:
        metadata["about"] = json.dumps(about)
    return tensor_bytes(tensors, metadata)


def read_statistics(path: Path) -> tuple[dict[str, StreamingCorrelation], dict[str, Any]]:
    """Statistics by hook point name in the order of layers, and what was kept beside them.

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
    return {hook: StreamingCorrelation.from_state(states[hook]) for hook in hooks}, about
