"""Runs that are killed by the system, in processes of their own; `make kills` does many."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "scripts" / "kill_and_resume.py"


def test_kills_at_random_moments_change_nothing():
    command = [sys.executable, str(SCRIPT), "--kills", "1", "--kinds", "train"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of 1 ended identical" in done.stdout
