"""Replies of llama.cpp under a control vector, by llama-cpp-python."""

import ctypes
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

try:
    import gguf
    import llama_cpp
    import numpy as np
except ModuleNotFoundError as error:
    sys.stderr.write(f"{error}\n")
    sys.exit(3)

GGML_TYPE_F32 = 0


def main(request_path: str, out: str) -> None:
    """Write the replies, with the vector set from the start, or set behind prompt[:-1]."""
    request = json.loads(Path(request_path).read_text(encoding="utf-8"))
    length = max(map(len, request["prompts"])) + request["max_new_tokens"]
    llama = llama_cpp.Llama(
        request["model_path"],
        n_ctx=length,
        n_batch=length,
        type_k=GGML_TYPE_F32,  # the default caches in half precision
        type_v=GGML_TYPE_F32,
        verbose=False,
    )
    rows = _rows(request["file"], llama.n_embd(), llama_cpp.llama_model_n_layer(llama.model))
    arrays = {"version": np.array(f"llama-cpp-python {llama_cpp.__version__}")}
    for check, scope in enumerate(request["scopes"]):
        for index, prompt in enumerate(request["prompts"]):
            cut = len(prompt) - 1 if scope == "generated" else 0
            tokens, logits = _reply(llama, rows, prompt, cut, request)
            arrays[f"{check}/{index}/tokens"] = np.array(tokens)
            arrays[f"{check}/{index}/logits"] = np.stack(logits)
    np.savez(out, **arrays)  # type: ignore[arg-type]


def _rows(path: str, n_embd: int, n_layer: int) -> Any:
    """The vectors of blocks 1 .. n_layer - 1, as llama.cpp takes them."""
    rows = np.zeros((n_layer - 1, n_embd), dtype=np.float32)
    for tensor in gguf.GGUFReader(path).tensors:
        rows[int(tensor.name.removeprefix("direction.")) - 1] = tensor.data
    return rows


def _set(llama: Any, rows: Any) -> None:
    """Set the control vector, or clear it with None."""
    pointer = None if rows is None else rows.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    size = 0 if rows is None else rows.size
    n_embd = llama.n_embd()
    layers = 0 if rows is None else len(rows)
    failed = llama_cpp.llama_set_adapter_cvec(llama.ctx, pointer, size, n_embd, 1, layers)
    if failed:
        raise RuntimeError(f"llama.cpp refuses the control vector (code {failed})")


def _reply(
    llama: Any, rows: Any, prompt: Sequence[int], cut: int, request: Mapping[str, Any]
) -> tuple[list[int], list[Any]]:
    """Greedy tokens and the logits behind them; prompt[:cut] is read without the vector."""
    llama.reset()
    llama._ctx.kv_cache_clear()
    _set(llama, None)
    if cut:
        llama.eval(prompt[:cut])
    _set(llama, rows)
    llama.eval(prompt[cut:])
    tokens: list[int] = []
    logits: list[Any] = []
    while True:
        pointer = llama_cpp.llama_get_logits_ith(llama.ctx, -1)
        logits.append(np.ctypeslib.as_array(pointer, shape=(llama.n_vocab(),)).copy())
        tokens.append(int(logits[-1].argmax()))
        if tokens[-1] in request["eos"] or len(tokens) == request["max_new_tokens"]:
            return tokens, logits
        llama.eval(tokens[-1:])


if __name__ == "__main__":
    main(*sys.argv[1:])
