"""Steer a model with nothing but transformers and safetensors: python steer.py MODEL PROMPT."""

import sys

import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer


def steer(model, path="steering.safetensors", strength=None):
    """Hooks that steer `model.generate`; call remove() on each of them to stop it.

    Batches must be padded on the left, and generate must use its cache, as it does by default.
    """
    with safe_open(path, "pt") as file:
        about = file.metadata()
        vectors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    strength = float(about["strength"]) if strength is None else strength
    where = slice(None) if about["scope"] == "all" else slice(-1, None)
    depth = model.config.get_text_config().num_hidden_layers
    lists = (m for m in model.modules() if isinstance(m, torch.nn.ModuleList))
    blocks = next(m for m in lists if len(m) == depth)

    def hook(name, vector):
        def add(module, args, output):
            hidden = output[0] if isinstance(output, tuple) else output
            hidden[:, where] += (strength * vector).to(hidden)

        def add_before(module, args, kwargs):
            add(module, args, args[0] if args else kwargs["hidden_states"])

        _, layer, site = name.split(".")
        block = blocks[int(layer)]
        if site == "hook_resid_pre":
            return block.register_forward_pre_hook(add_before, with_kwargs=True)
        norm = getattr(block, "post_feedforward_layernorm", block.mlp)
        return (block if site == "hook_resid_post" else norm).register_forward_hook(add)

    return [hook(name, vector) for name, vector in vectors.items()]


if __name__ == "__main__":
    tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
    model = AutoModelForCausalLM.from_pretrained(sys.argv[1], use_safetensors=True)
    steer(model)
    inputs = tokenizer(sys.argv[2], return_tensors="pt")
    reply = model.generate(**inputs, max_new_tokens=64, do_sample=False)[0]
    sys.stdout.write(tokenizer.decode(reply[inputs["input_ids"].shape[1] :]) + "\n")
