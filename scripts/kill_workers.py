"""Kill workers of a local Ray cluster at random moments, and compare what the runs leave.

    python scripts/kill_workers.py --runs 10

Each run trains on the built-in model with two workers, of which one is killed by SIGKILL at a
moment drawn uniformly over the time that the workers live. It must end by itself, and leave what
one process alone leaves, byte for byte, but for what it cost. Prints also what each stage took.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from kill_and_resume import COMMANDS, finish, left_by, made, start

COMMAND = f"{COMMANDS['train']} --engine ray --workers 2"


def workers_below(process: int) -> list[int]:
    """Process ids of the workers that a process has started, through others."""
    parents, workers = {}, []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            name = (folder / "cmdline").read_bytes()
            parents[int(folder.name)] = int(
                (folder / "stat").read_text().rsplit(")", 1)[1].split()[1]
            )
        except OSError:
            continue  # it has ended meanwhile
        if name.startswith(b"ray::_Worker"):
            workers.append(int(folder.name))

    def is_below(child: int) -> bool:
        while child > 1 and child != process:
            child = parents.get(child, 0)
        return child == process

    return sorted(filter(is_below, workers))


def wait_for_workers(process: int) -> list[int]:
    """The workers of a process, once there are two."""
    while len(found := workers_below(process)) < 2:
        time.sleep(0.1)
    return found


def main() -> None:
    """Print a line a run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=42)
    options = parser.parse_args()
    draw, bad = random.Random(options.seed), 0
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        alone, together = made(root / "alone"), made(root / "together")
        finish(start(COMMANDS["train"], alone), alone)
        process = start(COMMAND, together)
        wait_for_workers(process)
        begun = time.monotonic()
        finish(process, together)
        working = time.monotonic() - begun
        expected = left_by(alone)
        print(f"undisturbed: {'identical' if left_by(together) == expected else 'DIFFERENT'}")
        for folder in (alone, together):
            seconds = json.loads((folder / "run" / "evaluation.json").read_text())["seconds"]
            told = ", ".join(f"{stage} {took:.1f} s" for stage, took in seconds.items())
            print(f"{folder.name}: {told}")
        number = killed = 0
        while killed < options.runs:
            folder, number = made(root / str(number)), number + 1
            process, moment = start(COMMAND, folder), draw.uniform(0, working)
            wait_for_workers(process)
            time.sleep(moment)
            workers = workers_below(process)
            if workers:  # or the run was faster than the first
                os.kill(draw.choice(workers), signal.SIGKILL)
            finish(process, folder)
            same = left_by(folder) == expected
            killed, bad = killed + bool(workers), bad + (not same)
            told = f"worker killed at {moment / working:.0%}" if workers else "ended before"
            print(f"{told}: {'identical' if same else 'DIFFERENT'}", flush=True)
    print(f"{killed} runs lost a worker; {number - bad} of {number} runs ended identical")
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
