"""Latents that somebody names: in a list, in a file, or as the features of a run.

Changes when latents are named in another way.
"""

from __future__ import annotations

import csv
import io
import math
import re
from dataclasses import dataclass
from pathlib import Path

from corrsteer.errors import DataError, SettingsError
from corrsteer.files import regular
from corrsteer.runs.folder import load_run
from corrsteer.runs.location import is_run

WRITTEN = re.compile(r"(\d+)/(\d+)(?:=([-+\d.eE]+))?")
COLUMNS = ("layer", "latent", "coefficient")


@dataclass(frozen=True)
class NamedLatent:
    """A latent with its coefficient.

    Attributes:
        layer: that its SAE is named by.
        latent: index into d_sae.
        coefficient: what its decoder direction is multiplied with.
    """

    layer: int
    latent: int
    coefficient: float

    def __str__(self) -> str:
        return f"{self.layer}/{self.latent} = {self.coefficient:g}"


def named_latents(text: str) -> tuple[NamedLatent, ...]:
    """Latents as a user names them.

    Args:
        text: `7/11722=5.0,9/9298=3.2`; a `.csv` file with the columns layer, latent and
            coefficient; or the folder of a run, whose features are taken.

    Raises:
        DataError: a file that cannot be read, or has other columns.
        SettingsError: a list that is malformed, names a latent twice, or is empty.
        ArtifactError: a run that cannot be read.
    """
    path = Path(text).expanduser()
    if path.suffix == ".csv":
        found = _of_file(path)
    elif is_run(path):
        features = load_run(path).steering.features
        found = tuple(NamedLatent(f.layer, f.latent, f.coefficient) for f in features)
    else:
        found = tuple(_of_text(part.strip()) for part in text.split(",") if part.strip())
    if not found:
        raise SettingsError(f"no latents in {text!r}; name them as LAYER/LATENT=COEFFICIENT")
    places = [(each.layer, each.latent) for each in found]
    for place in places:
        if places.count(place) > 1:
            raise SettingsError(f"latent {place[0]}/{place[1]} is named twice; name it once")
    return found


def _of_text(part: str) -> NamedLatent:
    match = WRITTEN.fullmatch(part)
    try:
        if match is None:
            raise ValueError
        layer, latent, coefficient = match.groups()
        return _checked(int(layer), int(latent), float(coefficient or "nan"), part)
    except ValueError as error:
        raise SettingsError(
            f"{part!r} names no latent; write LAYER/LATENT=COEFFICIENT, as 7/11722=5.0, the path "
            "of a .csv file, or the folder of a run"
        ) from error


def _of_file(path: Path) -> tuple[NamedLatent, ...]:
    try:
        text = regular(path).read_text(encoding="utf-8-sig")
        rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    except (OSError, ValueError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"cannot read {path}: {reason}; give a .csv file in UTF-8") from error
    found = []
    for number, row in enumerate(rows, start=2):
        where = f"{path}, line {number}"
        try:
            layer, latent, coefficient = (row[name] for name in COLUMNS)
            found.append(_checked(int(layer), int(latent), float(coefficient), where))
        except KeyError as error:
            raise DataError(
                f"{path} has no column {error}; it needs {', '.join(COLUMNS)}"
            ) from error
        except (TypeError, ValueError) as error:
            raise DataError(f"{where}: expected whole numbers and a coefficient") from error
    return tuple(found)


def _checked(layer: int, latent: int, coefficient: float, where: str) -> NamedLatent:
    if not math.isfinite(coefficient) or layer < 0 or latent < 0:
        raise ValueError(where)
    return NamedLatent(layer, latent, coefficient)
