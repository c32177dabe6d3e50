"""SAEs for some layers of a model: texts, residuals, training, quality, a folder.

Changes when a step is added, or what is written changes.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from corrsteer.errors import DataError
from corrsteer.execution.checkpoint import Checkpoint, unfinished
from corrsteer.files import check_free, whole_folder, write_whole
from corrsteer.hook_points import HookPoint
from corrsteer.json_text import to_json
from corrsteer.lm.known_models import hub_id
from corrsteer.lm.models import LanguageModel
from corrsteer.lm.texts import Documents, residuals_at
from corrsteer.progress import SILENT, Progress
from corrsteer.sae_training.dictionary import (
    UPDATES,
    DictionarySettings,
    read_dictionary,
    save_dictionary,
    train_dictionary,
)
from corrsteer.sae_training.documents import (
    HELD_OUT,
    Piece,
    Pieces,
    TextSource,
    documents_of,
    pieces_of,
    with_replies,
)
from corrsteer.sae_training.quality import SAEQuality, quality_of
from corrsteer.sae_training.settings import SAESettings

QUALITY_FILE = "quality.json"
SCHEMA = "corrsteer.sae-quality/1"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class QualityCard:
    """What was trained, and what it is worth.

    Attributes:
        model: the model's name.
        latents: of each SAE.
        settings: of the training.
        trained, held_out: positions that were trained on, and measured on.
        saes: the quality of each SAE, in the order of layers.
    """

    model: str
    latents: int
    settings: SAESettings
    trained: int
    held_out: int
    saes: Sequence[SAEQuality]

    def document(self) -> dict[str, Any]:
        """The card as JSON."""
        saes = [{**asdict(each), "loss_recovered": each.loss_recovered} for each in self.saes]
        return {"schema": SCHEMA, **asdict(self), "saes": saes}


def train_saes(
    lm: LanguageModel,
    kinds: Sequence[Sequence[TextSource]],
    settings: SAESettings,
    out: Path,
    *,
    progress: Progress = SILENT,
    resume: bool = False,
) -> QualityCard:
    """Train an SAE on the output of each layer, and write a folder that `--sae` reads.

    Args:
        lm: the model.
        kinds: texts and prompts of several kinds, which take turns.
        settings: of the training.
        out: a new or empty folder.
        progress: told how far it is.
        resume: go on where an earlier process with the same arguments was stopped.

    Returns:
        the card, which is also in `quality.json`.

    Raises:
        CorrSteerError: anything that cannot be used; nothing is written then.
    """
    check_free(out)
    hook_points = [HookPoint(at, "resid_post") for at in settings.layers_of(lm.n_layers)]
    settings.latents_of(lm.d_model)
    pieces = pieces_of(lm, kinds, settings.seed)
    with unfinished(out, resume) as checkpoint:
        checkpoint.open(_header(lm, settings, pieces))
        work = _Work(lm, settings, checkpoint, progress)
        train, held_out = work.documents(pieces)
        work.train(hook_points, train, held_out)
        card = QualityCard(
            model=_name_of(lm),
            latents=settings.latents_of(lm.d_model),
            settings=settings,
            trained=train.positions,
            held_out=held_out.positions,
            saes=[SAEQuality(**checkpoint.results[each.name]) for each in hook_points],
        )
        with whole_folder(out, last=QUALITY_FILE) as whole:
            for hook_point in hook_points:
                name = _folder_name(hook_point)
                shutil.copytree(checkpoint.folder / name, whole / name)
            write_whole(whole / QUALITY_FILE, to_json(card.document()))
    return card


@dataclass(frozen=True)
class _Work:
    """What is done towards one folder, each step once.

    Attributes:
        lm, settings, progress: see `train_saes`.
        checkpoint: replies and SAEs that are there already.
    """

    lm: LanguageModel
    settings: SAESettings
    checkpoint: Checkpoint
    progress: Progress

    def documents(self, pieces: Pieces) -> tuple[Documents, Documents]:
        """What is trained on, and what is held out."""
        tokens = self.settings.tokens
        train = self._replied("texts", pieces.train, pieces.skip, tokens)
        held_out = self._replied(
            "held-out texts", pieces.held_out, pieces.skip, max(1, round(HELD_OUT * tokens))
        )
        least = self.settings.latents_of(self.lm.d_model)
        if not held_out.positions:
            raise DataError(
                f"there are no tokens on the held-out texts behind the first {pieces.skip}, which "
                "are left out; give longer or more texts"
            )
        if train.positions < least:
            raise DataError(
                f"the texts have {train.positions} tokens to train on, fewer than an SAE has "
                f"latents ({least}); give more texts, or fewer --latents"
            )
        if train.positions < tokens:
            log.info("the texts have %d tokens to train on, not %d", train.positions, tokens)
        return train, held_out

    def _replied(self, stage: str, pieces: Sequence[Piece], skip: int, tokens: int) -> Documents:
        def replied(number: int, batch: Sequence[Piece]) -> list[list[int]]:
            if not any(piece.is_prompt for piece in batch):
                return [list(piece.ids) for piece in batch]
            key = f"{stage} {number}"
            if key not in self.checkpoint.results:
                self.checkpoint.remember(key, with_replies(self.lm, self.settings, batch))
            found: list[list[int]] = self.checkpoint.results[key]
            return found

        with self.progress.stage(stage, tokens) as advance:
            return documents_of(pieces, skip, tokens, self.settings.batch_size, replied, advance)

    def train(
        self, hook_points: Sequence[HookPoint], train: Documents, held_out: Documents
    ) -> None:
        """Train and measure the SAEs that are not there yet."""
        left = [each for each in hook_points if each.name not in self.checkpoint.results]
        if not left:
            return
        size = self.settings.batch_size
        with self.progress.stage("residuals", len(train.ids) + len(held_out.ids)) as advance:
            trained = residuals_at(self.lm, train, left, size, advance)
            unseen = residuals_at(self.lm, held_out, left, size, advance)
        for hook_point in left:
            sae = self._trained(hook_point, trained[hook_point])
            quality = quality_of(
                self.lm, sae, hook_point, trained.pop(hook_point), unseen[hook_point], held_out
            )
            self.checkpoint.remember(hook_point.name, asdict(quality))

    def _trained(self, hook_point: HookPoint, residuals: torch.Tensor) -> Any:
        """An SAE, as it is when read back from the checkpoint's folder."""
        settings = self.settings
        how = DictionarySettings(
            model=_name_of(self.lm),
            hook_point=hook_point,
            d_sae=settings.latents_of(self.lm.d_model),
            k=settings.k,
            epochs=settings.epochs,
            seed=settings.seed,
        )
        device = self.lm.device_of(hook_point)
        folder = self.checkpoint.folder / _folder_name(hook_point)
        with self.progress.stage(f"SAE of layer {hook_point.layer}", None) as advance:
            sae = train_dictionary(residuals, how, device, advance)
        shutil.rmtree(folder, ignore_errors=True)
        save_dictionary(sae, folder)
        return read_dictionary(folder, device)


def _header(lm: LanguageModel, settings: SAESettings, pieces: Pieces) -> Mapping[str, Any]:
    """What the work is of."""
    model = {"id": lm.id, "revision": lm.revision, "dtype": lm.facts.dtype}
    return {
        "model": model,
        "settings": asdict(settings),
        "updates": asdict(UPDATES),
        "texts": pieces.digest(),
    }


def _name_of(lm: LanguageModel) -> str:
    """The model's name, without the place of a folder."""
    return hub_id(lm.id) or Path(lm.id).name


def _folder_name(hook_point: HookPoint) -> str:
    return f"layer_{hook_point.layer}"
