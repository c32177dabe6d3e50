"""Feed mutated bytes to a reader of foreign files: `python scripts/fuzz.py READER [libFuzzer's]`.

Readers are those of `FILES`; several (`run,log`), or `all`, go one a core. They begin from the runs
in tests/data, and what is JSON, or has a header of JSON, is mutated by its fields as often as by
its bytes. Each may refuse by an error of CorrSteer; any other error is a finding, and libFuzzer
keeps the bytes.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["corrsteer"]):
    from corrsteer.errors import CorrSteerError
    from corrsteer.execution.journal import Journal
    from corrsteer.hook_points import HookPoint
    from corrsteer.method.evidence import family_wise
    from corrsteer.method.ranking import rank
    from corrsteer.method.reselect import merge
    from corrsteer.report import render
    from corrsteer.runs.activation_log import LOG_FILE, OUTCOMES_FILE
    from corrsteer.runs.folder import (
        EVALUATION_FILE,
        FEATURES_FILE,
        load_run,
    )
    from corrsteer.runs.location import RUN_FILE
    from corrsteer.runs.predictions_file import PREDICTIONS_FILE
    from corrsteer.runs.statistics_file import STATISTICS_FILE
    from corrsteer.runs.steering import FILE_NAME
    from corrsteer.settings import FitSettings
    from corrsteer.tasks import load_task

RUNS = Path(__file__).parents[1] / "tests" / "data"
FILES = {
    "steering": FILE_NAME,
    "statistics": STATISTICS_FILE,
    "run": RUN_FILE,
    "features": FEATURES_FILE,
    "evaluation": EVALUATION_FILE,
    "log": LOG_FILE,
    "outcomes": OUTCOMES_FILE,
    "predictions": PREDICTIONS_FILE,
    "jsonl": "task.jsonl",
    "journal": "null.json.partial",
}
LINES = {
    "jsonl": b'{"id": 1, "prompt": "a", "target": ["b"], "choices": ["b", "c"], "split": "fit"}\n'
    b'{"messages": [{"role": "user", "content": "a"}], "target": "b", "split": "test"}\n',
    "journal": b'{"task": "t"}\n{"record": {"part": "coverage"}, "sha256": '
    b'"cf2d3488a0447fe2d0a7e0c1d50c943f51cde6af9168e7611ffda6a32de63b5b"}\n',
}
ODD: tuple[Any, ...] = (
    None, True, 0, -1, 0.5, 1e308, float("nan"), float("inf"), 2**63, 10**400, "", "a", "\0",
    "\ud800", "../x", "blocks.0.hook_resid_post", [], [0], {}, {"a": 1}, [[[[]]]],
)  # fmt: skip
"""What a field may be in place of what it should be."""


def corpus(reader: str) -> list[bytes]:
    """Well-formed bytes to begin from."""
    if reader in LINES:
        return [LINES[reader]]
    return [path.read_bytes() for path in sorted(RUNS.glob(f"*/{FILES[reader]}"))]


def reads(reader: str, folder: Path) -> Callable[[bytes], None]:
    """What is called with every input."""
    path = folder / FILES[reader]

    def read(content: bytes) -> None:
        path.write_bytes(content)
        try:
            if reader == "jsonl":
                load_task(path, scorer="regex:a")
            elif reader == "journal":
                Journal(path, {"task": "t"})
            else:
                read_run(folder, reader)
        except CorrSteerError:
            pass

    return read


def read_run(folder: Path, reader: str) -> None:
    """Read a run, and do with what the reader reads what commands do with it."""
    run = load_run(folder)
    if reader == "statistics":
        rank({HookPoint.parse(name): each for name, each in run.statistics.items()})
    elif reader in ("log", "outcomes") and run.log is not None:
        family_wise(run.log, FitSettings(permutations=8))
    else:
        render(run)
        if reader == "run":
            merge({"one": run, "another": run})


def mutated(content: bytes, size: int, seed: int) -> bytes:
    """Bytes as libFuzzer mutates them, or with one field of their JSON replaced or left out."""
    draw = random.Random(seed)
    length = int.from_bytes(content[:8], "little") if len(content) > 8 else 0
    safetensors = 0 < length <= len(content) - 8
    text = content[8 : 8 + length] if safetensors else content
    if draw.random() < 0.5:
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            document = None
        if document:
            replace_field(document, draw)
            text = json.dumps(document).encode()
            if safetensors:
                text = len(text).to_bytes(8, "little") + text + content[8 + length :]
            return text[:size]
    return bytes(atheris.Mutate(content, size))


def replace_field(document: Any, draw: random.Random) -> None:
    """Make one field of a document another, or none."""
    while isinstance(document, dict | list) and document:
        keys = list(document) if isinstance(document, dict) else range(len(document))
        key = draw.choice(list(keys))
        if not document[key] or not isinstance(document[key], dict | list) or draw.random() < 0.2:
            if draw.random() < 0.2:
                del document[key]
            else:
                document[key] = draw.choice(ODD)
            return
        document = document[key]


def fuzz_apart(reader: str) -> int:
    """The exit code of fuzzing one reader in a process of its own, told of once it has ended."""
    command = [sys.executable, __file__, reader, *sys.argv[1:]]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    print(f"--- {reader}\n{done.stderr}", file=sys.stderr, flush=True)
    return abs(done.returncode)


def main() -> None:
    """Fuzz the reader named first."""
    reader = sys.argv.pop(1) if len(sys.argv) > 1 else ""
    several = list(FILES) if reader == "all" else reader.split(",")
    if len(several) > 1 and FILES.keys() >= set(several):
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            sys.exit(max(pool.map(fuzz_apart, several)))
    if reader not in FILES:
        raise SystemExit(f"which reader? choose all, {', '.join(FILES)}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "run"
        shutil.copytree(RUNS / "run-1", folder)
        seeds = Path(temporary) / "seeds"
        seeds.mkdir()
        for number, content in enumerate(corpus(reader)):
            (seeds / str(number)).write_bytes(content)
        atheris.Setup(
            [*sys.argv, "-timeout=60", "-max_len=65536", str(seeds)],
            reads(reader, folder),
            custom_mutator=mutated,
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main()
