"""Many steered arms of the same prompts in one pass.

Steering changes nothing before position P-1. So the prefix 0 .. P-2 is run once, unsteered, and
every arm enters as further query positions behind it: the last prompt token and a draft of the
reply, at their own position ids, each arm seeing the prefix and itself through a 4-D mask and
steered by its own vectors. The draft is the baseline's greedy reply. Where an arm agrees with every
token of it, its reply is the draft; where it does not, decoding goes on from the first difference.
That is exact for greedy decoding, and no cache is copied for arms that agree.

Changes when arms share more, or masks are laid out otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from corrsteer.generation import Decoder, pad_left
from corrsteer.hook_points import HookPoint
from corrsteer.hooks import tapped

Vectors = Mapping[HookPoint, Float[Tensor, " d_model"]]
"""What one arm adds, and where."""

SCORE_BYTES = 2**28
"""Attention scores of one layer in one pass, in float32: every position sees a row of all others,
so they grow with the square of what runs together. At most this, unless one arm has more alone."""

LOGIT_ROWS = 512
"""Positions whose logits are held at once."""


@dataclass(frozen=True)
class _Pass:
    """What the shared pass leaves to go on from.

    Attributes:
        tokens: greedy choice at every query position; [arms, batch, queries].
        keys, values: per layer, [batch, heads, prefix + arms * queries, head].
        unpadded: which prefix positions are tokens; [batch, prefix].
        lengths: prompt lengths; [batch].
    """

    tokens: Int64[Tensor, "arms batch queries"]
    keys: list[Tensor]
    values: list[Tensor]
    unpadded: Bool[Tensor, "batch prefix"]
    lengths: Int64[Tensor, " batch"]


@dataclass(frozen=True)
class _Open:
    """A reply that left its draft: what it says so far, and where it comes from."""

    prompt: int
    arm: int
    reply: list[int]


def branch(
    decoder: Decoder,
    prompts: Sequence[Sequence[int]],
    drafts: Sequence[Sequence[int]],
    arms: Sequence[Vectors],
    max_new_tokens: int,
) -> list[list[list[int]]]:
    """The greedy reply of every arm to each prompt of one batch, without EOS.

    Args:
        decoder: model and special ids.
        prompts: token ids, each of at least one token.
        drafts: what the replies are expected to be; the unsteered ones.
        arms: vectors of each arm.
        max_new_tokens: longest reply.

    Returns:
        replies by arm, then by prompt.

    Raises:
        NonFiniteError: the model's logits hold NaN.
    """
    queries = max(min(len(draft) + 1, max_new_tokens) for draft in drafts)
    heads = decoder.model.config.get_text_config().num_attention_heads
    positions = math.isqrt(SCORE_BYTES // (4 * heads * len(prompts)))
    size = max((positions - max(map(len, prompts))) // queries, 1)
    replies: list[list[list[int]]] = []
    for start in range(0, len(arms), size):
        replies += _branch(decoder, prompts, drafts, arms[start : start + size], max_new_tokens)
    return replies


@torch.inference_mode()
def _branch(
    decoder: Decoder,
    prompts: Sequence[Sequence[int]],
    drafts: Sequence[Sequence[int]],
    arms: Sequence[Vectors],
    max_new_tokens: int,
) -> list[list[list[int]]]:
    shared = _shared_pass(decoder, prompts, drafts, arms, max_new_tokens)
    replies: list[list[list[int]]] = [[[] for _ in prompts] for _ in arms]
    still_open = []
    for arm, of_arm in enumerate(shared.tokens.tolist()):
        for prompt, (tokens, draft) in enumerate(zip(of_arm, drafts, strict=True)):
            reply, ended = _accept(tokens, draft, decoder.eos_ids, max_new_tokens)
            replies[arm][prompt] = reply
            if not ended:
                still_open.append(_Open(prompt, arm, reply))
    if still_open:
        _go_on(decoder, shared, still_open, arms, max_new_tokens)
    return replies


def _accept(
    tokens: Sequence[int], draft: Sequence[int], eos_ids: frozenset[int], most: int
) -> tuple[list[int], bool]:
    """The reply up to the first token that differs from the draft, and whether it has ended."""
    reply: list[int] = []
    for step in range(min(len(draft) + 1, most)):
        if tokens[step] in eos_ids:
            return reply, True
        reply.append(tokens[step])
        if step == len(draft) or tokens[step] != draft[step]:
            break
    return reply, len(reply) == most


def _shared_pass(
    decoder: Decoder,
    prompts: Sequence[Sequence[int]],
    drafts: Sequence[Sequence[int]],
    arms: Sequence[Vectors],
    max_new_tokens: int,
) -> _Pass:
    from transformers import DynamicCache

    model: Any = decoder.model
    device = model.get_input_embeddings().weight.device
    prefix, unpadded = pad_left([prompt[:-1] for prompt in prompts], decoder.pad_id)
    blocks = [[p[-1], *d][:max_new_tokens] for p, d in zip(prompts, drafts, strict=True)]
    queries = max(len(block) for block in blocks)
    block = torch.tensor([b + [decoder.pad_id] * (queries - len(b)) for b in blocks])
    prefix, unpadded, block = prefix.to(device), unpadded.bool().to(device), block.to(device)
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    within = torch.arange(queries, device=device)
    prefix_positions = (unpadded.cumsum(1) - 1).clamp(min=0)
    block_positions = lengths[:, None] - 1 + within
    allowed = _branch_mask(unpadded, len(arms), queries)
    positions = torch.cat([prefix_positions, block_positions.repeat(1, len(arms))], 1)
    cache = DynamicCache()
    start = prefix.shape[1]
    with tapped(model, _block_taps(arms, start, queries)):
        hidden = _base_model(model)(
            input_ids=torch.cat([prefix, block.repeat(1, len(arms))], 1),
            attention_mask=_masks(model, allowed, positions, positions),
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state[:, start:]
    needed = (within < torch.tensor([len(b) for b in blocks], device=device)[:, None]).repeat(
        1, len(arms)
    )
    tokens = torch.full(needed.shape, -1, dtype=torch.int64, device=device)
    tokens[needed] = _greedy_tokens(decoder, hidden[needed.to(hidden.device)]).to(device)
    return _Pass(
        tokens=tokens.view(len(prompts), len(arms), queries).transpose(0, 1),
        keys=[layer.keys for layer in cache.layers],
        values=[layer.values for layer in cache.layers],
        unpadded=unpadded,
        lengths=lengths,
    )


def _branch_mask(
    unpadded: Bool[Tensor, "batch prefix"], arms: int, queries: int
) -> Bool[Tensor, "batch total total"]:
    """Which position sees which: the prefix causally, an arm's block the prefix and itself."""
    batch, prefix = unpadded.shape
    device = unpadded.device
    total = prefix + arms * queries
    allowed = torch.zeros(batch, total, total, dtype=torch.bool, device=device)
    causal = torch.ones(prefix, prefix, dtype=torch.bool, device=device).tril()
    allowed[:, :prefix, :prefix] = causal & unpadded[:, None, :]
    allowed[:, prefix:, :prefix] = unpadded[:, None, :]
    own = torch.ones(queries, queries, device=device).tril()
    allowed[:, prefix:, prefix:] = torch.kron(torch.eye(arms, device=device), own).bool()
    # padding sees itself, for a row of the softmax must see something
    allowed |= torch.eye(total, dtype=torch.bool, device=device)
    return allowed


def _block_taps(
    arms: Sequence[Vectors], start: int, queries: int
) -> dict[HookPoint, Callable[[Tensor], Tensor]]:
    """Taps that add each arm's vector over its block of positions."""

    def tap_of(hook: HookPoint) -> Callable[[Tensor], Tensor]:
        stacked = _stack(arms, hook)

        def tap(hidden: Tensor) -> Tensor:
            added = stacked.to(hidden).repeat_interleave(queries, 0)
            return torch.cat([hidden[:, :start], hidden[:, start:] + added], 1)

        return tap

    return {hook: tap_of(hook) for hook in dict.fromkeys(h for arm in arms for h in arm)}


def _stack(arms: Sequence[Vectors], hook: HookPoint) -> Float[Tensor, "arms d_model"]:
    """The arms' vectors at a hook point; zeros where an arm has none there."""
    some = next(arm[hook] for arm in arms if hook in arm)
    return torch.stack([arm.get(hook, torch.zeros_like(some)) for arm in arms])


def _masks(model: Any, allowed: Tensor, query_positions: Tensor, key_positions: Tensor) -> Any:
    """The additive 4-D mask, by layer type where the model has several.

    Args:
        model: whose configuration names layer types and the sliding window.
        allowed: [batch, queries, keys].
        query_positions: position ids; [batch, queries].
        key_positions: position ids; [batch, keys].
    """
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    types = getattr(config, "layer_types", None)
    dtype = model.get_input_embeddings().weight.dtype

    def additive(mask: Tensor) -> Tensor:
        blocked = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
        return blocked.masked_fill(~mask, torch.finfo(dtype).min)[:, None]

    full = additive(allowed)
    if window is None or (types is not None and "sliding_attention" not in types):
        return full
    near = query_positions[:, :, None] - key_positions[:, None, :] < window
    sliding = additive(allowed & near)
    if types is None or set(types) == {"sliding_attention"}:
        return sliding
    return {"full_attention": full, "sliding_attention": sliding}


def _base_model(model: Any) -> Any:
    """The model without its head."""
    return getattr(model, model.base_model_prefix)


def _greedy_tokens(
    decoder: Decoder, hidden: Float[Tensor, "rows d_model"]
) -> Int64[Tensor, " rows"]:
    """The likeliest token after each hidden state, a block of rows at a time.

    Raises:
        NonFiniteError: logits hold NaN.
    """
    model: Any = decoder.model
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    chosen = []
    for rows in torch.split(hidden, LOGIT_ROWS):
        logits = model.get_output_embeddings()(rows)
        logits = torch.tanh(logits / cap) * cap if cap is not None else logits
        chosen.append(decoder.choose(logits))
    return torch.cat(chosen)


def _go_on(
    decoder: Decoder,
    shared: _Pass,
    still_open: Sequence[_Open],
    arms: Sequence[Vectors],
    max_new_tokens: int,
) -> None:
    """Decode the replies that left their draft to their end, appending to them."""
    from transformers import DynamicCache

    model: Any = decoder.model
    device = shared.lengths.device
    rows = list(still_open)
    prompts = torch.tensor([row.prompt for row in rows], device=device)
    arm_of = torch.tensor([row.arm for row in rows], device=device)
    said = torch.tensor([len(row.reply) for row in rows], device=device)
    cache, seen, positions = _own_caches(shared, prompts, arm_of, said, DynamicCache())
    hooks = dict.fromkeys(hook for arm in arms for hook in arm)
    stacked = {hook: _stack(arms, hook).to(device) for hook in hooks}
    eos = decoder.eos_ids
    while rows:
        current = (shared.lengths[prompts] - 1 + said)[:, None]
        tokens = torch.tensor([[row.reply[-1]] for row in rows], device=device)
        seen = torch.cat([seen, seen.new_ones(len(rows), 1)], 1)
        positions = torch.cat([positions, current], 1)
        taps = {hook: _row_tap(vectors[arm_of]) for hook, vectors in stacked.items()}
        with tapped(model, taps):
            hidden = _base_model(model)(
                input_ids=tokens,
                attention_mask=_masks(model, seen[:, None, :], current, positions),
                position_ids=current,
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state[:, -1]
        said = said + 1
        stay = []
        for index, token in enumerate(_greedy_tokens(decoder, hidden).tolist()):
            if token not in eos:
                rows[index].reply.append(token)
                if len(rows[index].reply) < max_new_tokens:
                    stay.append(index)
        if len(stay) < len(rows):
            keep = torch.tensor(stay, dtype=torch.int64, device=device)
            rows = [rows[index] for index in stay]
            prompts, arm_of, said, seen, positions = (
                tensor[keep] for tensor in (prompts, arm_of, said, seen, positions)
            )
            if rows:
                cache.batch_select_indices(keep.cpu())


def _row_tap(vectors: Float[Tensor, "rows d_model"]) -> Callable[[Tensor], Tensor]:
    return lambda hidden: hidden + vectors.to(hidden)[:, None]


def _own_caches(
    shared: _Pass, prompts: Tensor, arm_of: Tensor, said: Tensor, cache: Any
) -> tuple[Any, Bool[Tensor, "rows keys"], Int64[Tensor, "rows keys"]]:
    """Each open reply's keys and values: its prefix, and its block as far as it was accepted.

    A reply of n tokens so far has n accepted positions: P-1 and those of its first n-1 tokens.

    Returns:
        the cache filled, which of its keys are there, and their position ids.
    """
    prefix = shared.unpadded.shape[1]
    queries = shared.tokens.shape[2]
    device = said.device
    block = torch.arange(int(said.max()), device=device).expand(len(said), -1)
    in_block = (prefix + arm_of[:, None] * queries + block).clamp(
        max=prefix + shared.tokens.shape[0] * queries - 1
    )
    index = torch.cat([torch.arange(prefix, device=device).expand(len(said), -1), in_block], 1)
    seen = torch.cat([shared.unpadded[prompts], block < said[:, None]], 1)
    before = (shared.unpadded.cumsum(1) - 1).clamp(min=0)[prompts]
    positions = torch.cat([before, shared.lengths[prompts][:, None] - 1 + block], 1)
    for layer, (keys, values) in enumerate(zip(shared.keys, shared.values, strict=True)):
        cache.update(_gathered(keys, prompts, index), _gathered(values, prompts, index), layer)
    return cache, seen, positions


def _gathered(states: Tensor, prompts: Tensor, index: Tensor) -> Tensor:
    """Rows and positions of keys or values; [rows, heads, keys, head]."""
    wide = index[:, None, :, None].to(states.device)
    heads, width = states.shape[1], states.shape[3]
    return states[prompts.to(states.device)].gather(2, wide.expand(-1, heads, -1, width))
