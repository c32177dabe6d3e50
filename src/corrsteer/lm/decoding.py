"""Greedy decoding in batches, with the residuals that predict each generated token.

Changes when replies are decoded in another way. Prompts are cut into batches by length and padded
on the left; rows that have finished leave the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from corrsteer.errors import NonFiniteError
from corrsteer.hook_points import HookPoint
from corrsteer.lm.hooks import tapped
from corrsteer.settings import Positions

LEAVE_BATCH_SHARE = 0.25
"""Finished rows are taken out of the batch once they are this share of it: taking them out
copies the cache, keeping them costs their share of every step."""


@dataclass(frozen=True)
class Decoder:
    """What decoding needs of a model.

    Attributes:
        model: a causal language model of transformers.
        pad_id: id that fills batches behind the attention mask.
        eos_ids: ids that end a reply.
        allowed: the only ids that a reply may be made of; None for all.
        most_positions: that the model has, if it has so many only.
        shares_prefix: whether arms can be decoded together behind one prefix.
    """

    model: Any
    pad_id: int
    eos_ids: frozenset[int]
    allowed: tuple[int, ...] | None = None
    most_positions: int | None = None
    shares_prefix: bool = True

    def room(self, prompt: Sequence[int], max_new_tokens: int) -> int:
        """The longest reply that fits behind a prompt, whose own last token needs no position."""
        if self.most_positions is None:
            return max_new_tokens
        return min(max_new_tokens, self.most_positions - len(prompt) + 1)

    def within(self, position_ids: Int64[Tensor, "batch pos"]) -> Int64[Tensor, "batch pos"]:
        """Position ids, those of padding and of rows that have ended cut to what there is."""
        if self.most_positions is None:
            return position_ids
        return position_ids.clamp(max=self.most_positions - 1)

    def choose(self, logits: Float[Tensor, "rows vocabulary"]) -> Int64[Tensor, " rows"]:
        """The likeliest token of each row, of those allowed.

        Raises:
            NonFiniteError: the logits hold NaN.
        """
        if torch.isnan(logits).any():
            raise NonFiniteError(
                "the model's logits hold NaN; try --dtype float32, and a smaller --strength if "
                "steered"
            )
        if self.allowed is None:
            return logits.argmax(-1)
        ids = torch.tensor(self.allowed, device=logits.device)
        return ids[logits[:, ids].argmax(-1)]


@dataclass(frozen=True)
class Residuals:
    """Residuals of one position of some samples of a batch.

    Attributes:
        rows: which samples of the batch; none twice.
        at: hook point -> residual, in the model's dtype.
    """

    rows: Int64[Tensor, " rows"]
    at: Mapping[HookPoint, Float[Tensor, "rows d_model"]]


def length_batches(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Indices in batches of like length, the longest first, so that memory peaks at once."""
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def greedy(
    decoder: Decoder, prompts: Sequence[Sequence[int]], max_new_tokens: int
) -> list[list[int]]:
    """The greedy reply to each prompt of one batch, without its EOS.

    Args:
        decoder: model and special ids.
        prompts: token ids, each of at least one token.
        max_new_tokens: longest reply; a shorter one where the model has no more positions.

    Raises:
        NonFiniteError: the model's logits hold NaN.
    """
    return _decode(decoder, prompts, max_new_tokens, None)


@dataclass(frozen=True)
class Prefix:
    """Keys and values of a batch's prompts up to position P-2, the last before any is steered.

    Attributes:
        keys, values: a tensor for every layer, none where no prompt has two tokens;
            [batch, heads, prefix, head].
        unpadded: which positions are tokens; [batch, prefix].
    """

    keys: Sequence[Tensor]
    values: Sequence[Tensor]
    unpadded: Bool[Tensor, "batch prefix"]


def greedy_with_prefix(
    decoder: Decoder, prompts: Sequence[Sequence[int]], max_new_tokens: int
) -> tuple[list[list[int]], Prefix | None]:
    """The same replies, to more than one token, and what was computed of the prompts on the way.

    That is None where the cache does not keep it, behind a sliding window.
    """
    from corrsteer.lm.kv_cache import growing_cache, keeps_all

    cache = growing_cache(decoder.model.config, _most_positions(prompts, max_new_tokens))
    kept: list[Prefix] = []

    def on_step(rows: Tensor, alive: Tensor, unpadded: Tensor | None) -> None:
        if unpadded is not None and keeps_all(cache) and unpadded.shape[1] > 1:
            keys = [layer.keys[:, :, :-1] for layer in cache.layers]
            values = [layer.values[:, :, :-1] for layer in cache.layers]
            kept.append(Prefix(keys, values, unpadded[:, :-1]))

    replies = _decode(decoder, prompts, max_new_tokens, on_step, cache)
    return replies, kept[0] if kept else None


def stream(
    decoder: Decoder,
    prompt: Sequence[int],
    max_new_tokens: int,
    around: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Iterator[int]:
    """The tokens of one greedy reply without its EOS, each as soon as it is there.

    Args:
        decoder: model and special ids.
        prompt: token ids, at least one.
        max_new_tokens: longest reply.
        around: entered for every forward pass and left again before its token is given out, so
            that replies under different hooks can take turns on one model.

    Raises:
        NonFiniteError: the model's logits hold NaN.
    """
    for _, tokens in _steps(decoder, [prompt], max_new_tokens, None, around):
        yield from tokens.tolist()


def greedy_with_residuals(
    decoder: Decoder,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    hook_points: Sequence[HookPoint],
    positions: Positions,
    receive: Callable[[Residuals], None],
) -> list[list[int]]:
    """The same replies; `receive` is given the residuals of every pooled position on the way.

    Those are positions P-1+t, which predict the generated tokens g_t that are not EOS; with
    `positions="all"` every prompt position too.
    """
    seen: dict[HookPoint, Tensor] = {}

    def keep(hook_point: HookPoint) -> Callable[[Tensor], None]:
        return lambda hidden: seen.__setitem__(hook_point, hidden)

    def on_step(rows: Tensor, alive: Tensor, unpadded: Tensor | None) -> None:
        if unpadded is not None and positions == "all":
            for column in range(unpadded.shape[1] - 1):
                send_column(receive, seen, rows, unpadded[:, column], column)
            send_column(receive, seen, rows, torch.ones_like(alive), -1)
        else:
            send_column(receive, seen, rows, alive, -1)
        seen.clear()

    with tapped(decoder.model, {hook: keep(hook) for hook in hook_points}):
        return _decode(decoder, prompts, max_new_tokens, on_step)


def send_column(
    receive: Callable[[Residuals], None],
    seen: Mapping[HookPoint, Tensor],
    rows: Tensor,
    wanted: Tensor,
    column: int,
) -> None:
    """Pass on one column of the residuals seen, for the rows that are wanted."""
    if wanted.all():
        receive(Residuals(rows, {hook: hidden[:, column] for hook, hidden in seen.items()}))
    elif wanted.any():
        at = {hook: hidden[wanted.to(hidden.device), column] for hook, hidden in seen.items()}
        receive(Residuals(rows[wanted], at))


OnStep = Callable[[Tensor, Tensor, Tensor | None], None]
"""Called after each forward pass with the rows in the batch, which of them go on (their next
token is not EOS), and at the prompt's pass where it is unpadded, else None."""


def _decode(
    decoder: Decoder,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    on_step: OnStep | None,
    cache: Any = None,
) -> list[list[int]]:
    replies: list[list[int]] = [[] for _ in prompts]
    for rows, tokens in _steps(decoder, prompts, max_new_tokens, on_step, cache=cache):
        for row, token in zip(rows.tolist(), tokens.tolist(), strict=True):
            replies[row].append(token)
    return replies


@torch.inference_mode()
def _steps(
    decoder: Decoder,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    on_step: OnStep | None,
    around: Callable[[], AbstractContextManager[object]] = nullcontext,
    cache: Any = None,
) -> Iterator[tuple[Int64[Tensor, " rows"], Int64[Tensor, " rows"]]]:
    """After each forward pass, the rows that go on and their next tokens.

    The cache, an empty one, is made here unless it is given.
    """
    from corrsteer.lm.kv_cache import growing_cache

    model: Any = decoder.model
    device = model.get_input_embeddings().weight.device
    ids, mask = pad_left(prompts, decoder.pad_id)
    ids, mask = ids.to(device), mask.to(device)
    eos = torch.tensor(sorted(decoder.eos_ids), dtype=torch.int64, device=device)
    rooms = [decoder.room(prompt, max_new_tokens) for prompt in prompts]
    room, longest = torch.tensor(rooms, device=device), max(rooms)
    one_pass = longest == 1
    if cache is None and not one_pass:
        cache = growing_cache(model.config, _most_positions(prompts, max_new_tokens))
    rows = torch.arange(len(prompts), device=device)
    finished = torch.zeros(len(prompts), dtype=torch.bool, device=device)
    position_ids = (mask.cumsum(1) - 1).clamp(min=0)
    for step in range(longest):
        with around():
            logits = model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=decoder.within(position_ids),
                past_key_values=cache,
                use_cache=not one_pass,
                logits_to_keep=1,
            ).logits[:, -1]
        token = decoder.choose(logits).to(device)
        finished = finished | torch.isin(token, eos)
        if on_step is not None:
            on_step(rows, ~finished, mask.bool() if step == 0 else None)
        yield rows[~finished], token[~finished]
        finished = finished | (step + 1 >= room[rows])
        if finished.all():
            break
        if cache is not None and finished.float().mean() >= LEAVE_BATCH_SHARE:
            stay = (~finished).nonzero()[:, 0]
            cache.reorder_cache(stay)  # the one way that layers of every kind keep some rows
            rows, token, mask, position_ids, finished = (
                tensor[stay] for tensor in (rows, token, mask, position_ids, finished)
            )
        ids = token[:, None]
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
        position_ids = position_ids[:, -1:] + 1


def _most_positions(prompts: Sequence[Sequence[int]], max_new_tokens: int) -> int:
    return max(map(len, prompts)) + max_new_tokens


def pad_left(
    prompts: Sequence[Sequence[int]], pad_id: int
) -> tuple[Int64[Tensor, "batch pos"], Int64[Tensor, "batch pos"]]:
    """Token ids and attention mask of prompts, padded on the left to the longest."""
    width = max(len(prompt) for prompt in prompts)
    ids = [[pad_id] * (width - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids, dtype=torch.int64), torch.tensor(mask, dtype=torch.int64)
