"""What is said and done where a device has too little memory.

Changes when another library tells of it in another way.
"""

from __future__ import annotations

import torch

NO_ROOM = (
    "out of memory with one sample at a time; use shorter prompts or replies, --dtype bfloat16, "
    "fewer --layers, or a device with more memory"
)
"""Where one sample alone does not fit."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device, or this machine, has no memory left."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        "DefaultCPUAllocator" in str(error)
    )
