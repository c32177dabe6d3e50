"""The check that a consumer, run for real, does with an exported steering what CorrSteer does.

Changes when another thing is compared. The reference is transformers' own `generate` under our
hooks, one prompt at a time, in float32 on the CPU, at the positions where the consumer steers.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from corrsteer.errors import ConsumerError
from corrsteer.export import Consumer, render, write
from corrsteer.files import expanded
from corrsteer.lm.known_models import canonical_name
from corrsteer.lm.models import LanguageModel
from corrsteer.runs.steer import steer
from corrsteer.runs.steering import Steering
from corrsteer.settings import Positions

TOLERANCES = {"gemma2": 2e-3, "gemma3_text": 2e-3}
"""Largest difference of float32 logits that is rounding, by the model's type: Gemma scales its
embeddings by sqrt(d_model) and caps logits, so that rounding grows."""
TOLERANCE = 1e-4
NOT_INSTALLED = 3
"""Exit code of a probe without its consumer."""


@dataclass(frozen=True)
class Finding:
    """One check: what the consumer does beside the reference.

    Attributes:
        check: how the consumer is run.
        scope: the positions at which it steers.
        tokens: generated tokens whose logits were compared.
        max_difference: largest difference of a logit.
        likelihood_difference: of the log-likelihood of its own reply; None where it gives none.
        same_text: whether all greedy replies are the same tokens.
        effect: largest difference that steering itself makes to the first logits.
        scope_effect: largest difference between this scope and the steering's own there.
        passed: both differences are within the tolerance, the text is the same, and steering does
            more than the tolerance, so that a consumer which does not steer would be found out.
    """

    check: str
    scope: Positions
    tokens: int
    max_difference: float
    likelihood_difference: float | None
    same_text: bool
    effect: float
    scope_effect: float
    passed: bool


@dataclass(frozen=True)
class Verification:
    """All checks of one consumer.

    Attributes:
        consumer: its name.
        version: of the program that ran.
        tolerance: see `TOLERANCES`.
        prompts: how many there were.
        notes: what is not as in the run.
        findings: a check each.
    """

    consumer: str
    version: str
    tolerance: float
    prompts: int
    notes: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Whether every check did."""
        return all(finding.passed for finding in self.findings)


@dataclass(frozen=True)
class ConsumerReply:
    """A greedy reply: its tokens, and the logits that chose each; [tokens, vocabulary]."""

    tokens: NDArray[np.int64]
    logits: NDArray[np.float32]


@dataclass(frozen=True)
class Installation:
    """Where a consumer runs.

    Attributes:
        python: one that has the consumer.
        model_path: the model in the consumer's own format, where it needs one.
    """

    python: str = sys.executable
    model_path: str | None = None


def verify(
    lm: LanguageModel,
    steering: Steering,
    consumer: Consumer,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int = 16,
    installation: Installation | None = None,
    drop_block_0: bool = False,
    tolerance: float | None = None,
) -> Verification:
    """What a consumer does with a steering, beside what we do with it.

    Args:
        lm: the model, in float32 on the CPU.
        steering: at its own strength.
        consumer: what is run.
        prompts: token ids.
        max_new_tokens: longest reply; fewer where the model has no more positions.
        installation: where the consumer runs; in this Python if None.
        drop_block_0: see `Consumer.render`.
        tolerance: by the model's type if None.

    Raises:
        ConsumerError: it cannot take the steering, is not installed, or fails.
    """
    installation = installation or Installation()
    model_path = installation.model_path
    if consumer.takes_model_path and model_path is None:
        raise ConsumerError(f"{consumer.name} needs the model in its own format; give --model-path")
    model_path = None if model_path is None else str(expanded(model_path))
    if model_path is not None and not Path(model_path).is_file():
        raise ConsumerError(f"no model at {model_path!r}; expected a file for --model-path")
    exported = render(consumer, steering, drop_block_0)
    asked = max_new_tokens
    max_new_tokens = min(lm.decoder.room(prompt, asked) for prompt in prompts)
    if max_new_tokens < asked:
        note = f"replies of {max_new_tokens} tokens are compared: no more fit behind a prompt"
        exported = replace(exported, notes=(*exported.notes, note))
    scopes = [scope or steering.positions for scope in consumer.checks.values()]
    with TemporaryDirectory() as name:
        folder = Path(name)
        write(exported, folder / f"exported{consumer.suffix}")
        request = {
            "model": canonical_name(lm.id),
            "revision": lm.revision,
            "model_path": model_path,
            "file": str(folder / f"exported{consumer.suffix}"),
            "steering": str(steering.save(folder)),
            "scopes": scopes,
            "prompts": [list(prompt) for prompt in prompts],
            "max_new_tokens": max_new_tokens,
            "eos": sorted(lm.decoder.eos_ids),
        }
        found = _run_probe(consumer, installation.python, request, folder)
    if tolerance is None:
        kind = lm.model.config.get_text_config().model_type
        tolerance = (TOLERANCES | dict(consumer.tolerances)).get(kind, TOLERANCE)
    own = _replies(lm, exported.steering, steering.positions, prompts, 1)
    plain = _replies(lm, exported.steering.at(0.0), "all", prompts, 1)
    findings = tuple(
        _compare(
            check,
            scope,
            _replies(lm, exported.steering, scope, prompts, max_new_tokens),
            [_read(found, number, index) for index in range(len(prompts))],
            own,
            plain,
            tolerance,
        )
        for number, (check, scope) in enumerate(zip(consumer.checks, scopes, strict=True))
    )
    return Verification(
        consumer.name,
        str(found["version"]),
        tolerance,
        len(prompts),
        exported.notes,
        findings,
    )


def _run_probe(
    consumer: Consumer, python: str, request: Mapping[str, Any], folder: Path
) -> dict[str, NDArray[Any]]:
    """The arrays that the consumer's probe wrote."""
    (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
    probe = Path(__file__).with_name("probes") / consumer.probe
    out = folder / "out.npz"
    try:
        done = subprocess.run(
            [str(expanded(python)), str(probe), str(folder / "request.json"), str(out)],
            capture_output=True,
            text=True,
            env={**os.environ, "TOKENIZERS_PARALLELISM": "false"},
        )
    except OSError as error:
        raise ConsumerError(f"cannot run --python {python!r}: {error.strerror}") from error
    reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
    if done.returncode == NOT_INSTALLED:
        remedy = f"make {consumer.install}, then " if consumer.install else ""
        raise ConsumerError(
            f"{consumer.name} is not installed in {python} ({reason}); {remedy}give --python one "
            "that has it"
        )
    if done.returncode or not out.exists():
        raise ConsumerError(f"{consumer.name} failed ({reason}); try it by hand with the export")
    with np.load(out, allow_pickle=False) as arrays:
        return dict(arrays)


def _read(
    found: Mapping[str, NDArray[Any]], check: int, index: int
) -> tuple[ConsumerReply, float | None]:
    """What a probe wrote for a check and prompt: the reply, and its likelihood if it gave one."""
    of = f"{check}/{index}/"
    likelihood = found.get(of + "likelihood")
    reply = ConsumerReply(
        found[of + "tokens"].astype(np.int64), found[of + "logits"].astype(np.float32)
    )
    return reply, None if likelihood is None else float(likelihood)


@torch.inference_mode()
def _replies(
    lm: LanguageModel,
    steering: Steering,
    scope: Positions,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
) -> list[ConsumerReply]:
    """The reference."""
    replies = []
    with steer(lm, replace(steering, positions=scope)):
        for prompt in prompts:
            ids = torch.tensor([list(prompt)], device=lm.device)
            said = lm.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                eos_token_id=sorted(lm.decoder.eos_ids) or None,
                pad_token_id=lm.decoder.pad_id,
                output_logits=True,
                return_dict_in_generate=True,
            )
            tokens = said.sequences[0, len(prompt) :].cpu().numpy()
            replies.append(ConsumerReply(tokens, torch.cat(said.logits).float().cpu().numpy()))
    return replies


def _compare(
    check: str,
    scope: Positions,
    expected: Sequence[ConsumerReply],
    found: Sequence[tuple[ConsumerReply, float | None]],
    own: Sequence[ConsumerReply],
    plain: Sequence[ConsumerReply],
    tolerance: float,
) -> Finding:
    """The finding of one check; logits are compared as far as both were given the same tokens."""
    differences, likelihoods, tokens = [], [], 0
    for ours, (theirs, likelihood) in zip(expected, found, strict=True):
        shortest = min(len(ours.tokens), len(theirs.tokens))
        differ = np.flatnonzero(ours.tokens[:shortest] != theirs.tokens[:shortest])
        alike = int(differ[0]) + 1 if len(differ) else shortest
        differences.append(_largest(ours.logits[:alike], theirs.logits[:alike]))
        tokens += alike
        if likelihood is not None and not len(differ):
            likelihoods.append(abs(likelihood - _likelihood(ours)))
    same_text = all(
        np.array_equal(ours.tokens, theirs.tokens)
        for ours, (theirs, _) in zip(expected, found, strict=True)
    )
    effect = max(_first(a, b) for a, b in zip(expected, plain, strict=True))
    worst = max(differences)
    likelihood_difference = max(likelihoods) if likelihoods else None
    within = worst <= tolerance and (likelihood_difference or 0.0) <= tolerance * tokens
    return Finding(
        check=check,
        scope=scope,
        tokens=tokens,
        max_difference=worst,
        likelihood_difference=likelihood_difference,
        same_text=same_text,
        effect=effect,
        scope_effect=max(_first(a, b) for a, b in zip(expected, own, strict=True)),
        passed=within and same_text and effect > tolerance,
    )


def _first(one: ConsumerReply, other: ConsumerReply) -> float:
    return _largest(one.logits[:1], other.logits[:1])


def _largest(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """The largest difference; infinite where one is not a number."""
    if one.shape != other.shape:
        return float("inf")
    difference = np.abs(one.astype(np.float64) - other.astype(np.float64))
    return float(difference.max()) if np.isfinite(difference).all() else float("inf")


def _likelihood(reply: ConsumerReply) -> float:
    scores = torch.log_softmax(torch.from_numpy(reply.logits).double(), -1)
    return float(scores.gather(1, torch.from_numpy(reply.tokens)[:, None]).sum())
