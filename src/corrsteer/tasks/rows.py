"""Rows of a user's own file, whatever it is written in.

Changes when another kind of file is read. Each row comes with its place, for messages of errors.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from corrsteer.errors import DataError
from corrsteer.files import regular
from corrsteer.json_text import is_whole
from corrsteer.tasks.fields import PlacedRow, filled
from corrsteer.tasks.inspect_log import inspect_rows
from corrsteer.tasks.lm_eval_log import lm_eval_rows

COMPRESSED = ".gz"
TASK_FILES = ".jsonl, .jsonl.gz, .json, .csv, .parquet or .eval"
CSV_LISTS = ("messages", "choices", "target", "chosen", "rejected")
"""Fields whose cells of CSV may hold a list, as JSON."""
MOST_UNPACKED = 2**32
"""Bytes that a compressed file may become."""


def is_task_file(name: str | Path) -> bool:
    """Whether a name ends as that of a file of rows does."""
    return _suffix(Path(name)) in _READERS


def read_rows(path: Path) -> list[PlacedRow]:
    """Every row of a file, without fields that hold nothing.

    Raises:
        DataError: the file cannot be read, or a row, named by its place, is malformed.
    """
    rows = _READERS[_suffix(path)](path)
    if not rows:
        raise DataError(f"{path} has no rows; expected one JSON object a line")
    return lm_eval_rows([(where, filled(row)) for where, row in rows])


def check_there(path: Path, remedy: str = "check the path") -> None:
    """Refuse the path of a file that does not exist.

    Raises:
        DataError: says why.
    """
    try:
        path.stat()
    except (OSError, ValueError) as error:
        raise _cannot_read(path, error, remedy) from error


def _suffix(path: Path) -> str:
    return path.suffix if path.suffix != COMPRESSED else Path(path.stem).suffix + COMPRESSED


def _content(path: Path) -> bytes:
    try:
        if path.suffix != COMPRESSED:
            return regular(path).read_bytes()
        with gzip.open(regular(path)) as file:
            content = file.read(MOST_UNPACKED + 1)
    except (OSError, ValueError, EOFError, zlib.error) as error:
        raise _cannot_read(path, error) from error
    if len(content) > MOST_UNPACKED:
        raise DataError(f"{path} unpacks to more than {MOST_UNPACKED:,} bytes; give a part of it")
    return content


def _cannot_read(path: Path, error: Exception, remedy: str = "check the path") -> DataError:
    """The error for a file that cannot be read; a `ValueError` is one of a name that none has."""
    reason = getattr(error, "strerror", None) or error
    return DataError(f"cannot read {str(path)[:300]}: {reason}; {remedy}")


def _text(content: bytes, where: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 ({error.reason}); save it as UTF-8") from error


def _json_lines(path: Path) -> list[PlacedRow]:
    """(place in the file, object) of every line that is not blank."""
    lines = _content(path).removeprefix(b"\xef\xbb\xbf").split(b"\n")
    return [
        _object(_parsed(line, f"{path}, line {number}"), f"{path}, line {number}", b"\\u" in line)
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]


def _json_list(path: Path) -> list[PlacedRow]:
    """(place in the file, object) of every entry of a list."""
    content = _content(path).removeprefix(b"\xef\xbb\xbf")
    rows = _parsed(content, str(path), "a list of objects, or one object a line in a .jsonl file")
    if not isinstance(rows, list):
        raise DataError(f"{path} holds {type(rows).__name__}; expected a list of objects [{{...}}]")
    escaped = b"\\u" in content
    return [_object(row, f"{path}, row {number}", escaped) for number, row in enumerate(rows, 1)]


def _parsed(content: bytes, where: str, expected: str = "one object a line") -> Any:
    text = _text(content, where)
    try:
        return json.loads(text)
    except RecursionError as error:
        raise DataError(f"{where}: not JSON (nested too deep); expected {expected}") from error
    except ValueError as error:
        reason = getattr(error, "msg", None) or "a number of too many digits"
        raise DataError(f"{where}: not JSON ({reason}); expected {expected}") from error


def _object(row: Any, where: str, escaped: bool) -> PlacedRow:
    if not isinstance(row, dict):
        raise DataError(f"{where}: {type(row).__name__} instead of an object {{...}}")
    if escaped:
        _check_whole(row, where)
    return where, row


def _check_whole(row: Mapping[str, Any], where: str) -> None:
    """Refuse half of a surrogate pair, which is no character, so no tokenizer or file takes it."""
    for name, value in row.items():
        if not is_whole({name: value}):
            field = name.encode(errors="backslashreplace").decode()
            raise DataError(
                f"{where}: `{field}` holds half of a surrogate pair; write whole characters"
            )


def _csv(path: Path) -> list[PlacedRow]:
    """(place in the file, row) of a table with a header; empty cells hold nothing."""
    text = _text(_content(path).removeprefix(b"\xef\xbb\xbf"), str(path))
    csv.field_size_limit(2**27)
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    rows = []
    try:
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            if None in row or None in row.values():
                raise DataError(f"{where}: other cells than the header has; quote commas in texts")
            rows.append((where, {name: _cell(name, cell) for name, cell in row.items() if cell}))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not CSV ({error})") from error
    return rows


def _cell(name: str, cell: str) -> Any:
    if name in CSV_LISTS and cell.startswith("["):
        try:
            return json.loads(cell)
        except (ValueError, RecursionError):
            return cell
    return cell


def _parquet(path: Path) -> list[PlacedRow]:
    import pyarrow
    from pyarrow import parquet

    try:
        rows = parquet.read_table(regular(path)).to_pylist()
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"cannot read {path}: {reason}; check that it is a Parquet file") from error
    return [(f"{path}, row {number}", _plain(row)) for number, row in enumerate(rows, start=1)]


def _plain(value: Any) -> Any:
    """The value as JSON has it; what JSON does not know, as dates, as a text."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _inspect(path: Path) -> list[PlacedRow]:
    check_there(path)
    return inspect_rows(regular(path))


_READERS: dict[str, Callable[[Path], list[PlacedRow]]] = {
    ".jsonl": _json_lines,
    ".jsonl.gz": _json_lines,
    ".json": _json_list,
    ".json.gz": _json_list,
    ".csv": _csv,
    ".csv.gz": _csv,
    ".parquet": _parquet,
    ".eval": _inspect,
}
