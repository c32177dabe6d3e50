"""lm-evaluation-harness: the `.pt` that its `--model steered` reads.

Changes when the harness's format does. Its loader, as of 0.4.13, is `SteeredModel` in
https://github.com/EleutherAI/lm-evaluation-harness/blob/v0.4.13/lm_eval/models/hf_steered.py:
modules are named as in `model.base_model.named_modules()`, one entry a module, and the vector is
added to the module's output at every position.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping
from dataclasses import replace

import torch

from corrsteer.config import Positions
from corrsteer.errors import CorrSteerError
from corrsteer.export.base import Exported, block_outputs, scope_note
from corrsteer.steering import Steering


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


def main() -> None:
    """The harness's own command line, with `--model corrsteer` known to it.

    `python -m corrsteer.export.lm_eval --model_args steering=RUN --tasks T`; every other option is
    the harness's.
    """
    try:
        from lm_eval.__main__ import cli_evaluate

        from corrsteer.export import lm_eval_model  # noqa: F401  (registers the model)
    except ImportError as error:
        reason = "pip install 'lm-eval[hf]', or make verify-lm-eval"
        sys.exit(f"corrsteer: lm-evaluation-harness cannot be imported ({error}); {reason}")
    if not any(argument.split("=")[0] in ("--model", "-M") for argument in sys.argv[1:]):
        sys.argv[1:] = ["run", "--model", "corrsteer", *_without_run(sys.argv[1:])]
    try:
        cli_evaluate()
    except CorrSteerError as error:
        sys.stderr.write(f"corrsteer: {error}\n")
        sys.exit(2)


def _without_run(arguments: list[str]) -> list[str]:
    return arguments[1:] if arguments[:1] == ["run"] else arguments


if __name__ == "__main__":
    main()
