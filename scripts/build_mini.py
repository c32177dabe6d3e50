"""Build the model `mini`, its tokenizer and its SAEs from nothing, and record what came out.

    python scripts/build_mini.py                                   # all of it, into the package
    python scripts/build_mini.py --stage saes --sae-seed 1 --out /tmp/mini-1   # other SAEs for it
    python scripts/build_mini.py --tiny --out /tmp/mini-tiny       # under a minute, for tests

Everything follows from the seeds; another kind of CPU or number of threads changes the last bits.
The recipe is described in docs/mini.md.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import math
import platform
import random
import re
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from torch import Tensor
from transformers import Gemma2Config, Gemma2ForCausalLM, PreTrainedTokenizerFast

from corrsteer.lm.decoding import Decoder, greedy, length_batches
from corrsteer.mini import MODEL_DIR, corpus
from corrsteer.samples import Sample
from corrsteer.scoring.base import score
from corrsteer.scoring.registry import load_scorer

REPOSITORY: Final = Path(__file__).resolve().parents[1]
PAD, BOS, EOS, UNK = SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")
TOKEN: Final = r"[A-D]\.|\n| ?[A-Za-z]+| ?\d+| ?#+| ?[^\sA-Za-z\d#]"
"""One token: an option's letter with its dot, a line break, or a word, number or sign with the
space before it."""


@dataclass(frozen=True)
class Recipe:
    """Every size and rate of a build."""

    steps: int = 3400
    """Optimizer steps of the language model."""
    batch_documents: int = 64
    d_model: int = 128
    layers: int = 6
    d_ff: int = 256
    d_sae: int = 1024
    sae_steps: int = 500
    sae_tokens: int = 400_000
    """Residuals that each SAE is trained on, drawn with replacement."""
    sae_k: int = 16
    """Active latents a token, on average over a batch (BatchTopK)."""
    measure_rows: int | None = None
    """Rows a family that baselines are measured on; None for all of the split."""


TINY: Final = Recipe(
    steps=20,
    d_model=32,
    layers=2,
    d_ff=64,
    d_sae=64,
    sae_steps=20,
    sae_tokens=4000,
    measure_rows=16,
)

HEAD_DIM: Final = 32
MUON_RATE: Final = 0.01
ADAM_RATE: Final = 4e-3
WARM_UP_STEPS: Final = 100
CONSTANT_UNTIL: Final = 0.3
LAST_RATE: Final = 0.02
"""Learning rates fall linearly from 30 % of the steps to 2 % of themselves."""
PROMPT_WEIGHT: Final = 0.1
"""Loss weight of a prompt's token; a reply's is 1."""
BUCKET_BATCHES: Final = 16
"""Documents are sorted by length within so many batches, so that little padding is needed."""
POST_NORM_WEIGHT: Final = -0.7
"""Initial weight of the norms after attention and MLP: a scale of 1 - 0.7. With the default the
letters of answers are never bound."""
SAE_RATE: Final = 2e-3
SAE_BATCH: Final = 2048
SAE_AUXILIARY_K: Final = 64
SAE_AUXILIARY_WEIGHT: Final = 1 / 32
"""Loss weight of dead latents on the residual error, as in Gao et al. (2024), section A.2."""
DEAD_AFTER_STEPS: Final = 20
PROMPT_SHARE: Final = 0.25
"""Share of prompt positions among the SAEs' training residuals that are kept."""
LATE: Final = 0.999
"""Progress of the training whose mixture the SAEs see."""
GATE: Final = 0.9
"""Least accuracy of letter copying and look-up."""


def log(text: str) -> None:
    """Write a progress line to stderr."""
    print(text, file=sys.stderr, flush=True)


# --- tokenizer ------------------------------------------------------------------------------


def vocabulary() -> list[str]:
    """The special tokens, then every token of the rows and of many documents, sorted."""
    texts = list(corpus.row_prompts())
    texts += ["".join(text for text, _ in d) for d in corpus.documents(0, 20_000)]
    tokens = {token for text in texts for token in re.findall(TOKEN, text)}
    tokens |= {f" {number}" for number in range(100)}
    return [*SPECIALS, *sorted(tokens)]


def make_tokenizer(tokens: Sequence[str]) -> PreTrainedTokenizerFast:
    """A word-level tokenizer that loses nothing of texts within its vocabulary."""
    ids = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(TOKEN), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, ids[BOS])]
    )
    tokenizer.no_padding()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNK,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )


# --- documents as tensors -------------------------------------------------------------------


@dataclass(frozen=True)
class Batch:
    """Documents padded on the right; `weight` is the loss weight of predicting each token."""

    ids: Tensor
    attention: Tensor
    weight: Tensor


def encode(document: corpus.Document, ids: dict[str, int]) -> tuple[list[int], list[float]]:
    """Token ids and loss weights of a document between BOS and EOS."""
    tokens, weights = [ids[BOS]], [0.0]
    for text, is_reply in document:
        found = [ids[token] for token in re.findall(TOKEN, text)]
        tokens += found
        weights += [1.0 if is_reply else PROMPT_WEIGHT] * len(found)
    return [*tokens, ids[EOS]], [*weights, weights[-1]]


def pad(documents: Sequence[tuple[list[int], list[float]]], pad_id: int) -> Batch:
    """One batch of encoded documents."""
    width = max(len(tokens) for tokens, _ in documents)
    ids = torch.full((len(documents), width), pad_id)
    weight = torch.zeros(len(documents), width)
    attention = torch.zeros(len(documents), width, dtype=torch.int64)
    for row, (tokens, weights) in enumerate(documents):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        weight[row, : len(tokens)] = torch.tensor(weights)
        attention[row, : len(tokens)] = 1
    return Batch(ids, attention, weight)


def batches(
    documents: Iterator[corpus.Document], ids: dict[str, int], size: int, seed: int
) -> Iterator[Batch]:
    """Batches of documents of like length, in random order within each bucket."""
    rng = random.Random(f"buckets:{seed}")
    while bucket := list(islice(documents, size * BUCKET_BATCHES)):
        encoded = sorted((encode(document, ids) for document in bucket), key=lambda e: len(e[0]))
        starts = list(range(0, len(encoded), size))
        rng.shuffle(starts)
        for start in starts:
            yield pad(encoded[start : start + size], ids[PAD])


# --- language model -------------------------------------------------------------------------


class Muon:
    """Orthogonalised momentum for matrices (Jordan et al. 2024), in float32 and batched by shape.

    torch.optim.Muon does the same in bfloat16, which many CPUs only emulate.
    """

    MOMENTUM: Final = 0.95
    WEIGHT_DECAY: Final = 0.1
    COEFFICIENTS: Final = (3.4445, -4.7750, 2.0315)
    """Of the quintic Newton-Schulz iteration."""
    ITERATIONS: Final = 5

    def __init__(self, matrices: Sequence[Tensor]) -> None:
        self._groups: dict[torch.Size, list[Tensor]] = {}
        for matrix in matrices:
            self._groups.setdefault(matrix.shape, []).append(matrix)
        self._momenta = {
            shape: torch.zeros(len(group), *shape) for shape, group in self._groups.items()
        }

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Move every matrix by its gradient, which is then forgotten."""
        for shape, group in self._groups.items():
            gradient = torch.stack([matrix.grad for matrix in group if matrix.grad is not None])
            momentum = self._momenta[shape].lerp_(gradient, 1 - self.MOMENTUM)
            update = self._orthogonal(gradient.lerp_(momentum, self.MOMENTUM))
            scale = rate * max(1.0, shape[0] / shape[1]) ** 0.5
            for matrix, change in zip(group, update, strict=True):
                matrix.mul_(1 - rate * self.WEIGHT_DECAY).sub_(change, alpha=scale)
                matrix.grad = None

    def _orthogonal(self, matrices: Tensor) -> Tensor:
        tall = matrices.shape[1] > matrices.shape[2]
        x = matrices.mT if tall else matrices
        x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
        a, b, c = self.COEFFICIENTS
        for _ in range(self.ITERATIONS):
            gram = x @ x.mT
            x = a * x + (b * gram + c * gram @ gram) @ x
        update: Tensor = x.mT if tall else x
        return update


def make_model(recipe: Recipe, tokens: Sequence[str]) -> Gemma2ForCausalLM:
    """A small Gemma-2 with an initialisation under which letters are bound early."""
    config = Gemma2Config(
        vocab_size=len(tokens),
        hidden_size=recipe.d_model,
        intermediate_size=recipe.d_ff,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.d_model // HEAD_DIM,
        num_key_value_heads=max(1, recipe.d_model // HEAD_DIM // 2),
        head_dim=HEAD_DIM,
        query_pre_attn_scalar=HEAD_DIM,
        max_position_embeddings=512,
        sliding_window=512,
        tie_word_embeddings=True,
        attn_implementation="eager",
        pad_token_id=SPECIALS.index(PAD),
        bos_token_id=SPECIALS.index(BOS),
        eos_token_id=SPECIALS.index(EOS),
        dtype="float32",
    )
    model = Gemma2ForCausalLM(config)
    with torch.no_grad():
        model.model.embed_tokens.weight.normal_(0, recipe.d_model**-0.5)
        for layer in model.model.layers:
            layer.post_attention_layernorm.weight.fill_(POST_NORM_WEIGHT)
            layer.post_feedforward_layernorm.weight.fill_(POST_NORM_WEIGHT)
    return model


def rate_at(step: int, steps: int) -> float:
    """The share of the full learning rate at a step."""
    progress = step / steps
    falling = (progress - CONSTANT_UNTIL) / (1 - CONSTANT_UNTIL)
    decay = 1 - (1 - LAST_RATE) * max(0.0, falling)
    return min(1.0, (step + 1) / WARM_UP_STEPS) * decay


def loss_of(model: Gemma2ForCausalLM, batch: Batch) -> Tensor:
    """Weighted cross-entropy of the next token, over positions with any weight."""
    hidden = model.model(
        input_ids=batch.ids[:, :-1], attention_mask=batch.attention[:, :-1], use_cache=False
    ).last_hidden_state
    weight = batch.weight[:, 1:]
    counted = weight > 0
    logits = model.lm_head(hidden[counted])
    cap = model.config.final_logit_softcapping
    losses = torch.nn.functional.cross_entropy(
        torch.tanh(logits / cap) * cap, batch.ids[:, 1:][counted], reduction="none"
    )
    return (losses * weight[counted]).sum() / weight.sum()


def train_model(recipe: Recipe, seed: int, tokens: Sequence[str]) -> Gemma2ForCausalLM:
    """The language model, trained from nothing; its weights are exact in float16."""
    torch.manual_seed(seed)
    model = make_model(recipe, tokens)
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for p in model.parameters() if not any(p is matrix for matrix in matrices)]
    muon = Muon(matrices)
    adam = torch.optim.AdamW(others, lr=ADAM_RATE, betas=(0.9, 0.95), weight_decay=0.0)
    ids = {token: index for index, token in enumerate(tokens)}
    stream = corpus.documents(seed, recipe.steps * recipe.batch_documents)
    start, running = time.monotonic(), math.nan
    for step, batch in enumerate(batches(stream, ids, recipe.batch_documents, seed)):
        share = rate_at(step, recipe.steps)
        loss = loss_of(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(others, 1.0)
        muon.step(MUON_RATE * share)
        adam.param_groups[0]["lr"] = ADAM_RATE * share
        adam.step()
        adam.zero_grad()
        running = loss.item() if step == 0 else 0.98 * running + 0.02 * loss.item()
        if step % 100 == 99 or step + 1 == recipe.steps:
            seconds = time.monotonic() - start
            log(f"model: step {step + 1}/{recipe.steps}, loss {running:.3f}, {seconds:.0f} s")
    return to_half_precision(model.eval())


def to_half_precision(model: Gemma2ForCausalLM) -> Gemma2ForCausalLM:
    """The model with every weight rounded to the nearest float16, kept in float32."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.half().float())
    return model


def save_model(model: Gemma2ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write model and tokenizer; weights in float16, which loses nothing of them."""
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    stored = {
        name: parameter.detach().half().contiguous() for name, parameter in model.named_parameters()
    }
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})


# --- SAEs -----------------------------------------------------------------------------------


@dataclass
class SAEWeights:
    """A sparse autoencoder z = JumpReLU((x - b_dec) W_enc + b_enc), x' = z W_dec + b_dec."""

    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor
    threshold: Tensor

    def parameters(self) -> list[Tensor]:
        """What is trained."""
        return [self.W_enc, self.b_enc, self.W_dec, self.b_dec]

    def before(self, x: Tensor) -> Tensor:
        """Activations before the threshold, none negative."""
        return torch.relu((x - self.b_dec) @ self.W_enc + self.b_enc)

    def encode(self, x: Tensor) -> Tensor:
        """Activations of the latents."""
        z = self.before(x)
        return z * (z > self.threshold)


def residuals_of(model: Gemma2ForCausalLM, batch: Batch) -> list[Tensor]:
    """resid_post of every layer, [batch pos d_model] each."""
    found: list[Tensor] = []
    hooks = [
        layer.register_forward_hook(lambda _module, _args, output: found.append(as_tensor(output)))
        for layer in model.model.layers
    ]
    try:
        model.model(input_ids=batch.ids, attention_mask=batch.attention, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def as_tensor(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    """A block's hidden states, which some versions of transformers return in a tuple."""
    return output[0] if isinstance(output, tuple) else output


@torch.no_grad()
def collect_residuals(
    model: Gemma2ForCausalLM, tokens: Sequence[str], recipe: Recipe, seed: int
) -> list[Tensor]:
    """resid_post of every layer on late documents: all reply positions, some of the prompts'."""
    ids = {token: index for index, token in enumerate(tokens)}
    rng = random.Random(f"sae documents:{seed}")
    mixture = corpus.documents_at(LATE, rng)
    generator = torch.Generator().manual_seed(seed)
    kept: list[list[Tensor]] = [[] for _ in range(recipe.layers)]
    total = 0
    for batch in batches(mixture, ids, recipe.batch_documents, seed):
        hidden = residuals_of(model, batch)
        predicts = torch.zeros_like(batch.weight)
        predicts[:, :-1] = batch.weight[:, 1:]
        chance = torch.rand(predicts.shape, generator=generator) < PROMPT_SHARE
        wanted = (predicts == 1) | (chance & (batch.weight > 0))
        for layer in range(recipe.layers):
            kept[layer].append(hidden[layer][wanted])
        total += int(wanted.sum())
        if total >= recipe.sae_tokens:
            break
    return [torch.cat(parts) for parts in kept]


def train_sae(residuals: Tensor, recipe: Recipe, seed: int, layer: int) -> SAEWeights:
    """A BatchTopK autoencoder (Bussmann et al. 2024) of these residuals, with one threshold."""
    generator = torch.Generator().manual_seed(1000 * seed + layer)
    mean, d_model = residuals.mean(0), residuals.shape[1]
    scale = (residuals - mean).square().sum(1).mean().div(d_model).sqrt()
    data = (residuals - mean) / scale
    directions = torch.randn(recipe.d_sae, d_model, generator=generator)
    directions = directions / directions.norm(dim=1, keepdim=True)
    sae = SAEWeights(
        W_enc=directions.T.clone(),
        b_enc=torch.zeros(recipe.d_sae),
        W_dec=directions.clone(),
        b_dec=torch.zeros(d_model),
        threshold=torch.zeros(recipe.d_sae),
    )
    for parameter in sae.parameters():
        parameter.requires_grad_()
    adam = torch.optim.Adam(sae.parameters(), lr=SAE_RATE, betas=(0.9, 0.99))
    idle, lowest = torch.zeros(recipe.d_sae), math.nan
    for step in range(recipe.sae_steps):
        x = data[torch.randint(len(data), (SAE_BATCH,), generator=generator)]
        adam.param_groups[0]["lr"] = SAE_RATE * min(1.0, 2 * (1 - step / recipe.sae_steps))
        loss, active, least = sae_loss(sae, x, recipe.sae_k, idle >= DEAD_AFTER_STEPS)
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
        adam.zero_grad()
        with torch.no_grad():
            sae.W_dec /= sae.W_dec.norm(dim=1, keepdim=True)
        idle = torch.where(active, 0, idle + 1)
        lowest = least if math.isnan(lowest) else 0.95 * lowest + 0.05 * least
    return fold(sae, lowest, mean, scale)


def sae_loss(sae: SAEWeights, x: Tensor, k: int, dead: Tensor) -> tuple[Tensor, Tensor, float]:
    """The loss, which latents were active, and the smallest activation that was kept."""
    before = sae.before(x)
    least = before.flatten().topk(k * len(x)).values[-1].item()
    z = before * (before >= max(least, 1e-8))
    error = x - z @ sae.W_dec - sae.b_dec
    loss = error.square().mean()
    if dead.any():
        revived = before * dead
        k_auxiliary = min(SAE_AUXILIARY_K, int(dead.sum()))
        values, chosen = revived.topk(k_auxiliary, dim=1)
        auxiliary = torch.zeros_like(revived).scatter(1, chosen, values) @ sae.W_dec
        loss = loss + SAE_AUXILIARY_WEIGHT * (error.detach() - auxiliary).square().mean()
    return loss, (z > 0).any(0), least


@torch.no_grad()
def fold(sae: SAEWeights, threshold: float, mean: Tensor, scale: Tensor) -> SAEWeights:
    """The same SAE for residuals as they are, exact in float16; decoder rows keep unit norm."""
    folded = SAEWeights(
        W_enc=sae.W_enc.detach().clone(),
        b_enc=sae.b_enc * scale,
        W_dec=sae.W_dec.detach().clone(),
        b_dec=sae.b_dec * scale + mean,
        threshold=torch.full_like(sae.threshold, threshold) * scale,
    )
    return SAEWeights(*(tensor.half().float() for tensor in vars(folded).values()))


@dataclass(frozen=True)
class SAEQuality:
    """How well an SAE does on held-out residuals.

    Attributes:
        fvu: fraction of variance unexplained.
        l0: mean number of active latents.
        dead: latents that never were active.
    """

    fvu: float
    l0: float
    dead: int


@torch.no_grad()
def quality(sae: SAEWeights, residuals: Tensor) -> SAEQuality:
    """Measure an SAE on residuals."""
    z = sae.encode(residuals)
    error = (residuals - z @ sae.W_dec - sae.b_dec).square().sum()
    variance = (residuals - residuals.mean(0)).square().sum()
    return SAEQuality(
        fvu=round(float(error / variance), 4),
        l0=round(float((z > 0).sum(1).float().mean()), 2),
        dead=int((~(z > 0).any(0)).sum()),
    )


def save_sae(sae: SAEWeights, layer: int, folder: Path) -> None:
    """Write one SAE in sae-lens's format; weights in float16, which loses nothing of them."""
    folder.mkdir(parents=True, exist_ok=True)
    d_model, d_sae = sae.W_enc.shape
    config = {
        "architecture": "jumprelu",
        "d_in": d_model,
        "d_sae": d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "model_name": "mini",
            "hook_name": f"blocks.{layer}.hook_resid_post",
            "hook_head_index": None,
            "prepend_bos": True,
            "context_size": 64,
            "sae_lens_version": version("sae-lens"),
        },
    }
    (folder / "cfg.json").write_text(json.dumps(config, indent=2) + "\n")
    stored = {name: tensor.half().contiguous() for name, tensor in vars(sae).items()}
    save_file(stored, folder / "sae_weights.safetensors")


def build_saes(
    model: Gemma2ForCausalLM, tokens: Sequence[str], recipe: Recipe, seed: int, folder: Path
) -> list[SAEQuality]:
    """Train and write the SAEs of all layers; their quality on residuals not trained on."""
    train = collect_residuals(model, tokens, recipe, seed)
    held_out = collect_residuals(
        model, tokens, replace(recipe, sae_tokens=recipe.sae_tokens // 10), seed + 1
    )
    found = []
    for layer in range(recipe.layers):
        sae = train_sae(train[layer], recipe, seed, layer)
        save_sae(sae, layer, folder / f"layer_{layer}")
        found.append(quality(sae, held_out[layer]))
        log(f"saes: layer {layer}, {found[-1]}")
    return found


# --- measuring and recording ----------------------------------------------------------------


def baseline(
    model: Gemma2ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    name: str,
    split: corpus.Split,
    limit: int | None = None,
) -> float:
    """Greedy accuracy of the unsteered model on a split of a family or probe."""
    rows = corpus.rows(name)[split][:limit]
    scorer = load_scorer(rows[0].scorer)
    prompts = [tokenizer(row.prompt)["input_ids"] for row in rows]
    pad_id, eos_id = SPECIALS.index(PAD), SPECIALS.index(EOS)
    decoder = Decoder(model, pad_id, frozenset({eos_id}))
    total = 0.0
    for batch in length_batches([len(prompt) for prompt in prompts], 100):
        replies = greedy(decoder, [prompts[i] for i in batch], rows[0].max_new_tokens)
        for index, reply in zip(batch, replies, strict=True):
            row = rows[index]
            target = (row.target,) if isinstance(row.target, str) else row.target
            sample = Sample(row.id, row.prompt, target, row.choices)
            total += score(scorer, tokenizer.decode(reply), sample).outcome or 0.0
    return total / len(rows)


@dataclass(frozen=True)
class Gates:
    """What the model must be able to do before its failures mean anything.

    Attributes:
        copy: accuracy of giving back a letter.
        lookup: accuracy of finding a word's letter.
    """

    copy: float
    lookup: float

    @property
    def passed(self) -> bool:
        """Whether both are above `GATE`."""
        return min(self.copy, self.lookup) > GATE


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of model and SAEs, by path."""
    files = sorted(path for part in PARTS for path in (folder / part).rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def measure(
    model: Gemma2ForCausalLM, tokenizer: PreTrainedTokenizerFast, limit: int | None
) -> dict[str, Any]:
    """Test baselines of every family and probe, and the gates."""
    found: dict[str, float] = {}
    for name in corpus.FAMILIES + corpus.PROBES:
        found[name] = round(baseline(model, tokenizer, name, "test", limit), 4)
        log(f"measure: {name} {found[name]:.3f}")
    gates = Gates(found["probe-copy"], found["probe-lookup"])
    log(f"gates: {gates}, {'passed' if gates.passed else 'NOT passed'} (above {GATE})")
    return {"baselines": found, "gates": {**asdict(gates), "passed": gates.passed}}


# --- the build ------------------------------------------------------------------------------

PARTS: Final = ("model", "saes")


@contextlib.contextmanager
def staging(out: Path) -> Iterator[Path]:
    """A folder whose parts replace those of `out` once the block has ended without an error."""
    folder = out / ".building"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
        for part in (part for part in PARTS if (folder / part).exists()):
            shutil.rmtree(out / part, ignore_errors=True)
            (folder / part).rename(out / part)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def load_built(folder: Path) -> tuple[Gemma2ForCausalLM, PreTrainedTokenizerFast, list[str]]:
    """A model built before, its tokenizer, and the tokens by id."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    model = Gemma2ForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    by_id = sorted(tokenizer.get_vocab().items(), key=lambda pair: pair[1])
    return model.eval(), tokenizer, [token for token, _ in by_id]


def build(arguments: argparse.Namespace, recipe: Recipe) -> dict[str, Any]:
    """Run the stages asked for; what is to be recorded of them."""
    out, seconds, found = arguments.out, {}, dict[str, Any]()
    clock = time.monotonic()
    with staging(out) as folder:
        if arguments.stage in ("all", "model"):
            tokens = vocabulary()
            tokenizer = make_tokenizer(tokens)
            log(f"tokenizer: {len(tokens)} tokens")
            model = train_model(recipe, arguments.seed, tokens)
            save_model(model, tokenizer, folder / "model")
            seconds["model"] = round(time.monotonic() - clock)
            found |= {"seed": arguments.seed, "parameters": model.num_parameters()}
            found |= measure(model, tokenizer, recipe.measure_rows)
        else:
            model, _, tokens = load_built(arguments.model)
        clock = time.monotonic()
        if arguments.stage in ("all", "saes"):
            qualities = build_saes(model, tokens, recipe, arguments.sae_seed, folder / "saes")
            found |= {"sae_seed": arguments.sae_seed, "saes": [asdict(q) for q in qualities]}
            seconds["saes"] = round(time.monotonic() - clock)
    return {**found, "seconds": seconds}


def record(
    path: Path, found: dict[str, Any], arguments: argparse.Namespace, recipe: Recipe
) -> None:
    """Write what was built, how and with what; a stage's record joins the other stage's."""
    before = json.loads(path.read_text()) if path.exists() and arguments.stage != "all" else {}
    packages = ("torch", "transformers", "tokenizers", "safetensors", "sae-lens")
    content = {
        **before,
        **found,
        "schema": "corrsteer.mini/1",
        "command": "python scripts/build_mini.py",
        "seconds": {**before.get("seconds", {}), **found["seconds"]},
        "recipe": asdict(recipe),
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in packages},
        },
        "rows": {name: corpus.fingerprint(name) for name in corpus.FAMILIES + corpus.PROBES},
        "files": hashes(arguments.out),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    package = MODEL_DIR.parent
    add = parser.add_argument
    add("--out", type=Path, default=package, help="folder for model/ and saes/ (the package)")
    add("--model", type=Path, default=MODEL_DIR, help="model that --stage saes is for")
    add("--stage", choices=("all", "model", "saes"), default="all")
    add("--seed", type=int, default=0, help="of the model and its documents")
    add("--sae-seed", type=int, default=0, help="of the SAEs and their documents")
    add("--steps", type=int, help=f"training steps of the model ({Recipe.steps})")
    add("--threads", type=int, default=2, help="CPU threads; another number changes last bits")
    add("--tiny", action="store_true", help="a scaled-down build that learns nothing, for tests")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Build, record, and return 0, or 1 if a full-size model does not pass the gates."""
    parsed = parse(arguments)
    torch.set_num_threads(parsed.threads)
    recipe = TINY if parsed.tiny else Recipe()
    if parsed.steps is not None:
        recipe = replace(recipe, steps=parsed.steps)
    found = build(parsed, recipe)
    in_package = parsed.out.resolve() == MODEL_DIR.parent
    path = REPOSITORY / "docs" / "mini.json" if in_package else parsed.out / "mini.json"
    record(path, found, parsed, recipe)
    log(f"recorded in {path}")
    passed = "gates" not in found or found["gates"]["passed"] or parsed.tiny
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
