"""A model with SAEs of random weights, of any size, for timings: no weights need be downloaded.

Shapes are those of Gemma-2 (`--architecture gemma2`) or Llama; the tokenizer is the built-in
model's. SAEs are sae-lens's own JumpReLU class, with thresholds at which about `active` of their
latents are active.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoTokenizer,
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from corrsteer.hook_points import HookPoint
from corrsteer.lm.models import LanguageModel
from corrsteer.lm.saes import LensSAE, SAEHandle
from corrsteer.mini import MODEL_DIR
from corrsteer.samples import Sample
from corrsteer.scoring.registry import load_scorer
from corrsteer.tasks import Task

CLASSES: dict[str, tuple[Any, Any]] = {
    "gemma2": (Gemma2Config, Gemma2ForCausalLM),
    "llama": (LlamaConfig, LlamaForCausalLM),
}


@dataclass(frozen=True)
class Shape:
    """Sizes of a model and its SAEs; the defaults are those of the README's table."""

    architecture: str = "gemma2"
    layers: int = 12
    d_model: int = 512
    d_ff: int = 2048
    heads: int = 8
    kv_heads: int = 4
    vocabulary: int = 8192
    d_sae: int = 8192
    active: float = 0.01

    @classmethod
    def add_to(cls, parser: argparse.ArgumentParser) -> None:
        """Options for every size."""
        parser.add_argument("--architecture", choices=tuple(CLASSES), default=cls.architecture)
        for name in ("layers", "d_model", "d_ff", "heads", "kv_heads", "vocabulary", "d_sae"):
            parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(cls, name))
        parser.add_argument("--device", default="cpu")
        parser.add_argument("--dtype", default="float32")
        parser.add_argument("--threads", type=int, default=2)

    @classmethod
    def of(cls, options: argparse.Namespace) -> Shape:
        """The sizes that the options give."""
        names = ("layers", "d_model", "d_ff", "heads", "kv_heads", "vocabulary", "d_sae")
        torch.set_num_threads(options.threads)
        return cls(options.architecture, **{name: getattr(options, name) for name in names})


def make_model(shape: Shape, device: str = "cpu", dtype: str = "float32") -> LanguageModel:
    """The model with handles to its SAEs. It never says EOS, so replies have their full length."""
    torch.manual_seed(0)
    configuration, model_class = CLASSES[shape.architecture]
    config = configuration(
        vocab_size=shape.vocabulary,
        hidden_size=shape.d_model,
        intermediate_size=shape.d_ff,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.d_model // shape.heads,
        max_position_embeddings=8192,
        bos_token_id=1,
        eos_token_id=None,
        pad_token_id=0,
    )
    with torch.device(device):
        model = model_class(config).to(getattr(torch, dtype)).eval().requires_grad_(False)
    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)
    tokenizer.eos_token = None
    lm = LanguageModel(model, tokenizer, "random")
    lm.saes = [_handle(shape, layer, lm) for layer in range(shape.layers)]
    return lm


def _handle(shape: Shape, layer: int, lm: LanguageModel) -> SAEHandle:
    def read(device: str) -> Any:
        from sae_lens import JumpReLUSAE, JumpReLUSAEConfig

        sae = JumpReLUSAE(
            JumpReLUSAEConfig(
                d_in=shape.d_model,
                d_sae=shape.d_sae,
                dtype="float32",
                device=device,
                apply_b_dec_to_input=False,
            )
        )
        generator = torch.Generator(device).manual_seed(layer)
        with torch.no_grad():
            sae.W_enc.normal_(0, shape.d_model**-0.5, generator=generator)
            sae.W_dec.copy_(sae.W_enc.T)
            # before it, a latent is N(0, rms of the residual)
            quantile = statistics.NormalDist().inv_cdf(1 - shape.active)
            sae.threshold.fill_(quantile * _rms(lm, layer))
        return sae

    return SAEHandle(
        layer=layer,
        hook_point=HookPoint(layer, "resid_post"),
        source=f"random {layer}",
        load=lambda device, residuals=None: LensSAE(f"random {layer}", read, device, residuals),
        decoder_rows=lambda latents: read("cpu").W_dec.detach()[list(latents)].float(),
    )


def _rms(lm: LanguageModel, layer: int) -> float:
    """Root mean square of the residual after a block, on some tokens."""
    ids = torch.arange(10, 74, device=lm.device)[None]
    with torch.no_grad():
        hidden = lm.model(ids, output_hidden_states=True).hidden_states[layer + 1]
    return float(hidden[0, 1:].float().square().mean().sqrt())


def make_task(samples: int, prompt: int, new_tokens: int, seed: int = 0) -> Task:
    """Random prompts of that many tokens (BOS included), right by the parity of the first word."""
    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)
    words = [word for word in tokenizer.get_vocab() if word.startswith(" ") and word[1:].isalpha()]
    rng = random.Random(seed)
    rows = tuple(
        Sample(str(index), "".join(rng.choices(sorted(words), k=prompt - 1)))
        for index in range(samples)
    )
    return Task("random", rows, rows, rows, load_scorer(r"regex:^\s*[a-m]"), new_tokens)


def prompt_ids(lm: LanguageModel, task: Task) -> list[list[int]]:
    """Token ids of the task's fit prompts."""
    return [lm.prompt_ids(sample) for sample in task.fit]


def generate_plainly(lm: LanguageModel, prompts: Sequence[list[int]], size: int, new: int) -> None:
    """The library's own greedy generation over batches of prompts of one length."""
    for start in range(0, len(prompts), size):
        ids = torch.tensor(prompts[start : start + size], device=lm.device)
        lm.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new,
            min_new_tokens=new,
            do_sample=False,
        )


def alternately(rounds: int, sides: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median seconds of each side, run in turn so that a busy machine slows them alike."""
    for side in sides.values():
        side()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            start = time.perf_counter()
            side()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def as_tensor(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    """A block's hidden states, which some versions of transformers return in a tuple."""
    return output[0] if isinstance(output, tuple) else output
