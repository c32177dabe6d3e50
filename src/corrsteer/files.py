"""Writing files and folders whole or not at all.

Changes when what must survive a crash or a full disk changes.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from corrsteer.errors import ArtifactError


def write_whole(path: Path, content: bytes | str) -> None:
    """Write `content` to `path`: it holds either all of it or what it held before.

    Raises:
        ArtifactError: the disk is full, or the place cannot be written to.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files private; give them what the umask allows, as open() would
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)
        Path(temporary).replace(path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise cannot_write(path, error) from error


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to write into, which is moved to `folder` at the end and is gone after an error.

    Raises:
        ArtifactError: `folder` holds files already, the disk is full, or the place cannot be
            written to.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
            whole = Path(temporary) / "whole"
            whole.mkdir()
            yield whole
            whole.replace(folder)
    except OSError as error:
        raise cannot_write(folder, error) from error


def cannot_write(path: Path, error: OSError) -> ArtifactError:
    """The error for a place that cannot be written to."""
    remedy = "free some space" if error.errno == errno.ENOSPC else "choose another --out"
    return ArtifactError(f"cannot write {str(path)[:300]}: {error.strerror or error}; {remedy}")
