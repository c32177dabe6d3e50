"""Where runs are: folders, told by their names alone.

Changes when a run is found in another way. Nothing heavy is imported, so that a folder that is not
there is refused at once.
"""

from __future__ import annotations

import os
from pathlib import Path

from corrsteer.errors import ArtifactError
from corrsteer.files import expanded

RUN_FILE = "run.json"
"""Written last, so that a folder which holds it holds a whole run."""


def is_run(path: str | Path) -> bool:
    """Whether a folder holds a whole run."""
    return os.path.isfile(expanded(path) / RUN_FILE)  # noqa: PTH113 - false for a name that cannot be


def check_folder(path: str | Path) -> Path:
    """The folder of a run.

    Raises:
        ArtifactError: there is no folder.
    """
    folder = expanded(path)
    if not os.path.isdir(folder):  # noqa: PTH112
        raise ArtifactError(f"no run at {str(path)[:300]!r}; expected a folder that `train` wrote")
    return folder
