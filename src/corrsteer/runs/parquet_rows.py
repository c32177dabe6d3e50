"""Rows of texts in a Parquet file, of no more memory than they may take.

Equal texts are written once, so that a few kilobytes can stand for any number of bytes: what is
read is counted before it is taken. Changes when texts are stored otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from corrsteer.errors import ArtifactError

MOST_BYTES = 2 * 2**30
"""Of all rows of a file: those of a million samples with 1.5 kB of prompt and replies each."""

ROW_BYTES = 512
"""Of memory that a row takes beside its texts."""

BATCH_ROWS = 4096


def bounded_batches(path: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The rows of a file, some at a time; texts are dictionaries.

    Raises:
        ArtifactError: it holds more than `MOST_BYTES`.
        OSError, ValueError, pa.ArrowException: it cannot be read.
    """
    metadata = pq.read_metadata(path)
    held = metadata.num_rows * ROW_BYTES
    texts = [leaf.path for leaf in metadata.schema if leaf.physical_type == "BYTE_ARRAY"]
    with pq.ParquetFile(path, read_dictionary=texts) as file:
        batches = file.iter_batches(BATCH_ROWS, columns=list(columns)) if held <= MOST_BYTES else ()
        for batch in batches:
            held += sum(map(_bytes_of, batch.columns))
            if held > MOST_BYTES:
                break
            yield batch
    if held > MOST_BYTES:
        raise ArtifactError(
            f"{path} holds more than {MOST_BYTES / 2**30:g} GiB; remove it, or train again"
        )


def _bytes_of(column: pa.Array) -> int:
    """The bytes of a column's values, those that are written once counted as often as they occur.

    Lists are taken for what is in them.
    """
    while pa.types.is_list(column.type):
        column = column.flatten()
    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    sizes = pc.binary_length(column.dictionary).cast(pa.int64())
    return int(pc.sum(sizes.take(column.indices)).as_py() or 0)
