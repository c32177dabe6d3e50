"""What all places that steer, ours and the script beside shared vectors, must do alike.

Changes when blocks are found, prompts tokenised, greedy replies made or vectors added in another
way. The source of this module is part of that script, so nothing of ours is imported here.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, nn

NEITHER_TEXT = ("vision", "visual", "audio", "encoder.")
"""In the names of blocks that are not the language model's."""

GREEDY: Mapping[str, object] = {
    **dict.fromkeys(("repetition_penalty", "encoder_repetition_penalty", "guidance_scale"), 1.0),
    **dict.fromkeys(("no_repeat_ngram_size", "encoder_no_repeat_ngram_size"), 0),
    **dict.fromkeys(("min_length", "min_new_tokens"), 0),
    **dict.fromkeys(("num_beams", "num_beam_groups"), 1),
    **{name: [] for name in ("suppress_tokens", "begin_suppress_tokens", "bad_words_ids")},
    **dict.fromkeys(("forced_bos_token_id", "forced_eos_token_id", "forced_decoder_ids")),
    **dict.fromkeys(("sequence_bias", "exponential_decay_length_penalty", "stop_strings")),
    **dict.fromkeys(("watermarking_config", "penalty_alpha", "dola_layers", "constraints")),
    **dict.fromkeys(("force_words_ids", "max_time", "prompt_lookup_num_tokens")),
}
"""Settings of `generate` that change greedy replies, each at the value at which it does nothing."""


def decoder_blocks(model: nn.Module, depth: int | None = None) -> nn.ModuleList:
    """The list of the language model's transformer blocks.

    Args:
        model: whose blocks they are, or a wrapper of it.
        depth: how many there are; by the model's configuration if None.

    Raises:
        LookupError: there is no such list.
    """
    if depth is None:
        config: Any = model.config
        config = config.get_text_config() if hasattr(config, "get_text_config") else config
        depth = getattr(config, "num_hidden_layers", None)
    for name, module in model.named_modules():
        other = any(part in name for part in NEITHER_TEXT)
        if isinstance(module, nn.ModuleList) and len(module) == depth and not other:
            return module
    raise LookupError(f"no list of {depth} transformer blocks in {type(model).__name__}")


def mlp_output(block: nn.Module) -> nn.Module:
    """The module whose output TransformerLens calls hook_mlp_out.

    Where a norm follows the MLP before its output is added (Gemma 2 and 3), it is that norm.

    Raises:
        LookupError: there is no such module, or its output holds the residual too.
    """
    for name in ("post_feedforward_layernorm", "mlp", "feed_forward"):
        module = getattr(block, name, None)
        if isinstance(module, nn.Module):
            if "residual" in inspect.signature(module.forward).parameters:  # BLOOM
                raise LookupError(f"the mlp of {type(block).__name__} adds the residual itself")
            return module
    raise LookupError(f"{type(block).__name__} has no mlp")


def steered(hidden: Tensor, vector: Tensor, where: Tensor | None = None) -> Tensor:
    """The residual with a vector added, in the residual's own dtype.

    Args:
        hidden: [..., d_model].
        vector: what is added, of a shape that fits; computed in float32.
        where: the positions that are steered; all if None.
    """
    added = hidden + vector.to(hidden)
    return (
        added if where is None else torch.where(where[..., None].to(hidden.device), added, hidden)
    )


def opening(tokenizer: Any) -> list[int]:
    """The special tokens that a tokenizer puts before a text."""
    encoded = tokenizer("a", return_special_tokens_mask=True)
    special = zip(encoded["input_ids"], encoded["special_tokens_mask"], strict=True)
    return [int(token) for token, _ in takewhile(lambda pair: pair[1], special)]


def prompt_tokens(tokenizer: Any, text: str, first: Sequence[int]) -> list[int]:
    """Token ids of a prompt.

    Args:
        tokenizer: whose special tokens behind a text are left out, for a reply is to follow.
        text: which may have been rendered by a chat template, special tokens and all.
        first: what the prompt begins with; what of it the text itself begins with stands there
            once.
    """
    ids = [int(token) for token in tokenizer(text, add_special_tokens=False)["input_ids"]]
    lengths = range(len(first), -1, -1)
    common = next(n for n in lengths if list(first[len(first) - n :]) == ids[:n])
    return [*first[: len(first) - common], *ids]


def end_tokens(model: Any, tokenizer: Any = None) -> list[int]:
    """Ids that end a reply: all that the model or the tokenizer, if there is one, names."""
    found = set()
    for given in (model.generation_config.eos_token_id, getattr(tokenizer, "eos_token_id", None)):
        found |= {given} if isinstance(given, int) else set(given or ())
    return sorted(found)


def reply_greedily(model: Any, tokenizer: Any = None) -> list[str]:
    """Make `model.generate` reply by the likeliest tokens up to any end token.

    Returns:
        the settings that would have changed replies, now switched off, as `name=value`.
    """
    config = model.generation_config
    changed = {
        name: getattr(config, name, None)
        for name, nothing in GREEDY.items()
        if getattr(config, name, None) not in (None, nothing)
    }
    for name in changed:
        setattr(config, name, None)
    config.eos_token_id = end_tokens(model, tokenizer) or None
    return [f"{name}={value}"[:80] for name, value in changed.items()]
