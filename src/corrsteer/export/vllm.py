"""vLLM, by CorrSteer's own plugin (`corrsteer.vllm_plugin`), which reads a steering as it is.

Changes when the plugin reads something else.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from corrsteer.export.base import Exported, block_outputs
from corrsteer.runs.steering import Steering
from corrsteer.settings import Positions


class Vllm:
    """vLLM, named a steering by the environment variable CORRSTEER_STEERING."""

    name = "vllm"
    suffix = ".safetensors"
    checks: Mapping[str, Positions | None] = {"eager": None, "compiled": None}
    probe = "run_vllm.py"
    install = "verify-vllm"
    takes_model_path = False
    tolerances: Mapping[str, float] = {}

    def render(self, steering: Steering, drop_block_0: bool = False) -> Exported:
        """The steering's own file, once it is sure that the plugin can do what it says."""
        block_outputs(steering, self.name)
        with TemporaryDirectory() as folder:
            path = steering.save(Path(folder) / "steering.safetensors")
            return Exported(path.read_bytes(), steering)
