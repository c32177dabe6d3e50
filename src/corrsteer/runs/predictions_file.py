"""The file of predictions: both arms' replies to every test sample.

Changes when more is kept of a sample, or in another format.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from corrsteer.errors import ArtifactError
from corrsteer.runs.evaluation import Prediction
from corrsteer.runs.parquet_rows import bounded_batches

PREDICTIONS_FILE = "predictions.parquet"

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
        ArtifactError: it is corrupt, or holds more than can be meant.
    """
    if not path.exists():
        return ()
    try:
        rows = [row for batch in bounded_batches(path, _COLUMNS) for row in batch.to_pylist()]
        return _PREDICTIONS.validate_python(rows)
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise ArtifactError(f"{path} is corrupt ({reason[:200]}); train again") from error
