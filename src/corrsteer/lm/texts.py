"""Forward passes over texts: residuals, the loss with some of them replaced, logits.

Changes when texts are run in another way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional

from corrsteer.errors import NonFiniteError
from corrsteer.hook_points import HookPoint
from corrsteer.lm.decoding import length_batches
from corrsteer.lm.hooks import Tap, adding_where, tapped
from corrsteer.lm.models import LanguageModel
from corrsteer.progress import Advance

LOSS_BATCH = 8
"""Texts whose logits over the whole vocabulary are held at once."""

Replace = Callable[[Float[Tensor, "rows d_model"]], Float[Tensor, "rows d_model"]]
"""Gives residuals that take the place of others."""


@dataclass(frozen=True)
class Documents:
    """Token ids of texts.

    Attributes:
        ids: of each text.
        skip: positions at the beginning of each that are left out of what is read, as the first,
            which models use as an attention sink.
    """

    ids: Sequence[Sequence[int]]
    skip: int

    @property
    def positions(self) -> int:
        """Positions that are not left out."""
        return sum(max(len(each) - self.skip, 0) for each in self.ids)


@dataclass(frozen=True)
class Batch:
    """Texts of like length, padded on the right, where causal attention does not look.

    Attributes:
        ids: their tokens.
        attended: where there are any.
        read: of those, the positions that are not left out.
    """

    ids: Int64[Tensor, "batch pos"]
    attended: Bool[Tensor, "batch pos"]
    read: Bool[Tensor, "batch pos"]


def batches_of(documents: Documents, size: int, pad_id: int) -> Iterator[Batch]:
    """The documents in batches, the longest first."""
    for indices in length_batches([len(ids) for ids in documents.ids], size):
        texts = [documents.ids[index] for index in indices]
        width = max(map(len, texts))
        ids = torch.tensor([[*text, *[pad_id] * (width - len(text))] for text in texts])
        lengths = torch.tensor([len(text) for text in texts])
        attended = torch.arange(width) < lengths[:, None]
        yield Batch(ids, attended, attended & (torch.arange(width) >= documents.skip))


@torch.inference_mode()
def residuals_at(
    lm: LanguageModel,
    documents: Documents,
    hook_points: Sequence[HookPoint],
    batch_size: int,
    advance: Advance,
) -> dict[HookPoint, Float[Tensor, "rows d_model"]]:
    """Residuals at every position that is not left out, in float32 in main memory.

    Raises:
        NonFiniteError: they hold NaN or infinity.
    """
    shape = documents.positions, lm.d_model
    found = {hook_point: torch.empty(shape) for hook_point in hook_points}
    done = 0
    for batch in batches_of(documents, batch_size, lm.decoder.pad_id):
        rows = slice(done, done + int(batch.read.sum()))

        def keep(hook_point: HookPoint, rows: slice = rows, read: Tensor = batch.read) -> Tap:
            def tap(hidden: Tensor) -> None:
                found[hook_point][rows] = hidden[read.to(hidden.device)].float().cpu()

            return tap

        with tapped(lm.model, {hook_point: keep(hook_point) for hook_point in hook_points}):
            logits_of(lm, batch, keep=1)
        done = rows.stop
        advance(len(batch.ids))
    for hook_point, residuals in found.items():
        if not torch.isfinite(residuals).all():
            raise NonFiniteError(f"residuals at {hook_point} hold NaN; try --dtype float32")
    return found


@torch.inference_mode()
def loss_of(
    lm: LanguageModel, documents: Documents, replaced: Mapping[HookPoint, Replace] | None = None
) -> float:
    """Mean cross-entropy of the tokens behind the positions that are not left out, in nats.

    Args:
        lm: the model.
        documents: whose tokens are predicted.
        replaced: what takes the place of residuals at those positions; nothing if None.
    """
    total, count = 0.0, 0
    for batch in batches_of(documents, LOSS_BATCH, lm.decoder.pad_id):

        def put(replace: Replace, read: Tensor = batch.read) -> Tap:
            def tap(hidden: Tensor) -> Tensor:
                where = read.to(hidden.device)
                changed = hidden.clone()
                changed[where] = replace(hidden[where].float()).to(hidden)
                return changed

            return tap

        taps = {hook_point: put(replace) for hook_point, replace in (replaced or {}).items()}
        with tapped(lm.model, taps):
            logits = logits_of(lm, batch)
        predicts = (batch.read[:, :-1] & batch.attended[:, 1:]).to(logits.device)
        targets = batch.ids[:, 1:].to(logits.device)[predicts]
        losses = functional.cross_entropy(
            logits[:, :-1][predicts].float(), targets, reduction="sum"
        )
        total, count = total + float(losses), count + len(targets)
    return total / max(count, 1)


def logits_of(lm: LanguageModel, batch: Batch, keep: int = 0) -> Tensor:
    """Logits of a batch: of the last `keep` positions, or of all."""
    output = lm.model(
        input_ids=batch.ids.to(lm.device),
        attention_mask=batch.attended.long().to(lm.device),
        use_cache=False,
        logits_to_keep=keep,
    )
    logits: Tensor = output.logits
    return logits


@dataclass(frozen=True)
class Divergence:
    """What steering does to texts.

    Attributes:
        dose: hook point -> mean of the added vector's length over that of the residual.
        kl: mean of KL(unsteered || steered) of the next token's distribution, in nats.
    """

    dose: Mapping[HookPoint, float]
    kl: float


@torch.inference_mode()
def divergences(
    lm: LanguageModel, documents: Documents, arms: Sequence[Mapping[HookPoint, Tensor]]
) -> list[Divergence]:
    """How far each arm moves the model on texts, over the positions that are not left out.

    Args:
        lm: the model.
        documents: all of whose positions are steered.
        arms: hook point -> what is added there.

    Raises:
        NonFiniteError: the model's logits hold NaN.
    """
    hooks = {hook for arm in arms for hook in arm}
    inverse = dict.fromkeys(hooks, 0.0)
    total = [0.0 for _ in arms]
    for batch in batches_of(documents, LOSS_BATCH, lm.decoder.pad_id):
        with tapped(lm.model, {hook: _adding_inverse(inverse, hook, batch) for hook in hooks}):
            plain = _distribution(lm, batch)
        for index, arm in enumerate(arms):
            with adding_where(lm.model, arm, partial(getattr, batch, "attended")):
                moved = _distribution(lm, batch)
            total[index] += float((plain.exp() * (plain - moved)).sum())
    count = max(documents.positions, 1)
    return [
        Divergence(
            {hook: float(v.double().norm()) * inverse[hook] / count for hook, v in arm.items()},
            kl / count,
        )
        for arm, kl in zip(arms, total, strict=True)
    ]


def _adding_inverse(sums: dict[HookPoint, float], hook: HookPoint, batch: Batch) -> Tap:
    """Adds 1 / |h| of the positions that are read."""

    def tap(hidden: Tensor) -> None:
        norms = hidden[batch.read.to(hidden.device)].double().norm(dim=1)
        sums[hook] += float((1 / norms.clamp(min=1e-12)).sum())

    return tap


def _distribution(lm: LanguageModel, batch: Batch) -> Float[Tensor, "rows vocabulary"]:
    """Log-probabilities of the next token at the positions that are read, in float64."""
    logits = logits_of(lm, batch)
    if torch.isnan(logits).any():
        raise NonFiniteError(
            "the model's logits hold NaN; try --dtype float32, and a smaller --strength if steered"
        )
    return logits[batch.read.to(logits.device)].double().log_softmax(-1)
