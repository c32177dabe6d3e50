"""What is seen in a terminal: progress, and tables on narrow ones."""

import dataclasses
import os
import pty
import re
import subprocess
import sys

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table

from corrsteer.cli.terminal import add_arm, arm_table, print_arms, print_table
from corrsteer.runs.comparison import paired
from corrsteer.runs.records import Outcome

STAGES = """
import time
from corrsteer.cli.terminal import TerminalProgress
with TerminalProgress() as progress:
    with progress.stage("load model", None):
        time.sleep(0.2)
    with progress.stage("collect", 4000) as advance:
        for _ in range(8):
            time.sleep(0.1)
            advance(32)
"""


def shown(columns, **environment):
    """What a terminal of so many columns is sent on stderr."""
    ours, theirs = pty.openpty()
    variables = os.environ | {"COLUMNS": str(columns), "TERM": "xterm-256color"} | environment
    with subprocess.Popen(
        [sys.executable, "-c", STAGES], stderr=theirs, stdout=subprocess.PIPE, env=variables
    ) as process:
        os.close(theirs)
        sent = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            sent += part
        os.close(ours)
        assert process.stdout.read() == b""
    assert process.returncode == 0
    return sent.decode()


def plain(sent):
    return [line.rstrip() for line in re.split(r"[\r\n]+", re.sub(r"\x1b\[[\d;?]*\w", "", sent))]


@pytest.mark.parametrize("columns", [80, 40])
def test_progress_tells_rate_and_time_left_on_one_line(columns):
    lines = plain(shown(columns))
    assert any(re.search(r"load model.* s$", line) for line in lines)
    assert any(re.search(r"collect.* \d+/4000 [\d.e+]+/s \S+ left$", line) for line in lines), lines
    assert max(map(len, lines)) <= columns


def test_progress_is_without_colour_where_none_is_wanted():
    assert not re.search(r"\x1b\[[\d;]*3\d", shown(80, NO_COLOR="1"))


def test_progress_is_silent_where_there_is_no_terminal():
    done = subprocess.run([sys.executable, "-c", STAGES], capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")


@pytest.mark.parametrize("width", [80, 30, 12])
def test_a_table_loses_nothing_on_a_narrow_screen(width):
    table = Table(box=None, pad_edge=False)
    for column in ("arm", "accuracy % [95 %]", ""):
        table.add_column(column, no_wrap=True)
    table.add_row("recommended G x 0.5", "81.8 [78.2, 84.9]", "passed")
    table.add_row("baseline", "58.4 [54.0, 62.6]", "")
    console = Console(width=width)
    with console.capture() as capture:
        print_table(console, table)
    lines = capture.get().splitlines()
    assert max(map(len, lines)) <= width
    text = " ".join(" ".join(lines).split())
    if width == 80:
        assert re.search(r"^baseline +58.4 \[54.0, 62.6\] *$", lines[-1])
    else:
        assert text.startswith("arm recommended G x 0.5; accuracy % [95 %] 81.8 [78.2, 84.9]; ")
        assert text.endswith("passed arm baseline; accuracy % [95 %] 58.4 [54.0, 62.6]")


@pytest.mark.parametrize(("before", "after"), [(0, 3), (2, 0), (0, 0), (None, None)])
def test_replies_that_nothing_was_read_out_of_are_in_the_table_of_arms(before, after):
    outcomes = np.array([0.0, 1.0, 1.0, 0.0, 1.0])
    found = paired(outcomes, outcomes[::-1].copy(), np.zeros(5, dtype=bool))
    unread = None if before is None else (before, after)
    arm = Outcome.of(dataclasses.replace(found, unread=unread))
    assert arm.unread == after
    table = arm_table(found.baseline, before)
    add_arm(table, "A x 1", arm)
    add_arm(table, "P x 1", None)
    console = Console(width=120)
    with console.capture() as capture:
        print_arms(console, table)
    head, *rows = capture.get().splitlines()
    assert ("unread" in head) == bool(before or after)
    assert rows[0].rstrip().endswith(f"{before}" if before else "]")
    assert rows[1].rstrip().endswith(f"{after}" if after else "0.50")
    told = "unread: nothing could be read out of the reply, so it counts as wrong"
    assert (told in rows) == bool(before or after)
