"""A steering in the formats of other programs.

Changes when there is another one: give it a file of its own beside `base.Consumer`, and a place
in `CONSUMERS`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from corrsteer.errors import ArtifactError, ConsumerError, unknown
from corrsteer.export.base import Consumer, Exported
from corrsteer.export.harness import LmEval
from corrsteer.export.llama_cpp import LlamaCpp
from corrsteer.export.plain import PlainTorch
from corrsteer.export.vllm import Vllm
from corrsteer.files import check_free, whole_folder, write_whole
from corrsteer.runs.steering import Steering

__all__ = ["CONSUMERS", "Consumer", "Exported", "export", "find_consumer", "render", "write"]

CONSUMERS: dict[str, Consumer] = {
    each.name: each for each in (LmEval(), LlamaCpp(), PlainTorch(), Vllm())
}


ALIASES = {"llama.cpp": "gguf", "repeng": "gguf", "easysteer": "gguf"}
"""Programs by the name of the format they read."""


def find_consumer(name: str, others: Collection[str] = ()) -> Consumer:
    """The consumer of that name.

    Args:
        name: of the consumer, or of its format.
        others: what could have been given as well, for the error to name.

    Raises:
        UnknownNameError: there is none.
    """
    name = ALIASES.get(name, name)
    if name not in CONSUMERS:
        known = [*CONSUMERS, *others]
        raise unknown("consumer", name, known, f"choose {', '.join(known)}")
    return CONSUMERS[name]


def export(
    steering: Steering,
    to: str,
    out: str | Path,
    drop_block_0: bool = False,
) -> Exported:
    """Write a steering for a consumer, whole or not at all.

    Args:
        steering: what to write, at its own strength.
        to: name of the consumer.
        out: a new file, or a new folder for consumers that take one.
        drop_block_0: see `Consumer.render`.

    Returns:
        what was written.

    Raises:
        CorrSteerError: nothing was written: an unknown consumer, one that cannot take this
            steering, or a place that is taken or cannot be written to.
    """
    consumer, path = find_consumer(to), Path(out)
    if consumer.suffix and path.suffix != consumer.suffix:
        raise ConsumerError(
            f"--out is {str(path)!r}, and {to} reads {consumer.suffix} files; "
            f"name it {path.name}{consumer.suffix}"
        )
    place = check_free(path)
    if consumer.suffix and place.is_dir():
        raise ArtifactError(f"{place} is a folder; choose a file for --out")
    exported = render(consumer, steering, drop_block_0)
    write(exported, path)
    return exported


def render(consumer: Consumer, steering: Steering, drop_block_0: bool = False) -> Exported:
    """A steering in a consumer's format; refused if there is nothing to steer by.

    Raises:
        ConsumerError: it does nothing, or the consumer cannot do it.
    """
    if not steering.scaled():
        raise ConsumerError(
            f"there is nothing to steer by at strength {steering.strength:g}: the steering has "
            f"{steering.described}; take a run that recommends some"
        )
    return consumer.render(steering, drop_block_0)


def write(exported: Exported, path: Path) -> None:
    """Write what was rendered, whole or not at all.

    Raises:
        ArtifactError: the place cannot be written to.
    """
    if isinstance(exported.content, bytes):
        write_whole(path, exported.content)
    else:
        _write_folder(path, exported.content)


def _write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files into a folder that is new or empty; all of them, or no folder."""
    with whole_folder(folder) as whole:
        for name, content in files.items():
            write_whole(whole / name, content)
