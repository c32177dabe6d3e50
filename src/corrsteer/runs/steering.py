"""The steering artifact: one vector a hook point, saved and loaded whole.

Changes when the artifact carries more, or is combined in another way.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from huggingface_hub import ModelCard, ModelCardData, ModelHubMixin, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from jaxtyping import Float32
from safetensors import SafetensorError, safe_open
from torch import Tensor

from corrsteer.errors import ArtifactError, CorrSteerError
from corrsteer.features import FEATURE_COLUMNS, FEATURES, Feature, feature_rows
from corrsteer.files import expanded, write_whole
from corrsteer.hook_points import HookPoint, in_words
from corrsteer.lm.known_models import hub_id
from corrsteer.lm.models import LanguageModel
from corrsteer.notebook import overview
from corrsteer.runs import card
from corrsteer.runs.tensor_files import tensor_bytes
from corrsteer.settings import Positions, check_strength

FILE_NAME = "steering.safetensors"
SCHEMA = "corrsteer.steering/1"
DIRECTION = "direction"
"""Key of the metadata that says, in words, what vectors are that are not made of features."""


@dataclass(frozen=True)
class Steering(
    ModelHubMixin,
    library_name="corrsteer",
    tags=["corrsteer", "steering-vectors", "sparse-autoencoder"],
    paper_url="https://arxiv.org/abs/2508.12535",
):
    """What is added to the residual stream, and where: x' = x + strength * vector.

    `save_pretrained`, `push_to_hub` and `from_pretrained` are those of huggingface_hub's mixin.

    Attributes:
        vectors: hook point -> coefficient * W_dec[latent], summed over the features there;
            float32, [d_model].
        features: the features it is made of.
        model: name or id of the model it is for.
        revision: the model's commit, or None.
        positions: `generated`, or `all` to steer every prompt position too.
        strength: what the vectors are multiplied with unless a call says otherwise.
        metadata: what else the file says; a run puts its task, SAE and evidence there.
    """

    # set by the mixin on every instance that has none, which a frozen one does not allow
    _hub_mixin_config: ClassVar[dict[str, str]] = {  # type: ignore[misc]
        "library": "corrsteer",
        "schema": SCHEMA,
    }

    vectors: Mapping[HookPoint, Float32[Tensor, " d_model"]]
    features: tuple[Feature, ...] = ()
    model: str = ""
    revision: str | None = None
    positions: Positions = "generated"
    strength: float = 1.0
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def direction(self) -> str:
        """What its vectors are, in words, where they are not made of features; else ""."""
        if self.features or not self.vectors:
            return ""
        return self.metadata.get(DIRECTION, "vectors of unknown origin")

    @property
    def described(self) -> str:
        """What it adds at strength 1, as `layer 4, difference of means, |v| = 12.3`."""
        if not self.direction:
            return f"{len(self.features)} features"
        norms = {hook.name: float(vector.norm()) for hook, vector in self.vectors.items()}
        return direction_in_words(self.direction, norms)

    def at(self, strength: float) -> Steering:
        """The same steering with another strength of its own."""
        return replace(self, strength=check_strength(strength))

    def scaled(self, strength: float | None = None) -> dict[HookPoint, Tensor]:
        """The vectors times the strength, without those that are zero; float32."""
        factor = self.strength if strength is None else check_strength(strength)
        scaled = {hook: factor * vector for hook, vector in self.vectors.items()}
        return {hook: vector for hook, vector in scaled.items() if vector.any()}

    def save(self, path: str | Path) -> Path:
        """Write the steering into a folder (or to a file that ends in `.safetensors`).

        Returns:
            the file written.
        """
        path = expanded(path)
        target = path if path.suffix == ".safetensors" else path / FILE_NAME
        header = {
            **self.metadata,
            "schema": SCHEMA,
            "model": self.model,
            "revision": self.revision or "",
            "scope": self.positions,
            "strength": repr(float(self.strength)),
            "features": json.dumps([feature.to_dict() for feature in self.features]),
        }
        tensors = {hook.name: vector.contiguous() for hook, vector in self.vectors.items()}
        write_whole(target, tensor_bytes(tensors, header))
        return target

    @classmethod
    def load(cls, path: str | Path) -> Steering:
        """The steering saved in a folder or file.

        Raises:
            ArtifactError: no such file, or it is not a steering of this schema.
        """
        path = expanded(path)
        source = path / FILE_NAME if os.path.isdir(path) else path  # noqa: PTH112
        if not os.path.isfile(source):  # noqa: PTH113
            raise ArtifactError(f"no steering at {str(path)!r}; expected a run folder or a file")
        try:
            with safe_open(source, framework="pt") as file:
                header = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return cls._from_file(header, tensors)
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ArtifactError(
                f"{source} is not a whole steering file ({reason}); write it again"
            ) from error
        except CorrSteerError as error:
            raise ArtifactError(f"{source} is not a steering of CorrSteer: {error}") from error

    @classmethod
    def _from_file(cls, header: Mapping[str, str], tensors: Mapping[str, Tensor]) -> Steering:
        if header.get("schema") != SCHEMA:
            raise ArtifactError(f"its schema is {header.get('schema')!r}, expected {SCHEMA!r}")
        for name, tensor in tensors.items():
            if tensor.dtype != torch.float32 or tensor.dim() != 1:
                raise ArtifactError(
                    f"{name} is {tensor.dtype} {list(tensor.shape)}, expected float32 [d_model]"
                )
            if not torch.isfinite(tensor).all():
                raise ArtifactError(f"{name} holds NaN or infinity")
        if header["scope"] not in ("generated", "all"):
            raise ArtifactError(f"its scope is {header['scope']!r}, expected generated or all")
        own = {"schema", "model", "revision", "scope", "strength", "features"}
        hooks = {HookPoint.parse(name): tensor for name, tensor in tensors.items()}
        if len(hooks) < len(tensors):
            raise ArtifactError("it has one hook point twice")
        return cls(
            vectors=dict(sorted(hooks.items(), key=lambda item: item[0].order)),
            features=FEATURES.validate_json(header["features"]),
            model=header["model"],
            revision=header["revision"] or None,
            positions=header["scope"],  # type: ignore[arg-type]
            strength=check_strength(float(header["strength"])),
            metadata={key: value for key, value in header.items() if key not in own},
        )

    @classmethod
    def from_pretrained(cls, name: str | Path, **options: Any) -> Steering:  # type: ignore[override]
        """The steering in a repository of the hub, or in a folder.

        Args:
            name: `owner/name`, or the folder.
            options: those of the mixin: revision, token, cache_dir, local_files_only, ...

        Raises:
            ArtifactError: nothing there, or it is not a steering of this schema.
        """
        try:
            return super().from_pretrained(name, **options)
        except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ArtifactError(
                f"no steering to be had from {str(name)!r} ({reason}); check the name, the "
                "network and that you are logged in if it is private"
            ) from error

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **options: Any) -> Steering:
        if Path(model_id).is_dir():
            return cls.load(model_id)
        return cls.load(hf_hub_download(model_id, FILE_NAME, **options))

    def _save_pretrained(self, save_directory: Path) -> None:
        self.save(save_directory)
        write_whole(save_directory / card.SCRIPT, card.script())

    def generate_model_card(self, **card_data: Any) -> ModelCard:
        """The card: what it does, for which model, on what evidence, and its limits.

        Args:
            card_data: of the card's YAML block, e.g. `license`; over what is known already.

        Raises:
            ArtifactError: its metadata hold evidence that is none.
        """
        model = hub_id(self.model)
        known = {"base_model": model} if model else {}
        data = dict(self._hub_mixin_info.model_card_data.__dict__) | known | card_data
        facts = card.facts(
            self.model,
            model,
            self.revision,
            self.positions,
            self.strength,
            [feature.to_dict() for feature in self.features],
            {**self.metadata, "described": self.described if self.direction else ""},
        )
        return ModelCard(card.render(ModelCardData(**data).to_yaml(), facts))

    def __repr__(self) -> str:
        where = ", ".join(f"{f.layer}/{f.latent} x {f.coefficient:.3g}" for f in self.features)
        made_of = f"vectors={self.described!r}" if self.direction else f"features=[{where}]"
        return (
            f"Steering(model={self.model!r}, {made_of}, strength={self.strength:g}, "
            f"positions={self.positions!r})"
        )

    def _repr_html_(self) -> str:
        facts = {
            "model": self.model,
            "strength": f"{self.strength:g}",
            "positions": self.positions,
            "hook points": ", ".join(map(str, self.vectors)) or "none",
            **({"made of": self.described} if self.direction else {}),
        }
        return overview("Steering", facts, FEATURE_COLUMNS, feature_rows(self.features))


def direction_in_words(direction: str, norms: Mapping[str, float]) -> str:
    """A dense direction with where it steers, as `layer 4, difference of means, |v| = 12.3`.

    Args:
        direction: what it is.
        norms: hook point name -> length of its vector, one or more.
    """
    low, high = min(norms.values()), max(norms.values())
    size = f"{low:.3g}" if len(norms) == 1 else f"{low:.3g} to {high:.3g}"
    return f"{in_words([*norms])}, {direction}, |v| = {size}"


def summed(
    features: Sequence[Feature], rows: Mapping[tuple[str, int], Float32[Tensor, " d_model"]]
) -> dict[HookPoint, Tensor]:
    """The sum of coefficient * W_dec[latent] over the features of each hook point.

    Args:
        features: in any order; the sums are in the order of latents.
        rows: `Feature.key` -> W_dec[latent].
    """
    vectors: dict[HookPoint, Tensor] = {}
    for feature in sorted(features, key=lambda f: (HookPoint.parse(f.hook_point).order, f.latent)):
        hook_point = HookPoint.parse(feature.hook_point)
        vector = feature.coefficient * rows[feature.key].float()
        vectors[hook_point] = vectors[hook_point] + vector if hook_point in vectors else vector
    return vectors


def combine(
    features: Sequence[Feature],
    rows: Mapping[tuple[str, int], Float32[Tensor, " d_model"]],
    lm: LanguageModel,
    positions: Positions = "generated",
) -> Steering:
    """The steering by a set of features; several at one hook point add.

    Args:
        features: the set; empty for a steering that does nothing.
        rows: `Feature.key` -> W_dec[latent].
        lm: the model it is for.
        positions: where it steers.
    """
    return steering_of(summed(features, rows), features, lm, positions)


def steering_of(
    vectors: Mapping[HookPoint, Float32[Tensor, " d_model"]],
    features: Sequence[Feature],
    lm: LanguageModel,
    positions: Positions = "generated",
    about: Mapping[str, str] | None = None,
) -> Steering:
    """The steering of a model by some vectors.

    Args:
        vectors: hook point -> what is added at strength 1.
        features: that the vectors are made of, if they are.
        lm: the model it is for.
        positions: where it steers.
        about: what else its file says.
    """
    kind = {"model_type": str(lm.model.config.get_text_config().model_type)}
    metadata = kind | dict(about or {})
    return Steering(vectors, tuple(features), lm.id, lm.revision, positions, metadata=metadata)
