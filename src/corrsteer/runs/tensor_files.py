"""Tensors as the bytes of a safetensors file, the same for the same content.

Changes when the format does. The library writes metadata in the order of a hash that each process
draws anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from safetensors.torch import save
from torch import Tensor

_SIZE_BYTES = 8
"""Of the header's length, in front of it; headers are padded to a multiple of it."""


def tensor_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file whose metadata are in the order of their names."""
    content = save(dict(tensors), dict(metadata))
    end = _SIZE_BYTES + int.from_bytes(content[:_SIZE_BYTES], "little")
    header = json.loads(content[_SIZE_BYTES:end])
    header["__metadata__"] = dict(sorted(metadata.items()))
    ordered = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    ordered += b" " * (-len(ordered) % _SIZE_BYTES)
    return len(ordered).to_bytes(_SIZE_BYTES, "little") + ordered + content[end:]
