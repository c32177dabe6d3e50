"""llama.cpp: its control vector as GGUF, which repeng and EasySteer read too.

Changes when that format does: `general.architecture` is `controlvector`, and `direction.N` is
added to the output of block N at every position
(https://github.com/ggml-org/llama.cpp/blob/master/common/common.cpp, `common_control_vector_load`).
Readers of the format refuse a file that holds `direction.0`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import Tensor

from corrsteer.errors import ConsumerError
from corrsteer.export.base import Exported, block_outputs, scope_note
from corrsteer.hook_points import HookPoint
from corrsteer.runs.steering import Steering
from corrsteer.settings import Positions

ARCHITECTURE = "controlvector"


class LlamaCpp:
    """llama.cpp, repeng and EasySteer by a control vector."""

    name = "gguf"
    suffix = ".gguf"
    checks: Mapping[str, Positions | None] = {
        "set from the start": "all",
        "set behind the prompt": None,
    }
    probe = "run_llama_cpp.py"
    install = "verify-llama-cpp"
    takes_model_path = True
    # it looks GELU up in a table of half precision, and so differs as much without steering;
    # with such a table in transformers the difference falls to a tenth
    tolerances: Mapping[str, float] = {"gemma2": 1e-2, "gemma3_text": 1e-2}

    def render(self, steering: Steering, drop_block_0: bool = False) -> Exported:
        """The control vector, with what it was made for in its metadata."""
        try:
            from gguf import GGUFWriter
        except ImportError as error:
            raise ConsumerError(
                "the package gguf is not installed; pip install 'corrsteer[gguf]'"
            ) from error
        directions = block_outputs(steering, self.name)
        notes = scope_note(steering, self.name)
        if 0 in directions:
            if not drop_block_0:
                raise ConsumerError(
                    "a control vector cannot steer block 0, and this steering does; give "
                    "--drop-block-0 to leave that vector out, or export --to torch"
                )
            del directions[0]
            notes = ("the vector of block 0 is left out: llama.cpp cannot steer it", *notes)
        if not directions:
            raise ConsumerError("nothing is left without block 0; export --to torch instead")
        about = {
            "corrsteer.model": steering.model,
            "corrsteer.revision": steering.revision or "",
            "corrsteer.made_for_positions": steering.positions,
            "corrsteer.scope": "all",
            "corrsteer.notes": "; ".join(notes),
            **({"corrsteer.direction": steering.described} if steering.direction else {}),
            "corrsteer.features": json.dumps([f.to_dict() for f in steering.features]),
        }
        with TemporaryDirectory() as folder:
            path = Path(folder) / "vector.gguf"
            writer = GGUFWriter(path, ARCHITECTURE)
            hint = steering.metadata.get("model_type") or steering.model or "unknown"
            writer.add_string(f"{ARCHITECTURE}.model_hint", hint)
            writer.add_uint32(f"{ARCHITECTURE}.layer_count", len(directions))
            writer.add_float32("corrsteer.strength", steering.strength)
            for key, value in about.items():
                writer.add_string(key, value)
            for block, vector in directions.items():
                writer.add_tensor(f"direction.{block}", vector.numpy())
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
            writer.close()
            return Exported(path.read_bytes(), _as_done(steering, directions), notes)


def _as_done(steering: Steering, directions: Mapping[int, Tensor]) -> Steering:
    """What llama.cpp makes of the vectors: those of `directions`, at all positions."""
    vectors = {HookPoint(block, "resid_post"): vector for block, vector in directions.items()}
    return replace(steering, vectors=vectors, positions="all", strength=1.0)
