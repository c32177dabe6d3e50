"""A run as a folder that can be pushed as a Hugging Face Space.

Changes when a Space asks for other files. The folder is whole: the run, the package's own source
and what it needs, so that nothing has to be published first.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Iterable
from importlib.metadata import requires
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

import corrsteer
from corrsteer.demo.exhibits import Exhibit
from corrsteer.errors import ArtifactError
from corrsteer.files import check_free, whole_folder, write_whole
from corrsteer.lm.known_models import hub_id
from corrsteer.mini import MODEL_DIR
from corrsteer.runs import card
from corrsteer.runs.run import Run

RUN_FOLDER = "run"
"""Where the run lies in the Space, and what the page calls it."""

GRADIO = "6.31.0"
"""Version of gradio that the page was tried with."""

PYTHON = "3.12"
"""Version of Python that a Space runs; its own default is older than the package allows."""

BUILT_IN = "mini"


def write_space(run: Run, folder: str | Path) -> Path:
    """Write a Space that shows a run: `app.py`, `README.md`, `requirements.txt`, run and package.

    It is written whole or not at all. Of the predictions only the examples that the page offers are
    copied, and none of the statistics and activations: they are not needed, and test data need not
    be published.

    Args:
        run: an evaluated run that steers by some features.
        folder: a new or empty folder.

    Returns:
        the folder.

    Raises:
        ArtifactError: the run cannot be shown, its model is a folder of this machine, or `folder`
            holds other files or cannot be written to.
    """
    exhibit = Exhibit.of(run, RUN_FOLDER)
    _check_model(exhibit)
    target = check_free(folder)
    ids = {example.row.id for example in exhibit.examples}
    shown = tuple(row for row in run.predictions if row.id in ids)
    evaluation = run.evaluation and dataclasses.replace(run.evaluation, run=RUN_FOLDER)
    slim = dataclasses.replace(
        run, statistics={}, means={}, log=None, predictions=shown, evaluation=evaluation
    )
    with whole_folder(target) as whole:
        slim.save(whole / RUN_FOLDER)
        for name, text in _texts(exhibit).items():
            write_whole(whole / name, text)
        _copy_package(whole / "corrsteer", exhibit.model == BUILT_IN)
    return target


def _check_model(exhibit: Exhibit) -> None:
    if exhibit.model != BUILT_IN and hub_id(exhibit.model) is None:
        raise ArtifactError(
            f"the run's model is {exhibit.model[:300]}, which a Space cannot reach; push the model "
            "to the hub and train on it there"
        )


def _texts(exhibit: Exhibit) -> dict[str, str]:
    """What the Space's own files hold."""
    environment = Environment(
        loader=PackageLoader("corrsteer.demo", "templates"),
        autoescape=False,  # these are no HTML
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters |= {"code": card.code, "escaped": card.escaped}
    task = card.public_name(exhibit.run.provenance.task)
    values = {
        "title": json.dumps(f"CorrSteer: {card.one_line(task)}"),  # a text of YAML too
        "task": task,
        "model": exhibit.model,
        "hub_model": hub_id(exhibit.model),
        "verdict": exhibit.findings.verdict.text,
        "gradio": GRADIO,
        "python": PYTHON,
        "run_folder": RUN_FOLDER,
    }
    return {
        "app.py": environment.get_template("space_app.py.j2").render(values),
        "README.md": environment.get_template("space_readme.md.j2").render(values),
        "requirements.txt": "".join(f"{line}\n" for line in _requirements(requires("corrsteer"))),
    }


def _requirements(declared: Iterable[str] | None) -> list[str]:
    """What the package declares to need, with what the demo adds."""
    needed = []
    for line in declared or ():
        requirement, _, marker = line.partition(";")
        if "extra" not in marker or re.search(r"extra\s*==\s*['\"]demo['\"]", marker):
            needed.append(requirement.strip())
    return sorted(line for line in needed if not line.startswith("gradio"))  # a Space has it


def _copy_package(target: Path, with_model: bool) -> None:
    """The package's source; the built-in model only where it is what is shown."""
    built_in = {MODEL_DIR.name, "saes"}

    def ignored(folder: str, names: list[str]) -> set[str]:
        skipped = {name for name in names if name == "__pycache__" or name.startswith(".")}
        if Path(folder) == MODEL_DIR.parent:
            skipped |= {"saes"} if with_model else built_in
        return skipped

    shutil.copytree(Path(corrsteer.__file__).parent, target, ignore=ignored)
