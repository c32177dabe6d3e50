"""Mutated bytes for readers that are drawn, for some seconds each; `make fuzz` takes them all."""

import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "fuzz.py"
READERS = 2
SECONDS = 5


def fuzz(readers, folder):
    command = [sys.executable, str(SCRIPT), readers, f"-max_total_time={SECONDS}"]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder)


def test_no_reader_breaks_by_mutated_bytes(tmp_path):
    pytest.importorskip("atheris")  # not for every platform
    known = re.findall(r"(\w+)(?:, |$)", fuzz("none", tmp_path).stderr.split("choose all, ")[1])
    assert len(known) > 8
    done = fuzz(",".join(random.sample(known, READERS)), tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stderr.count("Done ") == done.stderr.count("--- ") == READERS
