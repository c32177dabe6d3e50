"""What a run costs: seconds a stage, and peak memory.

Changes when another cost is recorded.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Stopwatch:
    """Seconds spent in each stage.

    Attributes:
        seconds: stage -> seconds so far.
    """

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timing(self, stage: str) -> Iterator[None]:
        """Add the time inside to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start


def peak_memory_mb() -> float:
    """The most memory this process has held so far, in MB of 10^6 bytes.

    On a GPU machine that is the host's memory only.
    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    kilobytes = peak / 1024 if sys.platform == "darwin" else peak  # macOS counts bytes
    return kilobytes * 1024 / 1e6
