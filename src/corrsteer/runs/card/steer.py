"""Steer a model with nothing but transformers and safetensors: python steer.py MODEL PROMPT."""

from __future__ import annotations

import sys

import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from corrsteer.lm.conventions import (  # written out where this script is shared
    decoder_blocks,
    end_tokens,
    mlp_output,
    opening,
    prompt_tokens,
    reply_greedily,
    steered,
)


def steer(model, path="steering.safetensors", strength=None):
    """Hooks that steer `model.generate`; call remove() on each of them to stop it.

    Batches must be padded on the left, and generate must use its cache, as it does by default. The
    steering was evaluated on greedy replies: see `reply_greedily`.
    """
    with safe_open(path, "pt") as file:
        about = file.metadata()
        vectors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    strength = float(about["strength"]) if strength is None else strength
    blocks = decoder_blocks(model)

    def hook(name, vector):
        def added(hidden):
            where = torch.zeros(hidden.shape[:2], dtype=torch.bool)
            where[:, 0 if about["scope"] == "all" else -1 :] = True
            return steered(hidden, strength * vector, where)

        def after(module, args, output):
            return (added(output[0]), *output[1:]) if isinstance(output, tuple) else added(output)

        def before(module, args, kwargs):
            if args:
                return (added(args[0]), *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": added(kwargs["hidden_states"])}

        _, layer, site = name.split(".")
        block = blocks[int(layer)]
        if site == "hook_resid_pre":
            return block.register_forward_pre_hook(before, with_kwargs=True)
        return (block if site == "hook_resid_post" else mlp_output(block)).register_forward_hook(
            after
        )

    return [hook(name, vector) for name, vector in vectors.items()]


def main(name, prompt, path="steering.safetensors"):
    """Write the steered greedy reply."""
    tokenizer = AutoTokenizer.from_pretrained(name)
    model = AutoModelForCausalLM.from_pretrained(name, use_safetensors=True)
    steer(model, path)
    for setting in reply_greedily(model, tokenizer):
        sys.stderr.write(f"{setting} changes greedy replies, and is off\n")
    with safe_open(path, "pt") as file:
        bos = [tokenizer.bos_token_id] if "prepend_bos" in file.metadata() else []
    first = opening(tokenizer)
    first = first if first[:1] == bos else [*bos, *first]
    ids = torch.tensor([prompt_tokens(tokenizer, prompt, first)])
    mask = torch.ones_like(ids)
    said = model.generate(ids, attention_mask=mask, max_new_tokens=64, do_sample=False)[0]
    reply = [token for token in said[ids.shape[1] :].tolist() if token not in end_tokens(model)]
    sys.stdout.write(tokenizer.decode(reply, skip_special_tokens=True) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
