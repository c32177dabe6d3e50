"""Digests of files that are cheap enough to be taken again whenever work goes on.

Changes when other bytes of a file are read. A file of a few megabytes is read whole. Of a larger
one its size is taken, and blocks all over it: of a safetensors file the header, and blocks of every
tensor, so that a tensor which was replaced is noticed whichever it is. Training changes nearly all
numbers of a tensor, so that any block of it tells. What is missed is a change of single numbers
between the blocks of a large tensor.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

WHOLE = 4 * 1024**2
"""Bytes up to which a file is read whole."""
BLOCK = 1024
TENSOR_BLOCKS, FILE_BLOCKS = 4, 256
"""Blocks read of every tensor, and of a large file that has none."""
HEADER = 100 * 1024**2
"""Bytes of the longest header that safetensors reads."""
DIGITS = 16
"""Of a digest: that two different files have the same is as likely as 1 in 2 ** 64."""

READ_WITH_A_MODEL = (".json", ".safetensors", ".model", ".txt", ".jinja", ".tiktoken")
"""Weights, configurations, tokenizers and chat templates."""


def digest_of(content: bytes) -> str:
    """The digest of bytes."""
    return hashlib.sha256(content).hexdigest()[:DIGITS]


def file_digest(path: Path) -> str:
    """The digest of a file, by its size and some of its bytes where it is large.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size <= WHOLE:
            return digest_of(file.read())
        found = hashlib.sha256(str(size).encode())
        for start, stop in _blocks(file.fileno(), size):
            found.update(os.pread(file.fileno(), stop - start, start))
    return found.hexdigest()[:DIGITS]


def whole_digest(path: Path) -> str:
    """The digest of all of a file, whatever its size.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:DIGITS]


def joint_digest(paths: Iterable[Path]) -> str:
    """One digest of several files, of those that are there, whatever their folder is called.

    Raises:
        OSError: one cannot be read.
    """
    found = (f"{path.name} {file_digest(path)}\n" for path in paths if path.is_file())
    return digest_of("".join(found).encode())


def folder_digest(folder: Path, suffixes: Collection[str]) -> str:
    """One digest of all files in a folder, and in those within, whose names end so.

    Raises:
        OSError: one cannot be read.
    """
    return joint_digest(sorted(each for each in folder.rglob("*") if each.suffix in suffixes))


def model_files(folder: Path) -> dict[str, str]:
    """File name -> digest of what a model and its tokenizer are read from.

    Raises:
        OSError: one cannot be read.
    """
    paths = (path for path in folder.iterdir() if path.suffix in READ_WITH_A_MODEL)
    return {path.name: file_digest(path) for path in sorted(paths) if path.is_file()}


def _blocks(file: int, size: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of the blocks to read, of a file that is larger than they are together."""
    try:
        length = int.from_bytes(os.pread(file, 8, 0), "little")
        first = 8 + length
        header = json.loads(os.pread(file, length, 8)) if length <= min(size, HEADER) else {}
        tensors = [each["data_offsets"] for name, each in header.items() if name != "__metadata__"]
        spans = [(first + start, first + stop) for start, stop in tensors if 0 <= start <= stop]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        spans = []
    if not spans:
        yield from _spread(0, size, FILE_BLOCKS)
        return
    yield 0, first
    for start, stop in spans:
        yield from _spread(start, min(stop, size), TENSOR_BLOCKS)


def _spread(start: int, stop: int, count: int) -> Iterator[tuple[int, int]]:
    """Blocks from the first to the last of a span; the whole span where it is no longer."""
    if stop - start <= count * BLOCK:
        yield start, max(start, stop)
        return
    last = stop - BLOCK
    for index in range(count):
        begin = start + (last - start) * index // (count - 1)
        yield begin, begin + BLOCK
