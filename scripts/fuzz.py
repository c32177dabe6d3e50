"""Feed mutated bytes to a reader of foreign files: `python scripts/fuzz.py READER [libFuzzer's]`.

Readers: steering, statistics, run, features, evaluation, log, predictions, jsonl. Each may refuse
by an error of CorrSteer; any other error is a finding, and libFuzzer keeps the bytes. Needs
atheris (`make fuzz`).
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["corrsteer"]):
    import torch

    from corrsteer.activation_log import LOG_FILE, Entries, LogWriter
    from corrsteer.artifacts import (
        EVALUATION_FILE,
        FEATURES_FILE,
        PREDICTIONS_FILE,
        RUN_FILE,
        STATISTICS_FILE,
        Provenance,
        Run,
        load_run,
    )
    from corrsteer.config import FitSettings
    from corrsteer.correlation import StreamingCorrelation
    from corrsteer.errors import CorrSteerError
    from corrsteer.hook_points import HookPoint
    from corrsteer.report import render
    from corrsteer.steering import FILE_NAME, Steering
    from corrsteer.tasks import load_task

HOOK = HookPoint(0, "resid_post")
FILES = {
    "steering": FILE_NAME,
    "statistics": STATISTICS_FILE,
    "run": RUN_FILE,
    "features": FEATURES_FILE,
    "evaluation": EVALUATION_FILE,
    "log": LOG_FILE,
    "predictions": PREDICTIONS_FILE,
    "jsonl": "task.jsonl",
}


def make_run(folder: Path) -> Path:
    """A small run of one hook point, written as any other."""
    z, y = torch.tensor([[0.0, 2.0], [1.0, 0.0], [3.0, 1.0]]), torch.tensor([0.0, 1.0, 1.0])
    writer = LogWriter({HOOK.name: 2})
    writer.add(Entries.of(["a", "b", "c"], y.tolist(), {HOOK.name: z}))
    provenance = Provenance("mini", None, "raw", {HOOK.name: "raw"}, 0, "t", "exact", 3, (), {})
    run = Run(
        provenance,
        FitSettings(strategy="S"),
        {HOOK.name: StreamingCorrelation(2).update(z, y)},
        (),
        {HOOK.name: ()},
        Steering({HOOK: torch.ones(4)}, (), "mini"),
        log=writer.close(),
    )
    return run.save(folder / "run")


def seed_of(reader: str, folder: Path) -> bytes:
    """Well-formed bytes to begin from, as far as a small run has them."""
    if reader == "jsonl":
        return b'{"id": 1, "prompt": "a", "target": ["b"], "split": "fit"}\n'
    path = folder / FILES[reader]
    return path.read_bytes() if path.exists() else b'{"schema": "corrsteer.run/1"}'


def reads(reader: str, folder: Path) -> Callable[[bytes], None]:
    """What is called with every input."""
    path = folder / FILES[reader]

    def read(content: bytes) -> None:
        path.write_bytes(content)
        try:
            if reader == "jsonl":
                load_task(path, scorer="regex:a")
                return
            run = load_run(folder)
            if run.log is not None:
                run.log.activations(HOOK.name)
            render(run)
        except CorrSteerError:
            pass

    return read


def main() -> None:
    """Fuzz the reader named first."""
    reader = sys.argv.pop(1) if len(sys.argv) > 1 else ""
    if reader not in FILES:
        raise SystemExit(f"which reader? choose {', '.join(FILES)}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = make_run(Path(temporary))
        seeds = Path(temporary) / "seeds"
        seeds.mkdir()
        (seeds / "whole").write_bytes(seed_of(reader, folder))
        atheris.Setup([*sys.argv, "-timeout=10", str(seeds)], reads(reader, folder))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
