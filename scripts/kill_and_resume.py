"""Kill runs on the built-in model at random moments, resume them, and compare what they leave.

    python scripts/kill_and_resume.py --kills 50

Each trial runs a command in a process of its own, kills it by SIGKILL at a moment drawn uniformly
over the time that the command takes, and gives the same command again with --resume until it is
done. What it leaves then must be what an undisturbed run leaves, byte for byte, but for the seconds
and memory that it took. Processes are forks, which spares loading the libraries every time.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # threads do not live through a fork
os.environ["HF_HUB_OFFLINE"] = "1"

SMALL = (
    "--samples 200 --val-limit 60 --test-limit 80 --batch-size 16 --permutations 50 "
    "--strengths 0.5,1"
)
COMMANDS = {
    "train": f"train --task mini-mmlu {SMALL} --controls 3 --json --out run",
    "validate": f"train --task mini-simpleqa --strategy P {SMALL} --json --out run",
    "eval": "eval ../run --task mini-gsm8k --strength 0.5,1 --test-limit 200 --json",
    "study": "study null --task mini-mmlu --runs 10 --val-limit 60 --samples 200 "
    "--permutations 50 --json --out run",
}
RESUMED = {"train", "validate", "eval"}
"""Those that take --resume; a study goes on by itself."""
COSTS = ("seconds", "peak_memory_mb")


def start(command: str, folder: Path) -> int:
    """Run a command of the tool in a fork, its output in files; the process id."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        os.chdir(folder)
        for number, name in ((1, "stdout"), (2, "stderr")):
            handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(handle, number)
        from corrsteer.cli import main

        main(command.split())
        sys.stdout.flush()
        code = 0
    except SystemExit as left:
        code = int(left.code or 0)
    finally:
        os._exit(code)


def finish(process: int, folder: Path) -> None:
    """Wait for a fork that must succeed."""
    _, status = os.waitpid(process, 0)
    if status:
        raise SystemExit(f"status {status}: {(folder / 'stderr').read_text()}")


def left_by(folder: Path) -> dict[str, bytes]:
    """What a run left: file -> content without what it cost, and its report, which shows that."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {
        str(path.relative_to(folder)): _without_costs(path)
        for path in files
        if path.name not in ("stderr", "report.html")
    }


def _without_costs(path: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix != ".json" and path.name != "stdout":
        return content
    document = json.loads(content)
    for name in COSTS:
        document.pop(name, None)
        document.get("counts", {}).pop(name, None)
    return json.dumps(document).encode()


def trial(kind: str, moment: float, folder: Path, expected: dict[str, bytes]) -> tuple[str, bool]:
    """Kill one run at a moment and resume it.

    Returns:
        what was wrong with the end, or ""; and whether any work lay on disk after the kill.
    """
    command = COMMANDS[kind]
    folder.mkdir()
    process = start(command, folder)
    time.sleep(moment)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    kept = any(folder.parent.rglob("results.jsonl")) or any(folder.rglob("null.json.partial"))
    finish(start(f"{command} --resume" if kind in RESUMED else command, folder), folder)
    found = left_by(folder)
    wrong = [name for name in {**found, **expected} if found.get(name) != expected.get(name)]
    return ", ".join(sorted(wrong)), kept


def trials(kinds: Sequence[str], kills: int, seed: int, root: Path) -> Iterator[dict[str, object]]:
    """Every trial's kind, moment and finding."""
    draw = random.Random(seed)
    if "eval" in kinds:  # a run for it to try
        finish(start(COMMANDS["train"], made(root / "first")), root / "first")
        shutil.copytree(root / "first" / "run", root / "run")
    expected, seconds = {}, {}
    for kind in kinds:
        folder = made(root / kind)
        begun = time.monotonic()
        finish(start(COMMANDS[kind], folder), folder)
        seconds[kind], expected[kind] = time.monotonic() - begun, left_by(folder)
    for number in range(kills):
        kind = kinds[number % len(kinds)]
        moment = draw.uniform(0, seconds[kind])
        wrong, kept = trial(kind, moment, root / f"{number}", expected[kind])
        yield {"kind": kind, "at": moment / seconds[kind], "kept": kept, "wrong": wrong}


def made(folder: Path) -> Path:
    """The folder, which is new."""
    folder.mkdir()
    return folder


def main() -> None:
    """Print a line a trial, and how many ended as they should."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--kinds", default=",".join(COMMANDS), help="of " + ", ".join(COMMANDS))
    options = parser.parse_args()
    for module in ("corrsteer.cli.train", "corrsteer.cli.study"):
        import_module(module)  # once, for every fork
    bad = kept = 0
    with tempfile.TemporaryDirectory() as root:
        kinds = options.kinds.split(",")
        for found in trials(kinds, options.kills, options.seed, Path(root)):
            bad += bool(found["wrong"])
            kept += bool(found["kept"])
            told = found["wrong"] or "identical"
            execution = "work on disk" if found["kept"] else "nothing on disk"
            print(f"{found['kind']:9}killed at {found['at']:4.0%}, {execution}: {told}", flush=True)
    print(
        f"{options.kills - bad} of {options.kills} ended identical; "
        f"{kept} were killed with work on disk"
    )
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
