"""Rows of data sets on the Hugging Face hub, or of a local copy of one.

Changes when rows are found or read in another way. Nothing here knows what a row means.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corrsteer.errors import DataError
from corrsteer.files import regular
from corrsteer.tasks.fields import filled

READERS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv"}
"""Suffix of a data file -> the loader of `datasets` that reads it."""

LOGIN_HINT = "log in with `hf auth login` (older: `huggingface-cli login`)"


@dataclass(frozen=True)
class Source:
    """A data set of the hub.

    Attributes:
        id: organisation and name.
        columns: what a row must have; its other columns are kept beside them.
        configs: the configurations, joined in this order.
        data_file: where each configuration's file lies in a repository that has a loading script,
            which `datasets` refuses since version 4; None for all other repositories.
        file_split: the split that a file named by its configuration holds.
    """

    id: str
    columns: tuple[str, ...]
    configs: tuple[str, ...] = ("default",)
    data_file: str | None = None
    file_split: str = "test"


@dataclass(frozen=True)
class Row:
    """One row with its place.

    Attributes:
        id: configuration, split and index.
        values: column -> value, of the columns that hold one; see `filled`.
        source: the data set, for messages.
    """

    id: str
    values: Mapping[str, Any]
    source: str

    def text(self, column: str) -> str:
        """The text in a column, as it is.

        Raises:
            DataError: it is no text.
        """
        value = self.values.get(column)
        if not isinstance(value, str):
            raise self.refused(column, "a text")
        return value

    def texts(self, column: str) -> tuple[str, ...]:
        """The texts in a column that lists them.

        Raises:
            DataError: it lists none, or something else.
        """
        value = self.values.get(column)
        if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
            raise self.refused(column, "a list of texts")
        return tuple(value)

    def others(self, *columns: str) -> dict[str, Any]:
        """All columns but these, for function scorers."""
        return {name: value for name, value in self.values.items() if name not in columns}

    def refused(self, column: str, expected: str) -> DataError:
        """The error for a value that cannot be used."""
        value = repr(self.values.get(column))
        short = value if len(value) <= 60 else f"{value[:57]}..."
        return DataError(
            f"{self.source}, row {self.id}: {column} is {short}; expected {expected}, as in the "
            "hub's own rows"
        )


def read(
    source: Source,
    splits: Sequence[str],
    data: Path | None = None,
    optional: Sequence[str] = (),
) -> dict[str, list[Row]]:
    """The rows of each split, in the order of the data set.

    Args:
        source: the data set.
        splits: those that must be there.
        data: a folder with a local copy, read in place of the hub; see `local_files`.
        optional: splits that are read where they exist.

    Raises:
        DataError: the data set cannot be had, or lacks a split or a column.
    """
    rows: dict[str, list[Row]] = {split: [] for split in (*splits, *optional)}
    for config in source.configs:
        if data is None:
            loaded, where = _from_hub(source, config), source.id
        else:
            loaded, where = _from_folder(source, config, list(rows), data), str(data)
        for split in rows:
            if split in loaded:
                rows[split] += _rows(loaded[split], source, f"{config}/{split}", where)
            elif split in splits:
                raise DataError(
                    f"{where} has no split {split!r} (it has {', '.join(loaded) or 'none'}); "
                    f"expected the splits of {source.id} on the hub"
                )
    return {split: found for split, found in rows.items() if found or split in splits}


def _rows(dataset: Any, source: Source, place: str, where: str) -> list[Row]:
    missing = [name for name in source.columns if name not in dataset.column_names]
    if missing:
        raise DataError(
            f"{where} has no column {missing[0]!r} in {place} (it has "
            f"{', '.join(dataset.column_names)}); expected the columns of {source.id} on the hub"
        )
    values = map(filled, dataset.to_list())
    return [Row(f"{place}/{index}", value, where) for index, value in enumerate(values)]


def _from_hub(source: Source, config: str) -> Mapping[str, Any]:
    """Split -> data set of one configuration, downloaded or from the cache."""
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError, DatasetsError

    try:
        with _quiet():
            file = _downloaded(source, config)
            if file is not None:
                return _load(file.suffix, {source.file_split: [str(file)]})
            loaded: Mapping[str, Any] = load_dataset(source.id, config)
            return loaded
    except DatasetNotFoundError as error:
        raise DataError(
            f"{source.id} is gated or not on the hub; accept its terms at "
            f"https://huggingface.co/datasets/{source.id} and {LOGIN_HINT}, "
            "or give a local copy with --data FOLDER"
        ) from error
    except ConnectionError as error:
        raise DataError(
            f"cannot reach the hub for {source.id}, and no copy of it is cached here; connect, "
            "or give a local copy with --data FOLDER"
        ) from error
    except (DatasetsError, OSError, ValueError, RuntimeError) as error:
        raise DataError(
            f"cannot load {source.id} ({config}) from the hub: {_first_line(error)}; "
            "try again, or give a local copy with --data FOLDER"
        ) from error


def _downloaded(source: Source, config: str) -> Path | None:
    """A configuration's own file, where the repository is known to have a loading script.

    None where it has no such file: a copy of the data set that needs no script.
    """
    if source.data_file is None:
        return None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    name = source.data_file.format(config=config)
    try:
        return Path(hf_hub_download(source.id, name, repo_type="dataset"))
    except EntryNotFoundError:  # also: offline, and not in the cache
        return None


def _from_folder(
    source: Source, config: str, splits: Sequence[str], folder: Path
) -> Mapping[str, Any]:
    """Split -> data set of one configuration, from the files of a local copy."""
    from datasets.exceptions import DatasetsError

    files = local_files(source, config, splits, folder)
    if not files:
        raise DataError(
            f"{folder} holds no rows of {source.id} ({config}); expected a copy of the "
            f"repository, with files such as {config}/{splits[0]}.parquet, .jsonl or .csv"
        )
    try:
        with _quiet():
            for path in (path for paths in files.values() for path in paths):
                regular(Path(path))
            return _load(Path(files[next(iter(files))][0]).suffix, files)
    except (DatasetsError, OSError, ValueError) as error:
        reason = _first_line(error.__cause__ or error)
        names = ", ".join(path for paths in files.values() for path in paths)
        raise DataError(f"cannot read {names}: {reason}; copy {source.id} again") from error


def local_files(
    source: Source, config: str, splits: Sequence[str], folder: Path
) -> dict[str, list[str]]:
    """Split -> data files of one configuration in a local copy.

    The copy is the repository as it was downloaded, or a folder that holds it as `ORG/NAME`,
    `ORG--NAME` or `NAME`. A configuration's files are those named by their split in a folder named
    by the configuration, or the file named by the configuration; a data set of one configuration
    may also lie in `data` or at the top.

    Raises:
        DataError: the folder does not exist.
    """
    if not folder.is_dir():
        raise DataError(f"--data {folder} is no folder; expected a local copy of {source.id}")
    names = (source.id, source.id.replace("/", "--"), source.id.rpartition("/")[2])
    root = next((folder / name for name in names if (folder / name).is_dir()), folder)
    places = [root / config, root / "data" / config]
    if len(source.configs) == 1:
        places += [root / "data", root]
    for place in places:
        found = {
            split: _named(place, rf"(.*[^a-z])?{re.escape(split)}([^a-z].*)?") for split in splits
        }
        if any(found.values()):
            return {split: files for split, files in found.items() if files}
    for place in (root / "data", root):
        if whole := _named(place, re.escape(config)):
            return {source.file_split: whole}
    return {}


def files_read(source: Source, splits: Sequence[str], folder: Path) -> list[Path]:
    """All files of a local copy that `read` takes rows from.

    Raises:
        DataError: the folder does not exist.
    """
    found = (local_files(source, config, splits, folder).values() for config in source.configs)
    return [Path(path) for files in found for paths in files for path in paths]


def _named(folder: Path, pattern: str) -> list[str]:
    """Data files of one kind in `folder` whose names are `pattern` and a suffix."""
    if not folder.is_dir():
        return []
    files = [
        path
        for path in sorted(folder.iterdir())
        if path.suffix in READERS and re.fullmatch(pattern, path.stem)
    ]
    return [str(path) for path in files if path.suffix == files[0].suffix]


def _load(suffix: str, files: Mapping[str, list[str]]) -> Mapping[str, Any]:
    from datasets import load_dataset

    loaded: Mapping[str, Any] = load_dataset(READERS[suffix], data_files=dict(files))
    return loaded


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".;: ") if lines else type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """The hub's libraries without progress bars and warnings of their own, restored afterwards."""
    import datasets
    from huggingface_hub import logging as hub_logging

    bars = not datasets.are_progress_bars_disabled()
    levels = datasets.logging.get_verbosity(), hub_logging.get_verbosity()
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # errors are raised as well
    hub_logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        datasets.logging.set_verbosity(levels[0])
        hub_logging.set_verbosity(levels[1])
        if bars:
            datasets.enable_progress_bars()
