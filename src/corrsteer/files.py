"""Places in the file system, files and folders whole or not at all: written so, and read so.

Changes when what must survive a crash or a full disk changes, or what a whole checkpoint is.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from corrsteer.errors import ArtifactError, CorrSteerError

UNFINISHED = ".partial"
"""How the names end of folders that keep unfinished work."""

_OWN, _LOCK_FILE = ".corrsteer-", "lock"
"""How the names begin of folders in which something is made before it takes its place."""

NAME_BYTES = 255
"""The longest name that file systems take."""


def place_of(path: str | Path) -> Path:
    """Where a path leads: absolute, with `~` and links followed. Nothing need be there.

    Raises:
        ArtifactError: it is no name of a file, or a link in it leads nowhere.
    """
    try:
        given = expanded(path)
        for each in (given, *given.parents):
            if each.is_symlink() and not each.exists():
                raise ArtifactError(
                    f"{each} is a link to {os.readlink(each)}, which is not there; make that "  # noqa: PTH115
                    "folder, or choose another --out"
                )
        return Path(os.path.realpath(given))
    except OSError as error:
        raise cannot_write(Path(path), error) from error
    except ValueError as error:
        raise ArtifactError(f"--out {str(path)!r} is no name of a file ({error})") from error


def expanded(path: str | Path) -> Path:
    """The path with `~` followed; one of a user that is not known stays as it is."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - pathlib's raises an error for those


def regular(path: Path) -> Path:
    """The path itself, that of a file, of a folder whose entries are files and folders, or of none.

    Raises:
        OSError: it is a pipe or a device, which has no end or never answers, or holds one.
    """
    entries = path.iterdir() if path.is_dir() else (path,)
    for each in entries:
        if each.exists() and not each.is_file() and not each.is_dir():
            raise OSError(errno.EINVAL, f"{each.name} is a pipe or a device, not a file")
    return path


def check_place(path: str | Path) -> Path:
    """`place_of` a path, checked before any work to be one that can be written to.

    Raises:
        ArtifactError: it cannot.
    """
    place = place_of(path)
    if any(len(os.fsencode(name)) > NAME_BYTES for name in place.parts):
        raise cannot_write(place, OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG)))
    there = next(each for each in (place, *place.parents) if each.exists())
    if there != place and not there.is_dir():
        raise ArtifactError(f"{there} is a file; choose another --out")
    folder = there if there.is_dir() else there.parent
    if not can_write(folder):
        raise ArtifactError(f"cannot write to {folder}; choose another --out")
    return place


def check_free(path: str | Path) -> Path:
    """`check_place` a path, and that nothing is there but perhaps an empty folder.

    Raises:
        ArtifactError: something is there, or it cannot be written to.
    """
    place = check_place(path)
    if contents(place):
        raise ArtifactError(f"{place} holds other files; choose a new or empty --out")
    if place.exists() and not place.is_dir():
        raise ArtifactError(f"{place} exists already; choose another --out, or remove it")
    return place


def can_write(folder: Path) -> bool:
    """Whether files can be made in a folder."""
    return os.access(folder, os.W_OK | os.X_OK)


def contents(folder: Path) -> set[str]:
    """Names in a folder, without those of work that is under way there; none if it is not there.

    Raises:
        ArtifactError: it cannot be read.
    """
    try:
        names = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
    except OSError as error:
        raise ArtifactError(f"cannot read {folder}: {error.strerror or error}") from error
    return {name for name in names if name != UNFINISHED and not name.startswith(_OWN)}


def unfinished_place(result: Path) -> Path:
    """Where the work towards a result is kept until it is finished: beside the place of the result.

    Inside of it where that is a folder which is a volume of its own or whose parent cannot be
    written to.

    Raises:
        ArtifactError: the result's place is no name of a file, or a link in it leads nowhere.
    """
    place = place_of(result)
    if place.is_dir() and (place.is_mount() or not can_write(place.parent)):
        return place / UNFINISHED
    name = place.name + UNFINISHED
    if len(os.fsencode(name)) > NAME_BYTES:
        name = hashlib.sha256(os.fsencode(place.name)).hexdigest()[:16] + UNFINISHED
    return place.with_name(name)


def was_interrupted(folder: Path) -> bool:
    """Whether files made by `whole_folder` may have been on their way into the folder."""
    return any(folder.glob(f"{_OWN}*")) or unfinished_place(folder).exists()


def write_whole(path: Path, content: bytes | str) -> None:
    """Write `content` to `path`: it holds either all of it or what it held before.

    Raises:
        ArtifactError: the disk is full, or the place cannot be written to.
    """
    data = content.encode() if isinstance(content, str) else content
    parent = place_of(path.parent)
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with own_folder(parent) as folder:
            whole = folder / "whole"
            with whole.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            whole.replace(parent / path.name)
    except OSError as error:
        raise cannot_write(path, error) from error


@contextmanager
def whole_folder(folder: str | Path, last: str = "") -> Iterator[Path]:
    """A folder to write into, whose files are in `folder` at the end; none after an error.

    A new folder appears at once. Of one that is there, which may be another file system, each file
    appears at once.

    Args:
        folder: where they are to be.
        last: name of the file that appears after all others.

    Raises:
        ArtifactError: the disk is full, or the place cannot be written to.
    """
    place = place_of(folder)
    try:
        new = not place.is_dir()
        parent = place.parent if new else place
        parent.mkdir(parents=True, exist_ok=True)
        with own_folder(parent) as own:
            whole = own / "whole"
            whole.mkdir()
            yield whole
            if new:
                whole.replace(place)
            else:
                for path in sorted(whole.iterdir(), key=lambda path: path.name == last):
                    path.replace(place / path.name)
    except OSError as error:
        raise cannot_write(place, error) from error


@contextmanager
def own_folder(parent: Path | None = None) -> Iterator[Path]:
    """A temporary folder in `parent` for this process alone, which is gone at the end.

    It is held by a lock; those whose processes were killed are removed at the next call.

    Args:
        parent: where it is to be; the system's place for temporary files if None.

    Raises:
        OSError: it cannot be made.
    """
    parent = Path(tempfile.gettempdir()) if parent is None else parent
    for left in parent.glob(f"{_OWN}*"):
        _remove_if_left(left)
    folder, lock = _locked_folder(parent)
    try:
        yield folder
    finally:
        lock.release()
        shutil.rmtree(folder, ignore_errors=True)


def _locked_folder(parent: Path) -> tuple[Path, FileLock]:
    while True:
        folder = Path(tempfile.mkdtemp(dir=parent, prefix=_OWN))
        lock = FileLock(folder / _LOCK_FILE)
        with suppress(Timeout):  # another process took it for one that was left
            lock.acquire(timeout=0)
            return folder, lock


def _remove_if_left(folder: Path) -> None:
    """Remove a temporary folder of ours if no process holds it."""
    with suppress(OSError, Timeout):
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or (os.name == "posix" and found.st_uid != os.geteuid()):
            return
        with FileLock(folder / _LOCK_FILE).acquire(timeout=0):
            shutil.rmtree(folder, ignore_errors=True)


def cannot_write(path: Path, error: OSError) -> ArtifactError:
    """The error for a place that cannot be written to."""
    remedy = "free some space" if error.errno == errno.ENOSPC else "choose another --out"
    return ArtifactError(f"cannot write {str(path)[:300]}: {error.strerror or error}; {remedy}")


def check_weights(what: str, loaded: Mapping[str, Any], error: type[CorrSteerError]) -> None:
    """Refuse a network of transformers that is not what its files say.

    Args:
        what: what the error calls it.
        loaded: what transformers tells of its weights, by `output_loading_info=True` and
            `ignore_mismatched_sizes=True`; weights that are tied to others are not missing there.
        error: what to raise.

    Raises:
        CorrSteerError: weights are missing from its files, of another shape there, or unknown to
            its class.
    """
    missing, unknown = loaded["missing_keys"], loaded["unexpected_keys"]
    unknown = [key for key in unknown if not NO_WEIGHTS.search(key)]
    misshapen = [
        f"{key} {list(found)} in place of {list(expected)}"
        for key, found, expected in loaded["mismatched_keys"]
    ]
    faults = {"lack": missing, "have misshapen": misshapen, "have unknown": unknown}
    told = [f"{fault} weights {_first_few(keys)}" for fault, keys in faults.items() if keys]
    if told:
        raise error(
            f"{what} is not what its files say: they {', and '.join(told)}; save the model again "
            "from its own class, without wrappers, or download it again"
        )


NO_WEIGHTS = re.compile(
    r"(?:^|\.)(?:masked_bias|attn\.bias|attention\.bias|rotary_emb\.inv_freq|position_ids"
    r"|embed_positions)$"
)
"""Tensors of old checkpoints that are computed today: causal masks and tables of positions."""


def _first_few(keys: Iterable[str], few: int = 3) -> str:
    keys = sorted(keys)
    more = f" and {len(keys) - few} more" if len(keys) > few else ""
    return ", ".join(keys[:few]) + more
