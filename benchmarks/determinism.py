"""What is the same, to the byte, when a run is made again, and how far it is off where it is not.

    python benchmarks/determinism.py
    python benchmarks/determinism.py --task mini-harmbench --device cuda

Runs `corrsteer train` in processes of their own: twice alike, then with another number of threads,
other batch sizes and in bfloat16. Prints Markdown: which files of the run folder differ from the
first run's in any byte (times and memory in JSON left out), the largest difference in r over all
latents, layers whose best feature is another, and test replies that are.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import corrsteer
from corrsteer.runs.folder import load_run
from corrsteer.runs.run import Run

MEASURED = ("seconds", "peak_memory_mb")
SOURCE = str(Path(corrsteer.__file__).parents[1])
TRAIN = [sys.executable, "-c", "from corrsteer.cli import main; main()", "train"]
VARIANTS: dict[str, tuple[int, dict[str, Any]]] = {
    "again": (1, {}),
    "2 threads": (2, {}),
    "batches of 16": (1, {"batch-size": 16}),
    "batches of 8": (1, {"batch-size": 8}),
    "bfloat16": (1, {"dtype": "bfloat16"}),
}
"""Name -> threads, and options beside the first run's."""


def train(folder: Path, threads: int, options: dict[str, Any]) -> Run:
    """The run that `train` writes into a folder, in a process of its own."""
    given = [f"--{name}={value}" for name, value in options.items()]
    folder.mkdir()
    subprocess.run(
        [*TRAIN, *given, "--out=run", "--json"],
        check=True,
        capture_output=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": SOURCE, "OMP_NUM_THREADS": str(threads)},
    )
    return load_run(folder / "run")


def computed(path: Path) -> bytes:
    """The bytes of a file, without times and memory where it is JSON."""
    if path.suffix != ".json":
        return path.read_bytes()

    def kept(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: kept(each) for key, each in value.items() if key not in MEASURED}
        return [kept(each) for each in value] if isinstance(value, list) else value

    return json.dumps(kept(json.loads(path.read_text(encoding="utf-8")))).encode()


def differing(one: Path, other: Path) -> str:
    """Files of two run folders that differ; the report, which shows times, is left out."""
    names = sorted(path.name for path in one.iterdir() if path.suffix != ".html")
    found = [name for name in names if computed(one / name) != computed(other / name)]
    return ", ".join(found) or "none"


def compare(first: Run, other: Run) -> tuple[float, int, int]:
    """Largest difference in r, layers with another best feature, and other replies."""
    largest = 0.0
    for hook, statistics in first.statistics.items():
        pair = statistics.correlation().numpy(), other.statistics[hook].correlation().numpy()
        largest = max(largest, float(np.nanmax(np.abs(pair[0] - pair[1]))))
    layers = sum(
        [feature.latent for feature in found[:1]]
        != [feature.latent for feature in other.top_features[hook][:1]]
        for hook, found in first.top_features.items()
    )
    replies = sum(
        one.steered_text != two.steered_text
        for one, two in zip(first.predictions, other.predictions, strict=True)
    )
    return largest, layers, replies


def main() -> None:
    """Print the table, a row as soon as it is measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", default="mini")
    parser.add_argument("--task", default="mini-mmlu")
    parser.add_argument("--strategy", default="A")
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--val-limit", type=int, default=100)
    parser.add_argument("--test-limit", type=int, default=400)
    parser.add_argument("--controls", type=int, default=2)
    parser.add_argument("--permutations", type=int, default=1000)
    parser.add_argument("--device", default="cpu")
    asked = {name.replace("_", "-"): value for name, value in vars(parser.parse_args()).items()}
    print("| run | files that differ | largest difference in r | other best | other replies |")
    print("|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        first = train(root / "first", 1, asked)
        for name, (threads, changes) in VARIANTS.items():
            other = train(root / name, threads, asked | changes)
            files = differing(root / "first" / "run", root / name / "run")
            largest, layers, replies = compare(first, other)
            counts = (
                f"{layers} of {len(first.top_features)} | {replies} of {len(first.predictions)}"
            )
            print(f"| {name} | {files} | {largest:.1e} | {counts} |", flush=True)


if __name__ == "__main__":
    main()
