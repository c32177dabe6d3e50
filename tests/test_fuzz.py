"""Mutated bytes for every reader, for some seconds each; `make fuzz` takes longer."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "fuzz.py"
SECONDS = 12


def test_no_reader_breaks_by_mutated_bytes(tmp_path):
    pytest.importorskip("atheris")  # not for every platform
    command = [sys.executable, str(SCRIPT), "all", f"-max_total_time={SECONDS}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stderr.count("Done ") == done.stderr.count("--- ") > 8
