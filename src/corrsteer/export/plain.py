"""Plain PyTorch: a folder with the vectors, a script that needs no CorrSteer, and a model card.

Changes when what is shared does. It is the folder that `Steering.push_to_hub` uploads.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from corrsteer.export.base import Exported
from corrsteer.runs.steering import Steering
from corrsteer.settings import Positions


class PlainTorch:
    """transformers alone, by a script that comes with the vectors; also a repository of the hub."""

    name = "torch"
    suffix = ""
    checks: Mapping[str, Positions | None] = {"steer.py": None}
    probe = "run_plain.py"
    install = ""
    takes_model_path = False
    tolerances: Mapping[str, float] = {}

    def render(self, steering: Steering, drop_block_0: bool = False) -> Exported:
        """Vectors, card, script and configuration."""
        with TemporaryDirectory() as folder:
            steering.save_pretrained(folder)
            files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
        return Exported(files, steering)
