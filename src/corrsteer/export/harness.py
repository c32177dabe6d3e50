"""lm-evaluation-harness: the `.pt` that its `--model steered` reads.

Changes when the harness's format does. Its loader, as of 0.4.13, is `SteeredModel` in
https://github.com/EleutherAI/lm-evaluation-harness/blob/v0.4.13/lm_eval/models/hf_steered.py:
modules are named as in `model.base_model.named_modules()`, one entry a module, and the vector is
added to the module's output at every position.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace

import torch

from corrsteer.export.base import Exported, block_outputs, scope_note
from corrsteer.runs.steering import Steering
from corrsteer.settings import Positions


class LmEval:
    """lm-evaluation-harness by its own `--model steered`, or by our `--model corrsteer`."""

    name = "lm-eval"
    suffix = ".pt"
    checks: Mapping[str, Positions | None] = {"--model steered": "all", "--model corrsteer": None}
    probe = "run_lm_eval.py"
    install = "verify-lm-eval"
    takes_model_path = False
    tolerances: Mapping[str, float] = {}

    def render(self, steering: Steering, drop_block_0: bool = False) -> Exported:
        """A pickled dictionary of plain tensors, as the harness wants it; never read here."""
        entries = {
            f"layers.{block}": {
                "steering_vector": vector.clone(),
                "steering_coefficient": 1.0,
                "action": "add",
                "bias": None,
                "head_index": None,
            }
            for block, vector in block_outputs(steering, self.name).items()
        }
        buffer = io.BytesIO()
        torch.save(entries, buffer)
        done = replace(steering, positions="all")
        return Exported(buffer.getvalue(), done, scope_note(steering, self.name))
