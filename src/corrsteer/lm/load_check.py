"""What a model does with short prompts, to hold it and its SAEs to what their libraries say.

Changes when something else is checked as a model or its SAEs are loaded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from corrsteer.errors import CorrSteerError, DeviceMemoryError, ModelError
from corrsteer.hook_points import HookPoint
from corrsteer.lm.decoding import Decoder, greedy, pad_left
from corrsteer.lm.device_memory import NO_ROOM, is_out_of_memory
from corrsteer.lm.hooks import Tap, adding, tapped
from corrsteer.lm.shared_prefix import decode_arms, heeds_masks_alone

TEXTS = ("The weather is", "Question: how many days are in a week?\nAnswer:")
"""Prompts of different lengths."""


@torch.inference_mode()
def residuals_of(
    model: Any, prompt: Sequence[int], hook_points: Sequence[HookPoint]
) -> dict[HookPoint, Float[Tensor, "pos d_model"]]:
    """The residuals of one prompt at some hook points, in the model's dtype.

    Raises:
        DeviceMemoryError: there is no room for them.
    """
    seen: dict[HookPoint, Tensor] = {}

    def keep(hook_point: HookPoint) -> Tap:
        return lambda hidden: seen.__setitem__(hook_point, hidden[0])

    device = model.get_input_embeddings().weight.device
    try:
        with tapped(model, {hook_point: keep(hook_point) for hook_point in hook_points}):
            model(torch.tensor([list(prompt)], device=device))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise DeviceMemoryError(NO_ROOM) from error
    return seen


TOKENS, ARM_TOKENS = 6, 3
"""Length of the replies that are compared."""

TIED = 0.3
"""Logits are tied within this many square roots of the dtype's resolution, as a share of the
largest: 1e-4 in float32, 0.03 in bfloat16, which is what other kernels and shapes differ by."""


@dataclass(frozen=True)
class _Listening(Decoder):
    """A decoder that keeps the logits it chose by; one [rows, vocabulary] a step."""

    heard: list[Tensor] = field(default_factory=list)

    def choose(self, logits: Float[Tensor, "rows vocabulary"]) -> Tensor:
        self.heard.append(logits)
        return super().choose(logits)


@torch.inference_mode()
def check_replies(decoder: Decoder, prompts: Sequence[Sequence[int]], name: str) -> None:
    """Refuse a model that decodes otherwise here than by its own `generate`.

    Two padded prompts are continued by both. The second token of the first reply counts as its
    end, so that it leaves the batch and the other goes on.

    Raises:
        ModelError: other tokens, without a tie of their logits; or `generate` fails.
        DeviceMemoryError: there is no room for it.
    """
    model = decoder.model
    device = model.get_input_embeddings().weight.device
    ids, mask = (each.to(device) for each in pad_left(prompts, decoder.pad_id))
    told = f"model {name[:300]!r} ({type(model).__name__})"
    try:
        own = model.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=TOKENS,
            eos_token_id=-1,  # none, or generate would take the model's own
            do_sample=False,
            pad_token_id=decoder.pad_id,
            output_logits=True,
            return_dict_in_generate=True,
        )
        expected = own.sequences[:, ids.shape[1] :].tolist()
        ending = replace(decoder, eos_ids=frozenset({expected[0][1]}))
        found = greedy(ending, prompts, TOKENS)
    except CorrSteerError:
        raise
    except Exception as error:  # a model may raise anything at all
        if is_out_of_memory(error):
            raise DeviceMemoryError(NO_ROOM) from error
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"{told} cannot reply to two padded prompts ({reason}); take a decoder-only model "
            "with attention"
        ) from error
    if not _agree([_until(reply, ending.eos_ids) for reply in expected], found, own.logits):
        raise ModelError(
            f"{told} replies otherwise when its batches are decoded here than by its own "
            "`generate`, so that no result would be its own; take a model with attention alone"
        )


@torch.inference_mode()
def shares_prefix(decoder: Decoder, prompts: Sequence[Sequence[int]]) -> bool:
    """Whether arms decoded behind one prefix reply as each of them alone.

    Two arms are tried, of the size of the residual, in the middle of the model.

    Raises:
        DeviceMemoryError: there is no room for it.
    """
    try:
        if not heeds_masks_alone(decoder, prompts[0]):
            return False
        at = HookPoint(decoder.model.config.get_text_config().num_hidden_layers // 2, "resid_post")
        residual = residuals_of(decoder.model, prompts[0], [at])[at][-1].float()
        arms = [{at: 0.5 * residual}, {at: -0.5 * residual.flip(0)}]
        together = decode_arms(decoder, prompts, [[]] * len(prompts), arms, ARM_TOKENS)
        for arm, replies in zip(arms, together, strict=True):
            alone = _Listening(**vars(replace(decoder, eos_ids=frozenset())))
            with adding(decoder.model, arm):
                expected = greedy(alone, prompts, ARM_TOKENS)
            expected = [_until(reply, decoder.eos_ids) for reply in expected]
            if not _agree(expected, replies, alone.heard):
                return False
    except CorrSteerError:
        raise
    except Exception as error:  # a model may raise anything at all
        if is_out_of_memory(error):
            raise DeviceMemoryError(NO_ROOM) from error
        return False
    return True


def _until(reply: Sequence[int], eos_ids: frozenset[int]) -> list[int]:
    ends = [step for step, token in enumerate(reply) if token in eos_ids]
    return list(reply[: ends[0]]) if ends else list(reply)


def _agree(
    expected: Sequence[Sequence[int]], found: Sequence[Sequence[int]], logits: Sequence[Tensor]
) -> bool:
    """Whether replies are the same up to tokens whose logits are tied.

    Args:
        expected: the replies, up to their ends.
        found: those that are to be the same.
        logits: those that the expected ones were chosen by: [rows, vocabulary] a step.
    """
    for row, (one, other) in enumerate(zip(expected, found, strict=True)):
        if list(one) == list(other):
            continue
        pairs = zip(one, other, strict=False)
        step = next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
        scores = logits[step][row]
        most = TIED * math.sqrt(torch.finfo(scores.dtype).eps) * float(scores.abs().max())
        best = scores.topk(2).values
        if float(best[0] - best[1]) > most:
            return False
    return True
