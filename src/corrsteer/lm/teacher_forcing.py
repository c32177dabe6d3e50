"""Replies that are given: their residuals and probabilities, in one pass over prompt and reply.

Changes when given replies are laid out, or read, in another way. A token is predicted at the
position before it, in this pass as in decoding: by the last prompt token for a reply's first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from corrsteer.errors import NonFiniteError
from corrsteer.hook_points import HookPoint
from corrsteer.lm.decoding import Decoder, Residuals, pad_left, send_column
from corrsteer.lm.hooks import adding_where, tapped
from corrsteer.lm.shared_prefix import Vectors
from corrsteer.settings import Positions

Ids = Sequence[int]

LOGIT_BYTES = 2**29
"""Of the logits of one pass, in float32: rows run apart where theirs would be more."""


def read_replies(
    decoder: Decoder,
    prompts: Sequence[Ids],
    replies: Sequence[Ids],
    hook_points: Sequence[HookPoint],
    positions: Positions,
    receive: Callable[[Residuals], None],
) -> None:
    """Give `receive` the residuals that greedy decoding of these very replies would.

    Those are positions P-1 .. P-2+n of a reply of n tokens, which predict each of them; none of an
    empty one. With `positions="all"` every prompt position too.

    Args:
        decoder: model and special ids.
        prompts: token ids of one batch, each of at least one token.
        replies: token ids, without EOS.
        hook_points: where residuals are read.
        positions: see `FitSettings`.
        receive: is given one position of some samples at a time, the first ones first.
    """
    whole = positions == "all"
    lengths = torch.tensor([len(reply) for reply in replies])
    kept = 0 if whole else max(int(lengths.max()), 1)
    seen: dict[HookPoint, Tensor] = {}

    def keep(hook_point: HookPoint) -> Callable[[Tensor], None]:
        return lambda hidden: seen.__setitem__(hook_point, hidden[:, -kept:].clone())

    with tapped(decoder.model, {hook: keep(hook) for hook in hook_points}):
        _pass(decoder, prompts, replies, 1)
    rows = torch.arange(len(prompts), device=next(iter(seen.values())).device)
    wanted = _tokens_at(prompts, replies) if whole else _predicting(lengths, kept)
    for column in range(wanted.shape[1]):
        send_column(receive, seen, rows, wanted[:, column].to(rows.device), column)


def log_probabilities(
    decoder: Decoder,
    prompts: Sequence[Ids],
    replies: Sequence[Ids],
    added: Vectors | None = None,
    positions: Positions = "generated",
) -> list[list[float]]:
    """The log-probability of every token of each reply, by reply.

    Args:
        decoder: model and special ids.
        prompts: token ids of one batch, each of at least one token.
        replies: token ids.
        added: vectors that steer the model; None for none.
        positions: that are steered; see `FitSettings`.

    Raises:
        NonFiniteError: the model's logits hold NaN.
    """
    width = max(max(map(len, replies)), 1)
    vocabulary = decoder.model.get_input_embeddings().weight.shape[0]
    most = max(LOGIT_BYTES // (4 * width * vocabulary), 1)
    found: list[list[float]] = []
    for start in range(0, len(prompts), most):
        some = prompts[start : start + most], replies[start : start + most]
        found += _log_probabilities(decoder, *some, added or {}, positions)
    return found


@torch.inference_mode()
def _log_probabilities(
    decoder: Decoder,
    prompts: Sequence[Ids],
    replies: Sequence[Ids],
    added: Vectors,
    positions: Positions,
) -> list[list[float]]:
    longest = max(max(map(len, replies)), 1)
    where = _tokens_at(prompts, replies)
    if positions == "generated":
        steered = _predicting(torch.tensor([max(len(r), 1) for r in replies]), where.shape[1])
        where = where & steered
    with adding_where(decoder.model, added, lambda: where):
        logits = _pass(decoder, prompts, replies, longest).float()
    if torch.isnan(logits).any():
        raise NonFiniteError(
            "the model's logits hold NaN; try --dtype float32, and a smaller --strength if steered"
        )
    tokens = torch.tensor([[0] * (longest - len(r)) + list(r) for r in replies])
    chosen = logits.log_softmax(-1).gather(2, tokens.to(logits.device)[..., None])[..., 0]
    rows: list[list[float]] = chosen.double().tolist()
    return [row[longest - len(reply) :] for row, reply in zip(rows, replies, strict=True)]


@torch.inference_mode()
def _pass(
    decoder: Decoder, prompts: Sequence[Ids], replies: Sequence[Ids], kept: int
) -> Float[Tensor, "batch kept vocabulary"]:
    """The logits at the last positions of a pass, over all but the last token of each reply.

    Padded on the left, so that what predicts replies stands at the end of every row.
    """
    model: Any = decoder.model
    device = model.get_input_embeddings().weight.device
    ids, mask = pad_left(_inputs(prompts, replies), decoder.pad_id)
    ids, mask = ids.to(device), mask.to(device)
    logits: Tensor = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=decoder.within((mask.cumsum(1) - 1).clamp(min=0)),
        use_cache=False,
        logits_to_keep=kept,
    ).logits
    return logits


def _inputs(prompts: Sequence[Ids], replies: Sequence[Ids]) -> list[list[int]]:
    return [[*prompt, *reply[:-1]] for prompt, reply in zip(prompts, replies, strict=True)]


def _tokens_at(prompts: Sequence[Ids], replies: Sequence[Ids]) -> Bool[Tensor, "batch pos"]:
    """Where the rows of a pass have tokens."""
    lengths = torch.tensor([len(row) for row in _inputs(prompts, replies)])
    return _predicting(lengths, int(lengths.max()))


def _predicting(lengths: Int64[Tensor, " batch"], width: int) -> Bool[Tensor, "batch width"]:
    """The last positions of each row, as many as it is long."""
    return torch.arange(width) >= width - lengths[:, None]
