"""One SAE, by sae-lens's own training classes.

Changes when SAEs are trained in another way. sae-lens's runner streams its own data sets through
its own copy of a model; here its trainer is given residuals that are in memory already.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from corrsteer.files import write_whole
from corrsteer.hook_points import HookPoint
from corrsteer.progress import Advance


@dataclass(frozen=True)
class Updates:
    """How the weights are updated.

    Attributes:
        batch: positions of one update.
        learning_rate: the highest.
        warmup, decay: shares of all updates over which the rate rises to that, and falls to 0.
    """

    batch: int = 512
    learning_rate: float = 1e-3
    warmup: float = 0.05
    decay: float = 0.3


UPDATES = Updates()


@dataclass(frozen=True)
class DictionarySettings:
    """How one SAE is trained.

    Attributes:
        model: that it says it was trained on.
        hook_point: where it is read.
        d_sae: number of its latents.
        k: latents that are active at a position, on average.
        epochs: passes over the residuals.
        seed: of its first weights, and of the order of residuals.
    """

    model: str
    hook_point: HookPoint
    d_sae: int
    k: int
    epochs: int
    seed: int


def train_dictionary(
    residuals: Float[Tensor, "rows d_model"],
    settings: DictionarySettings,
    device: torch.device,
    advance: Advance,
) -> Any:
    """A BatchTopK SAE of sae-lens (Bussmann, Leask & Nanda, arXiv 2412.06410).

    It is trained on residuals of mean norm sqrt(d_model), and that scale is folded in at the end.
    Its threshold is then set as the paper has it (equation 7): to the mean over all batches of the
    smallest activation that is kept. sae-lens's own moving average has not settled after so few
    updates.

    Args:
        residuals: in main memory.
        settings: how.
        device: where it is trained.
        advance: told of updates of the weights.
    """
    size = min(UPDATES.batch, len(residuals))
    steps = settings.epochs * (len(residuals) // size)
    mean, scale = residuals.mean(0), _scale(residuals)
    trainer = _trainer(mean * scale, settings, device, size, steps)
    trainer.activation_scaler.scaling_factor = scale
    order = torch.Generator().manual_seed(settings.seed)
    for _ in range(settings.epochs):
        shuffled = torch.randperm(len(residuals), generator=order)
        for batch in torch.split(shuffled[: len(shuffled) // size * size], size):
            trainer.step(residuals[batch])
            trainer.n_training_steps += 1
            advance(1)
    sae = trainer.sae.eval()
    sae.fold_activation_norm_scaling_factor(scale)
    sae.topk_threshold = _threshold(sae, torch.split(residuals, size), device)
    return sae


def _scale(residuals: Float[Tensor, "rows d_model"]) -> float:
    """What makes the mean norm sqrt(d_model)."""
    return float(residuals.shape[1] ** 0.5 / residuals.norm(dim=1).mean().clamp(min=1e-12))


def _trainer(
    bias: Float[Tensor, " d_model"],
    settings: DictionarySettings,
    device: torch.device,
    batch_size: int,
    steps: int,
) -> Any:
    """sae-lens's trainer of an SAE whose `b_dec` begins as the mean of the scaled residuals."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # third-party deprecations at import
        from sae_lens import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
        from sae_lens.config import SAETrainerConfig
        from sae_lens.saes.sae import SAEMetadata
        from sae_lens.training.sae_trainer import SAETrainer

    config = BatchTopKTrainingSAEConfig(
        d_in=len(bias),
        d_sae=settings.d_sae,
        k=float(settings.k),
        device=str(device),
        normalize_activations="expected_average_only_in",
        metadata=SAEMetadata(model_name=settings.model, hook_name=settings.hook_point.name),
    )
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        sae = BatchTopKTrainingSAE(config)
    sae.b_dec.data.copy_(bias)
    warmup, decay = (max(2, int(share * steps)) for share in (UPDATES.warmup, UPDATES.decay))
    how = SAETrainerConfig(
        total_training_samples=batch_size * steps,
        train_batch_size_samples=batch_size,
        lr=UPDATES.learning_rate,
        lr_end=UPDATES.learning_rate,
        lr_warm_up_steps=warmup if steps > warmup + decay else 0,
        lr_decay_steps=decay if steps > warmup + decay else 0,
        device=str(device),
        dead_feature_window=max(1, steps // settings.epochs),
    )
    return SAETrainer(how, sae, data_provider=iter(()))


@torch.no_grad()
def _threshold(sae: Any, batches: tuple[Tensor, ...], device: torch.device) -> Tensor:
    smallest = []
    for batch in batches:
        kept = sae.encode(batch.to(device))
        if (kept > 0).any():
            smallest.append(kept[kept > 0].min().double())
    return torch.stack(smallest).mean()


def save_dictionary(sae: Any, folder: Path) -> None:
    """Write it as the JumpReLU SAE that it is at inference, in sae-lens's format.

    sae-lens writes the configuration in the order of a hash that each process draws anew.
    """
    sae.cfg.device = "cpu"
    _, config = sae.save_inference_model(folder)
    told = json.loads(config.read_text(encoding="utf-8"))
    write_whole(config, json.dumps(told, indent=2, sort_keys=True) + "\n")


def read_dictionary(folder: Path, device: torch.device) -> Any:
    """The SAE that was written, by sae-lens."""
    from sae_lens import SAE

    return SAE.load_from_disk(folder, device=str(device)).requires_grad_(False)
