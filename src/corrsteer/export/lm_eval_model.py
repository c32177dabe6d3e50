"""lm-evaluation-harness's own transformers model, steered where CorrSteer steers.

Changes when the harness's model class does (`HFLM` of 0.4.13). Importing this registers the model
as `corrsteer`; the harness has no other way to be told of models from outside.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from corrsteer.errors import ConsumerError
from corrsteer.lm.conventions import opening, prompt_tokens, reply_greedily
from corrsteer.lm.decoding import pad_left
from corrsteer.lm.hooks import adding, adding_where
from corrsteer.lm.known_models import canonical_name
from corrsteer.runs.steer import check_fit
from corrsteer.runs.steering import Steering

log = logging.getLogger(__name__)

Request = tuple[tuple[str, str] | None, list[int], list[int]]
"""Texts (None for a window of a rolling likelihood), context tokens, continuation tokens."""


@register_model("corrsteer")
class CorrSteerLM(HFLM):  # type: ignore[misc]
    """`--model corrsteer --model_args steering=RUN`, and what `--model hf` takes.

    The context is the prompt and the continuation the reply: steered are the last position of the
    context and all later ones, whether the continuation is generated or given. In a rolling
    likelihood all of the text is continuation.
    """

    def __init__(
        self,
        steering: str,
        pretrained: str | None = None,
        strength: float | None = None,
        force: bool = False,
        **options: Any,
    ):
        """Load the model and what it is steered by.

        Args:
            steering: a run folder, or a steering file.
            pretrained: known name, hub id or folder; the steering's own if None.
            strength: the steering's own if None.
            force: steer a model that the steering was not made on.
            options: of `HFLM`.

        Raises:
            CorrSteerError: no steering there, or it is for another model.
        """
        loaded = Steering.load(steering)
        if pretrained is None and loaded.revision:
            options.setdefault("revision", loaded.revision)
        name = pretrained or loaded.model
        if not name:
            raise ConsumerError(f"{steering} does not say which model it is for; give pretrained=")
        super().__init__(pretrained=canonical_name(name), **options)
        check_fit(self.model, loaded, force)
        for setting in reply_greedily(self.model, self.tokenizer):
            log.info("%s changes greedy replies, and is off", setting)
        bos = [self.prefix_token_id] if "prepend_bos" in loaded.metadata else []
        first = [] if self.add_bos_token is False else opening(self.tokenizer)
        self._opening = first if first[:1] == bos else [*bos, *first]
        self._positions = loaded.positions
        self._vectors = loaded.scaled(strength)

    def tok_encode(
        self,
        string: str,
        add_special_tokens: bool | None = None,
        left_truncate_len: int | None = None,
        **options: Any,
    ) -> list[int]:
        """Tokens of a prompt as they were evaluated, or of what follows one."""
        first = [] if add_special_tokens is False else self._opening
        ids = prompt_tokens(self.tokenizer, string, first)
        return ids[-left_truncate_len:] if left_truncate_len else ids

    def tok_batch_encode(
        self,
        strings: Sequence[str],
        padding_side: str = "left",
        left_truncate_len: int | None = None,
        truncation: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Tokens and attention mask of prompts as they were evaluated, padded on the left."""
        rows = [self.tok_encode(text, left_truncate_len=left_truncate_len) for text in strings]
        return pad_left(rows, self.tokenizer.pad_token_id)

    def _model_generate(self, *args: Any, **options: Any) -> Any:
        with adding(self.model, self._vectors, self._positions):
            return super()._model_generate(*args, **options)

    def _loglikelihood_tokens(
        self,
        requests: Sequence[Request],
        disable_tqdm: bool = False,
        override_bs: int | None = None,
    ) -> list[tuple[float, bool]]:
        """Log-likelihood of each continuation, and whether greedy decoding would say it.

        Requests that differ in nothing but the last token are run once.
        """
        alike: dict[tuple[tuple[int, ...], tuple[int, ...], bool], list[int]] = {}
        for index, (texts, context, continuation) in enumerate(requests):
            key = tuple(context), tuple(continuation[:-1]), texts is None
            alike.setdefault(key, []).append(index)
        order = sorted(alike, key=lambda key: -len(key[0]) - len(key[1]))
        size = int(override_bs or self._size())
        answers: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        bar = tqdm(total=len(requests), disable=disable_tqdm or self.rank != 0, desc="likelihood")
        for start in range(0, len(order), size):
            batch = order[start : start + size]
            for key, logits in zip(batch, self._continuation_logits(batch), strict=True):
                scores = functional.log_softmax(logits, dim=-1, dtype=self.softmax_dtype)
                for index in alike[key]:
                    texts, _, continuation = requests[index]
                    answers[index] = _judge(scores, continuation)
                    if texts is not None:
                        self.cache_hook.add_partial("loglikelihood", texts, answers[index])
                    bar.update(1)
        bar.close()
        return answers

    def _size(self) -> int:
        size = self.batch_size
        return int(self._detect_batch_size()) if size == "auto" else int(size)

    def _continuation_logits(
        self, batch: Sequence[tuple[tuple[int, ...], tuple[int, ...], bool]]
    ) -> list[Tensor]:
        """The steered logits that predict each continuation; [continuation, vocabulary]."""
        rows, starts = [], []
        for context, continuation, rolling in batch:
            assert len(continuation) < self.max_length, "the harness cuts longer ones"
            row = torch.tensor((context + continuation)[-self.max_length :], device=self.device)
            rows.append(row)
            first = len(row) - len(continuation) - 1  # its hidden state predicts the first token
            starts.append(0 if rolling or self._positions == "all" else first)
        ids = pad_sequence(rows, batch_first=True)
        mask = torch.arange(ids.shape[1])[None, :] >= torch.tensor(starts)[:, None]

        with adding_where(self.model, self._vectors, lambda: mask):
            logits = self._model_call(ids)
        return [
            each[len(row) - len(continuation) - 1 : len(row)]
            for each, row, (_, continuation, _) in zip(logits, rows, batch, strict=True)
        ]


def _judge(scores: Tensor, continuation: Sequence[int]) -> tuple[float, bool]:
    tokens = torch.tensor(continuation, device=scores.device)
    own = scores.gather(1, tokens[:, None]).sum()
    return float(own), bool((scores.argmax(-1) == tokens).all())
