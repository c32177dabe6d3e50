"""Many steered arms of the same prompts in few passes.

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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from corrsteer.hook_points import HookPoint
from corrsteer.lm.decoding import (
    LEAVE_BATCH_SHARE,
    Decoder,
    Prefix,
    greedy,
    greedy_with_prefix,
    pad_left,
)
from corrsteer.lm.hooks import adding, adding_where

Vectors = Mapping[HookPoint, Float[Tensor, " d_model"]]
"""What one arm adds, and where."""

SCORE_BYTES = 2**28
"""Attention scores of one layer in one pass, in float32: every position sees a row of all others,
so they grow with the square of what runs together. At most this, unless one arm has more alone."""

LEAST_POSITIONS = 128
"""Positions of arms that run together, if there are as many. More run together behind a longer
prefix only, for arms waste time on each other's keys, which they do not see."""

PROBE = 4
"""Tokens of a long draft that are tried first. An arm that leaves it on most prompts by then is
decoded at once: verifying the rest of the draft would be in vain."""

OPEN_BATCHES = 4
"""Replies that left their draft are decoded to their end together, at most so many batches of them:
each has a copy of the prefix's keys and values."""

LOGIT_ROWS = 512
"""Positions whose logits are held at once."""


@dataclass(frozen=True)
class _Blocks:
    """The last prompt token and the draft of every prompt, padded on the right.

    Attributes:
        ids: [batch, queries].
        needed: which of them are no padding; [batch, queries].
        positions: their position ids; [batch, queries].
    """

    ids: Int64[Tensor, "batch queries"]
    needed: Bool[Tensor, "batch queries"]
    positions: Int64[Tensor, "batch queries"]

    @classmethod
    def of(
        cls,
        decoder: Decoder,
        prompts: Sequence[Sequence[int]],
        drafts: Sequence[Sequence[int]],
        max_new_tokens: int,
    ) -> _Blocks:
        """Those of a batch, on the model's device."""
        device = decoder.model.get_input_embeddings().weight.device
        blocks = [
            [p[-1], *d][: decoder.room(p, max_new_tokens)]
            for p, d in zip(prompts, drafts, strict=True)
        ]
        queries = max(len(block) for block in blocks)
        ids = torch.tensor([b + [decoder.pad_id] * (queries - len(b)) for b in blocks])
        within = torch.arange(queries)
        needed = within < torch.tensor([len(b) for b in blocks])[:, None]
        positions = torch.tensor([len(prompt) - 1 for prompt in prompts])[:, None] + within
        return cls(ids.to(device), needed.to(device), decoder.within(positions).to(device))

    def first(self, queries: int) -> _Blocks:
        """The beginning of every block."""
        return _Blocks(*(each[:, :queries] for each in (self.ids, self.needed, self.positions)))


@dataclass(frozen=True)
class _Row:
    """A reply that left its draft: whose it is, where in its pass, and its tokens so far."""

    prompt: int
    arm: int
    place: int
    reply: list[int]


@dataclass(frozen=True)
class _Open:
    """Replies that left their draft, and what they go on from.

    Attributes:
        rows: the replies.
        keys, values: per layer, those of the prefix and of the block; [rows, heads, keys, head].
        seen: which of them are accepted tokens; [rows, keys].
        positions: their position ids; [rows, keys].
    """

    rows: list[_Row]
    keys: list[Tensor]
    values: list[Tensor]
    seen: Bool[Tensor, "rows keys"]
    positions: Int64[Tensor, "rows keys"]


def decode_arms(
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
        drafts: what the replies are expected to be; the unsteered ones. Where all are empty and
            the first arm adds nothing, its replies are decoded first and are the drafts.
        arms: vectors of each arm.
        max_new_tokens: longest reply.

    Returns:
        replies by arm, then by prompt.

    Raises:
        NonFiniteError: the model's logits hold NaN.
    """
    if not decoder.shares_prefix:
        return [_alone(decoder, prompts, arm, max_new_tokens) for arm in arms]
    if max_new_tokens > 1 and arms and not arms[0] and not any(drafts):
        drafts, prefix = greedy_with_prefix(decoder, prompts, max_new_tokens)
        others = _decode_arms(decoder, prompts, drafts, arms[1:], max_new_tokens, prefix)
        return [drafts, *others]
    return _decode_arms(decoder, prompts, drafts, arms, max_new_tokens, None)


def _alone(
    decoder: Decoder, prompts: Sequence[Sequence[int]], arm: Vectors, max_new_tokens: int
) -> list[list[int]]:
    with adding(decoder.model, arm):
        return greedy(decoder, prompts, max_new_tokens)


@torch.inference_mode()
def _decode_arms(
    decoder: Decoder,
    prompts: Sequence[Sequence[int]],
    drafts: Sequence[Sequence[int]],
    arms: Sequence[Vectors],
    max_new_tokens: int,
    prefix: Prefix | None,
) -> list[list[list[int]]]:
    blocks = _Blocks.of(decoder, prompts, drafts, max_new_tokens)
    prefix = _prefix_pass(decoder, prompts) if prefix is None else prefix
    rooms = [decoder.room(prompt, max_new_tokens) for prompt in prompts]
    replies: list[list[list[int]]] = [[[] for _ in prompts] for _ in arms]
    waiting: list[_Open] = []
    left = list(range(len(arms)))
    probes = [blocks.first(PROBE)] if blocks.ids.shape[1] > 4 * PROBE else []
    for stage in (*probes, blocks):
        size = _together(decoder, stage.ids.shape, prefix.unpadded.shape[1])
        groups = [left[start : start + size] for start in range(0, len(left), size)]
        left = []
        for group in groups:
            tokens, cache = _arms_pass(decoder, prefix, stage, [arms[arm] for arm in group])
            rows = []
            for place, (arm, of_arm) in enumerate(zip(group, tokens.tolist(), strict=True)):
                found = [
                    _accept(choices, draft, decoder.eos_ids, room)
                    for choices, draft, room in zip(of_arm, drafts, rooms, strict=True)
                ]
                if stage is not blocks and _mostly_agree(found, drafts):
                    left.append(arm)
                    continue
                replies[arm] = [reply for reply, _ in found]
                rows += [
                    _Row(prompt, arm, place, reply)
                    for prompt, (reply, ended) in enumerate(found)
                    if not ended
                ]
            most = OPEN_BATCHES * len(prompts)
            for piece in (rows[start : start + most] for start in range(0, len(rows), most)):
                if sum(len(each.rows) for each in waiting) + len(piece) > most:
                    _go_on(decoder, waiting, arms, rooms)
                waiting.append(_opened(cache, prefix, stage, piece))
            del cache
        if waiting:  # of one width
            _go_on(decoder, waiting, arms, rooms)
    return replies


def _mostly_agree(found: Sequence[tuple[list[int], bool]], drafts: Sequence[Sequence[int]]) -> bool:
    """Whether most replies are the beginning of their draft."""
    agree = [
        list(draft[: len(reply)]) == reply for (reply, _), draft in zip(found, drafts, strict=True)
    ]
    return 2 * sum(agree) > len(agree)


def _together(decoder: Decoder, block: Sequence[int], prefix: int) -> int:
    """How many arms run in one pass, each with such a block of queries behind the prefix."""
    batch, queries = block
    heads = decoder.model.config.get_text_config().num_attention_heads
    most = math.isqrt(SCORE_BYTES // (4 * heads * batch)) - prefix
    return max(min(most, max(prefix, LEAST_POSITIONS)) // queries, 1)


def _accept(
    tokens: Sequence[int], draft: Sequence[int], eos_ids: frozenset[int], most: int
) -> tuple[list[int], bool]:
    """The reply up to the first token that differs from the draft, and whether it has ended."""
    reply: list[int] = []
    for step in range(min(len(draft) + 1, most, len(tokens))):
        if tokens[step] in eos_ids:
            return reply, True
        reply.append(tokens[step])
        if step == len(draft) or tokens[step] != draft[step]:
            break
    return reply, len(reply) == most


def _prefix_pass(decoder: Decoder, prompts: Sequence[Sequence[int]]) -> Prefix:
    from transformers import DynamicCache

    model: Any = decoder.model
    device = model.get_input_embeddings().weight.device
    ids, mask = pad_left([prompt[:-1] for prompt in prompts], decoder.pad_id)
    ids, unpadded = ids.to(device), mask.bool().to(device)
    width = ids.shape[1]
    if width == 0:
        return Prefix([], [], unpadded)
    positions = _positions_of(unpadded)
    allowed = torch.ones(width, width, dtype=torch.bool, device=device).tril() & unpadded[:, None]
    # padding sees itself, for a row of the softmax must see something
    allowed |= torch.eye(width, dtype=torch.bool, device=device)
    cache = DynamicCache()
    _base_model(model)(
        input_ids=ids,
        attention_mask=_masks(model, allowed, positions, positions),
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
    )
    keys, values = zip(*((layer.keys, layer.values) for layer in cache.layers), strict=True)
    return Prefix(keys, values, unpadded)


def _arms_pass(
    decoder: Decoder, prefix: Prefix, blocks: _Blocks, arms: Sequence[Vectors]
) -> tuple[Int64[Tensor, "arms batch queries"], Any]:
    """The greedy choice at every query position, and the cache with the arms' blocks in it."""
    from corrsteer.lm.kv_cache import cache_of

    model: Any = decoder.model
    batch, queries = blocks.ids.shape
    positions = blocks.positions.repeat(1, len(arms))
    key_positions = torch.cat([_positions_of(prefix.unpadded), positions], 1)
    allowed = _branch_mask(prefix.unpadded, len(arms), queries)
    cache = cache_of(prefix.keys, prefix.values)
    added = {hook: each.repeat_interleave(queries, 0) for hook, each in _stacked(arms).items()}
    with adding_where(model, added):
        hidden = _base_model(model)(
            input_ids=blocks.ids.repeat(1, len(arms)),
            attention_mask=_masks(model, allowed, positions, key_positions),
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
    needed = blocks.needed.repeat(1, len(arms))
    tokens = torch.full(needed.shape, -1, dtype=torch.int64, device=needed.device)
    chosen = _greedy_tokens(decoder, hidden[needed.to(hidden.device)])
    tokens[needed] = chosen.to(needed.device)
    return tokens.view(batch, len(arms), queries).transpose(0, 1), cache


def _positions_of(unpadded: Bool[Tensor, "batch pos"]) -> Int64[Tensor, "batch pos"]:
    return (unpadded.cumsum(1) - 1).clamp(min=0)


def _branch_mask(
    unpadded: Bool[Tensor, "batch prefix"], arms: int, queries: int
) -> Bool[Tensor, "batch queries keys"]:
    """Which keys each arm's queries see: the prefix's, and their own block's causally."""
    own = torch.ones(queries, queries, device=unpadded.device).tril()
    blocks = torch.kron(torch.eye(arms, device=unpadded.device), own).bool()
    before = unpadded[:, None].expand(-1, arms * queries, -1)
    return torch.cat([before, blocks.expand(len(unpadded), -1, -1)], 2)


def _stacked(arms: Sequence[Vectors]) -> dict[HookPoint, Float[Tensor, "arms d_model"]]:
    """All arms' vectors at each hook point; zeros where an arm has none there."""
    hooks = dict.fromkeys(hook for arm in arms for hook in arm)
    return {hook: _stack(arms, hook) for hook in hooks}


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


@torch.inference_mode()
def heeds_masks_alone(decoder: Decoder, prompt: Sequence[int]) -> bool:
    """Whether positions are related by masks and position ids, and by nothing else.

    Then a prompt laid out from its end to its beginning has the same hidden states. Where the
    order of keys counts (ALiBi, convolutions, causal masks of the model's own) it does not, and an
    arm behind another arm would be computed wrongly.
    """
    model: Any = decoder.model
    device = model.get_input_embeddings().weight.device
    ids = torch.tensor([list(prompt)], device=device)
    positions = torch.arange(len(prompt), device=device)[None]
    allowed = torch.ones(1, len(prompt), len(prompt), dtype=torch.bool, device=device).tril()

    def hidden(order: Int64[Tensor, " pos"]) -> Float[Tensor, "batch pos d_model"]:
        at = positions[:, order]
        states: Tensor = _base_model(model)(
            input_ids=ids[:, order],
            attention_mask=_masks(model, allowed[:, order][:, :, order], at, at),
            position_ids=at,
            use_cache=False,
        ).last_hidden_state
        return states[:, order].float()

    forwards, backwards = hidden(positions[0]), hidden(positions[0].flip(0))
    off = (forwards - backwards).norm() / forwards.norm()
    return bool(off <= math.sqrt(torch.finfo(model.dtype).eps))


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


def _opened(cache: Any, prefix: Prefix, blocks: _Blocks, rows: list[_Row]) -> _Open:
    """Open replies with their own keys and values: the prefix, and the block as far as accepted.

    A reply of n tokens so far has n accepted positions: P-1 and those of its first n-1 tokens.
    """
    device, queries = blocks.ids.device, blocks.ids.shape[1]
    width = prefix.unpadded.shape[1]
    prompts = torch.tensor([row.prompt for row in rows], device=device)
    places = torch.tensor([row.place for row in rows], device=device)
    said = torch.tensor([len(row.reply) for row in rows], device=device)
    block = torch.arange(queries, device=device)
    before = torch.arange(width, device=device).expand(len(rows), -1)
    index = torch.cat([before, width + places[:, None] * queries + block], 1)
    return _Open(
        rows,
        [_gathered(layer.keys, prompts, index) for layer in cache.layers],
        [_gathered(layer.values, prompts, index) for layer in cache.layers],
        torch.cat([prefix.unpadded[prompts], block < said[:, None]], 1),
        torch.cat([_positions_of(prefix.unpadded)[prompts], blocks.positions[prompts]], 1),
    )


def _gathered(states: Tensor, prompts: Tensor, index: Tensor) -> Tensor:
    """Rows and positions of keys or values; [rows, heads, keys, head]."""
    prompts, index = prompts.to(states.device), index.to(states.device)
    return states[prompts[:, None], :, index].transpose(1, 2)


def _go_on(
    decoder: Decoder, waiting: list[_Open], arms: Sequence[Vectors], rooms: Sequence[int]
) -> None:
    """Decode the replies that left their draft to their end, appending to them."""
    from corrsteer.lm.kv_cache import cache_of

    model: Any = decoder.model
    rows = [row for each in waiting for row in each.rows]
    seen = torch.cat([each.seen for each in waiting])
    positions = torch.cat([each.positions for each in waiting])
    device = seen.device
    keys, values = (
        [torch.cat(of_layer) for of_layer in zip(*parts, strict=True)]
        for parts in ([each.keys for each in waiting], [each.values for each in waiting])
    )
    waiting.clear()
    cache = cache_of(keys, values)
    del keys, values
    arm_of = torch.tensor([row.arm for row in rows], device=device)
    stacked = {hook: each.to(device) for hook, each in _stacked(arms).items()}
    current = positions.masked_fill(~seen, 0).amax(1, keepdim=True) + 1
    going = [True] * len(rows)
    while any(going):
        tokens = torch.tensor([[row.reply[-1]] for row in rows], device=device)
        seen = torch.cat([seen, seen.new_ones(len(rows), 1)], 1)
        positions = torch.cat([positions, current], 1)
        added = {hook: each[arm_of, None] for hook, each in stacked.items()}
        with adding_where(model, added):
            hidden = _base_model(model)(
                input_ids=tokens,
                attention_mask=_masks(model, seen[:, None, :], current, positions),
                position_ids=decoder.within(current),
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state[:, -1]
        current = current + 1
        for index, token in enumerate(_greedy_tokens(decoder, hidden).tolist()):
            if going[index] and token not in decoder.eos_ids:
                rows[index].reply.append(token)
            room = rooms[rows[index].prompt]
            going[index] &= token not in decoder.eos_ids and len(rows[index].reply) < room
        stay = [index for index, goes in enumerate(going) if goes]
        if stay and len(stay) <= (1 - LEAVE_BATCH_SHARE) * len(rows):
            keep = torch.tensor(stay, device=device)
            rows, going = [rows[index] for index in stay], [True] * len(stay)
            arm_of, seen, positions, current = (
                tensor[keep] for tensor in (arm_of, seen, positions, current)
            )
            cache.reorder_cache(keep)
