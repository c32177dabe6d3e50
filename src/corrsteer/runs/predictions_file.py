"""The file of predictions: both arms' replies to every test sample.

Changes when more is kept of a sample, or in another format. Equal texts are written once, so that
a few kilobytes can stand for any number of bytes: what is read is counted on the way.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from corrsteer.errors import ArtifactError
from corrsteer.runs.evaluation import Prediction

PREDICTIONS_FILE = "predictions.parquet"

MOST_BYTES = 2 * 2**30
"""Of all predictions: those of a million samples with 1.5 kB of prompt and replies each."""

ROW_BYTES = 512
"""Of memory that a sample takes beside its texts."""

BATCH_ROWS = 4096

_COLUMNS = list(Prediction.__annotations__)
_PREDICTIONS = TypeAdapter(tuple[Prediction, ...])


def predictions_bytes(predictions: Sequence[Prediction]) -> bytes:
    """Predictions as a Parquet file, a row each."""
    rows = [{**vars(each), "target": list(each.target)} for each in predictions]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return bytes(sink.getvalue())


def read_predictions(path: Path) -> tuple[Prediction, ...]:
    """The predictions in a file; none where it is not there.

    Raises:
        ArtifactError: it is corrupt, or holds more than `MOST_BYTES`.
    """
    if not path.exists():
        return ()
    rows, held = [], 0
    try:
        leaves = pq.read_metadata(path).schema
        texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
        with pq.ParquetFile(path, read_dictionary=texts) as file:
            for batch in file.iter_batches(BATCH_ROWS, columns=_COLUMNS):
                held += batch.num_rows * ROW_BYTES + sum(map(_bytes_of, batch.columns))
                if held > MOST_BYTES:
                    raise ArtifactError(
                        f"{path} holds more than {MOST_BYTES / 2**30:g} GiB of predictions; "
                        "remove it, or train again"
                    )
                rows += batch.to_pylist()
        return _PREDICTIONS.validate_python(rows)
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise ArtifactError(f"{path} is corrupt ({reason[:200]}); train again") from error


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
