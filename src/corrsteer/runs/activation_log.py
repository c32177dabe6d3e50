"""The log of pooled activations: every nonzero one of every fit sample, on disk.

Changes when more is kept of a sample, or in another format. Permutation tests, bootstraps and
split halves need the activations themselves, which statistics do not hold. They are sparse, so a
sample and layer takes a few hundred bytes: about three for each nonzero value. Memory is that of
one buffer, whatever the number of samples.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from scipy import sparse
from torch import Tensor

from corrsteer.errors import ArtifactError
from corrsteer.files import own_folder, regular
from corrsteer.runs.parquet_rows import bounded_batches
from corrsteer.stats.groups import Groups

LOG_FILE = "activations.parquet"
OUTCOMES_FILE = "outcomes.parquet"
SCHEMA = "corrsteer.log/1"

COLUMNS = pa.schema(
    [
        ("hook", pa.int32()),
        ("sample", pa.int32()),
        ("latent", pa.int32()),
        ("value", pa.float16()),
    ]
)
OUTCOMES = pa.schema([("id", pa.string()), ("outcome", pa.float64()), ("group", pa.string())])
"""Columns of the two files; logs of before there were groups have none of the last."""

LIMIT_BYTES = 2 * 2**30
"""A log that grows past this is given up. Dense activations (`--raw`) of 4,000 samples of a model
of 32 layers and 4,096 dimensions stay below it."""

BUFFER_ENTRIES = 2**21
"""Values held in memory before they are written; 14 bytes each."""

LARGEST, SMALLEST = 65_504.0, 2.0**-24
"""The range of float16. Activations beyond are moved to its ends, so that none becomes infinite
and none that is active becomes zero."""

_WRITE = {
    "compression": "zstd",
    "use_dictionary": False,
    "column_encoding": {
        "hook": "PLAIN",
        "sample": "DELTA_BINARY_PACKED",
        "latent": "DELTA_BINARY_PACKED",
        "value": "PLAIN",
    },
}


@dataclass(frozen=True, eq=False)
class ActivationLog:
    """Pooled activations and outcomes of the fit samples, those left out that were not judged.

    Attributes:
        folder: holds `LOG_FILE` and `OUTCOMES_FILE`.
        widths: hook point name -> its number of latents, in the order of layers.
        ids: of the samples, in the order of collection.
        outcomes: theirs, float64 [samples].
        labels: theirs, the same for samples that belong together.
    """

    folder: Path
    widths: Mapping[str, int]
    ids: tuple[str, ...] = field(repr=False)
    outcomes: NDArray[np.float64] = field(repr=False)
    labels: tuple[str, ...] = field(repr=False)
    _spool: Spool | None = field(default=None, repr=False, compare=False)

    @cached_property
    def groups(self) -> Groups:
        """Which of the samples belong together and do not count as independent."""
        return Groups.of(self.labels, len(self.labels))

    def activations(self, hook_point: str) -> sparse.csr_array:
        """Pooled activations of one hook point, float64, [d_sae, samples], read from disk.

        Raises:
            ArtifactError: the log cannot be read.
        """
        path, names = self.folder / LOG_FILE, list(self.widths)
        shape = (self.widths[hook_point], len(self.ids))
        try:
            with pq.ParquetFile(path) as file:
                of_hook = enumerate(self._hook_of_groups)
                groups = [group for group, hook in of_hook if hook == names.index(hook_point)]
                entries = sum(file.metadata.row_group(group).num_rows for group in groups)
                if entries > shape[0] * shape[1]:
                    raise ArtifactError(f"{path} holds what no run can; train again")
                table = file.read_row_groups(groups, columns=["latent", "sample", "value"])
        except (OSError, pa.ArrowException) as error:
            raise _corrupt(path, error) from error
        latent, sample, value = (column.to_numpy() for column in table.columns)
        inside = all(
            len(index) == 0 or (index.min() >= 0 and index.max() < size)
            for index, size in zip((latent, sample), shape, strict=True)
        )
        if not inside or not np.isfinite(value).all():
            raise ArtifactError(f"{path} holds what no run can; train again")
        values = value.astype(np.float64)
        return sparse.coo_array((values, (latent, sample)), shape=shape).tocsr()

    @cached_property
    def _hook_of_groups(self) -> list[int]:
        """The number of the one hook point that each row group is of.

        By the column itself: the file's own statistics of it can end the process, where they are
        corrupt, instead of raising an error.

        Raises:
            ArtifactError: a group is of none, or of several.
        """
        path = self.folder / LOG_FILE
        with pq.ParquetFile(path) as file:
            columns = (
                file.read_row_group(group, columns=["hook"]).column(0)
                for group in range(file.metadata.num_row_groups)
            )
            bounds = [tuple(pc.min_max(column).as_py().values()) for column in columns]
        if not all(low == high and low in range(len(self.widths)) for low, high in bounds):
            raise ArtifactError(f"{path} holds what no run can; train again")
        return [low for low, _ in bounds]

    def entries(self) -> int:
        """How many activations it holds; those that are 0 are not logged.

        Raises:
            ArtifactError: the log cannot be read.
        """
        path = self.folder / LOG_FILE
        try:
            return int(pq.read_metadata(path).num_rows)
        except (OSError, pa.ArrowException) as error:
            raise _corrupt(path, error) from error

    def save(self, folder: Path) -> None:
        """Put the log's files into a folder, by links where the disk is the same.

        Raises:
            OSError: it cannot be written.
        """
        for name in (LOG_FILE, OUTCOMES_FILE):
            try:
                os.link(self.folder / name, folder / name)
            except OSError:
                shutil.copyfile(self.folder / name, folder / name)


def open_log(folder: Path) -> ActivationLog | None:
    """The log in a run folder, its activations left on disk; None if there is none.

    Raises:
        ArtifactError: it is corrupt, truncated, or of another schema.
    """
    path = folder / LOG_FILE
    if not path.exists() and not (folder / OUTCOMES_FILE).exists():
        return None
    try:
        header = (pq.read_schema(path).metadata or {}).get(b"corrsteer")
        outcomes = _outcomes(folder / OUTCOMES_FILE)
        document = json.loads(header or b"{}")
        if not isinstance(document, dict) or document.get("schema") != SCHEMA:
            raise ArtifactError(f"{path} is not a log of activations; train again")
        known = [OUTCOMES, OUTCOMES.remove(2)]
        if not pq.read_schema(path).equals(COLUMNS) or outcomes.schema not in known:
            raise ArtifactError(f"{path} or {OUTCOMES_FILE} has other columns; train again")
        values = outcomes["outcome"].to_numpy()
        missing = sum(outcomes[name].null_count for name in outcomes.column_names)
        if not ((values >= 0) & (values <= 1)).all() or missing:
            raise ArtifactError(f"{folder / OUTCOMES_FILE} holds what no run can; train again")
        ids = tuple(outcomes["id"].to_pylist())
        labels = tuple(outcomes["group"].to_pylist()) if outcomes.num_columns > 2 else ids
        return ActivationLog(folder, document["widths"], ids, values, labels)
    except (OSError, pa.ArrowException, ValueError, KeyError, RecursionError) as error:
        raise _corrupt(path, error) from error


def _outcomes(path: Path) -> pa.Table:
    """The table of outcomes, its texts decoded.

    Raises:
        ArtifactError: it cannot be read, or holds more than can be meant.
    """
    try:
        schema = pq.read_schema(path)
        return pa.Table.from_batches(bounded_batches(path, schema.names)).cast(schema)
    except (OSError, pa.ArrowException, ValueError) as error:
        raise _corrupt(path, error) from error


class Spool:
    """A temporary folder that goes away with the last object that holds it."""

    def __init__(self) -> None:
        try:
            held = ExitStack()
            self.path = held.enter_context(own_folder())
        except OSError as error:
            raise _cannot_log(error) from error
        self.remove = weakref.finalize(self, held.close)


@dataclass(frozen=True)
class Entries:
    """The nonzero pooled activations of some samples.

    Attributes:
        ids: of the samples.
        outcomes: theirs, in [0, 1].
        at: hook point name -> of each entry the sample's number among these, int32, the latent,
            int32, and the value, float16.
    """

    ids: Sequence[str]
    outcomes: Sequence[float]
    at: Mapping[str, tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float16]]]

    @classmethod
    def of(
        cls, ids: Sequence[str], outcomes: Sequence[float], pooled: Mapping[str, Tensor]
    ) -> Entries:
        """Those of samples whose pooled activations are given whole, [samples, d_sae]."""
        at = {}
        for name, z in pooled.items():
            rows, latents = z.nonzero(as_tuple=True)
            at[name] = (
                rows.int().cpu().numpy(),
                latents.int().cpu().numpy(),
                _half(z[rows, latents]),
            )
        return cls(ids, outcomes, at)


def entries_bytes(batches: Sequence[Entries]) -> bytes:
    """Several `Entries` as one file, which `read_entries` reads."""
    tensors: dict[str, NDArray[Any]] = {}
    for number, entries in enumerate(batches):
        for name, (samples, latents, values) in entries.at.items():
            key = f"{number}/{name}"
            tensors |= {f"{key}/sample": samples, f"{key}/latent": latents, f"{key}/value": values}
    about = [{"ids": [*each.ids], "outcomes": [*each.outcomes]} for each in batches]
    return save(tensors, {"corrsteer": json.dumps(about)})


def read_entries(path: Path) -> list[Entries]:
    """What `entries_bytes` wrote.

    Raises:
        ArtifactError: it is missing or corrupt.
    """
    try:
        with safe_open(regular(path), framework="numpy") as file:
            found: list[Entries] = []
            for number, about in enumerate(json.loads(file.metadata()["corrsteer"])):
                named = [name for name in file.keys() if name.startswith(f"{number}/")]  # noqa: SIM118
                hooks = dict.fromkeys(name.split("/")[1] for name in named)
                at = {
                    hook: tuple(
                        file.get_tensor(f"{number}/{hook}/{column}")
                        for column in ("sample", "latent", "value")
                    )
                    for hook in hooks
                }
                found.append(Entries(about["ids"], about["outcomes"], at))
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} is corrupt or missing; remove its folder") from error
    return found


class LogWriter:
    """Writes the log of one collection into a temporary folder.

    Args:
        widths: hook point name -> its number of latents.
        groups: sample id -> label of its group; a sample without one is by itself.
        limit_bytes: size at which the log is given up.

    Attributes:
        given_up: why there will be no log, or None.
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        groups: Mapping[str, str] | None = None,
        limit_bytes: int = LIMIT_BYTES,
    ):
        self.given_up: str | None = None
        self._widths, self._group_of, self._limit = dict(widths), groups or {}, limit_bytes
        self._spool = Spool()
        self._path = self._spool.path / LOG_FILE
        self._ids: list[str] = []
        self._outcomes: list[float] = []
        self._labels: list[str] = []
        self._buffers: dict[str, list[pa.RecordBatch]] = {name: [] for name in widths}
        self._held = 0
        header = json.dumps({"schema": SCHEMA, "widths": self._widths})
        self._schema = COLUMNS.with_metadata({"corrsteer": header})
        try:
            self._file = pq.ParquetWriter(self._path, self._schema, **_WRITE)
        except OSError as error:
            raise _cannot_log(error) from error

    def add(self, entries: Entries) -> None:
        """Add judged samples.

        Raises:
            ArtifactError: the disk is full.
        """
        if self.given_up is not None:
            return
        first = len(self._ids)
        for name, (samples, latents, values) in entries.at.items():
            self._hold(name, samples + np.int32(first), latents, values)
        self._ids += entries.ids
        self._outcomes += entries.outcomes
        self._labels += [self._group_of.get(each, each) for each in entries.ids]
        if self._held >= BUFFER_ENTRIES:
            self._flush()

    def append(self, log: ActivationLog) -> None:
        """Add all samples of another log of the same hook points.

        Raises:
            ArtifactError: the other log cannot be read, or the disk is full.
        """
        first = len(self._ids)
        for name in self._widths:
            z = log.activations(name).tocsc().tocoo()
            values = z.data.astype(np.float16)
            samples = (z.col + first).astype(np.int32)
            self._hold(name, samples, z.row.astype(np.int32), values)
            self._flush()
        self._ids += log.ids
        self._outcomes += log.outcomes.tolist()
        self._labels += log.labels

    def close(self) -> ActivationLog | None:
        """The finished log, which keeps its temporary folder; None where it was given up.

        Raises:
            ArtifactError: the disk is full.
        """
        self._flush()
        if self.given_up is not None:
            return None
        outcomes = np.asarray(self._outcomes, dtype=np.float64)
        try:
            self._file.close()
            table = pa.table([self._ids, outcomes, self._labels], OUTCOMES)
            pq.write_table(table, self._spool.path / OUTCOMES_FILE)
        except OSError as error:
            raise _cannot_log(error) from error
        ids, labels = tuple(self._ids), tuple(self._labels)
        return ActivationLog(self._spool.path, self._widths, ids, outcomes, labels, self._spool)

    def _hold(
        self,
        name: str,
        samples: NDArray[np.int32],
        latents: NDArray[np.int32],
        values: NDArray[np.float16],
    ) -> None:
        hook = np.full(len(values), list(self._widths).index(name), dtype=np.int32)
        columns = [pa.array(column) for column in (hook, samples, latents, values)]
        self._buffers[name].append(pa.RecordBatch.from_arrays(columns, schema=self._schema))
        self._held += len(values)

    def _flush(self) -> None:
        """Write what is held, row groups of one hook point each."""
        if self.given_up is not None:
            return
        try:
            for batches in self._buffers.values():
                table = pa.Table.from_batches(batches, self._schema)
                if len(table):
                    self._file.write_table(table)
                batches.clear()
        except OSError as error:
            raise _cannot_log(error) from error
        self._held = 0
        if self._path.stat().st_size > self._limit:
            self.given_up = (
                f"the log of activations grew past {self._limit / 2**30:g} GiB and was given up"
            )
            self._file.close()
            self._spool.remove()


def _cannot_log(error: OSError) -> ArtifactError:
    """The error for a temporary folder that cannot be written to."""
    return ArtifactError(
        f"cannot write the log of activations to {tempfile.gettempdir()}: "
        f"{error.strerror or error}; free some space there, set TMPDIR to another folder, or use "
        "--no-log"
    )


def _half(values: Tensor) -> NDArray[np.float16]:
    """float16 within its range, and never zero."""
    size = values.abs().clamp(SMALLEST, LARGEST)
    half: NDArray[np.float16] = torch.copysign(size, values).half().cpu().numpy()
    return half


def _corrupt(path: Path, error: Exception) -> ArtifactError:
    reason = " ".join(str(error).split())[:200]
    return ArtifactError(f"{path} is corrupt or missing ({reason}); train again")
