"""What reaches the terminal: nothing that acts on it, and one line where it cannot be printed."""

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

from corrsteer.cli.common import quietly
from corrsteer.cli.output import VisibleConsole, print_json, say, tell
from corrsteer.cli.terminal import TerminalProgress

HOSTILE = "a\x1b]0;owned\x07\x1b[2J\x9b31m\u202eb[/red]:smile:[bold]\x7f"
ACTING = {"\x1b", "\x07", "\x9b", "\u202e", "\x7f"}
RUN = next((Path(__file__).parent / "data").glob("*/run.json")).parent


def test_no_text_acts_on_the_terminal_or_is_markup(capsys):
    console, table = VisibleConsole(), Table(HOSTILE)
    table.add_row(HOSTILE)
    console.print(Text(HOSTILE), table, HOSTILE, highlight=False, soft_wrap=True)
    say([HOSTILE])
    tell(HOSTILE)
    with quietly():
        logging.getLogger("corrsteer.test").info("%s\ncorrsteer: fine", HOSTILE)
    captured = capsys.readouterr()
    for text in captured:
        assert not ACTING & {*text}
        assert "[/red]:smile:[bold]" in text
    assert captured.err.count("\n") == 2


def test_json_has_the_same_value_and_nothing_that_acts(capsys):
    print_json({"a": HOSTILE, "b": "\U000e0041 ü \ud800"})
    out = capsys.readouterr().out
    assert json.loads(out) == {"a": HOSTILE, "b": "\U000e0041 ü \ud800"}
    assert not (ACTING | {"\U000e0041", "\ud800"}) & {*out}
    assert "ü" in out


def test_a_stage_of_any_name_is_told(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with TerminalProgress() as progress, progress.stage(HOSTILE, 3) as advance:
        advance(1)


def test_what_a_run_says_of_itself_does_not_act_on_the_terminal(call, tmp_path):
    run = shutil.copytree(RUN, tmp_path / "run")
    document = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(document | {"task": HOSTILE}))
    code, out, err = call("select", run, "--out", run)
    assert code == 2
    assert "holds a run already (a" in err
    assert not ACTING & {*out, *err}
    code, out, err = call("select", tmp_path / HOSTILE)
    assert code == 2
    assert not ACTING & {*out, *err}


def corrsteer(*arguments, **options):
    command = [sys.executable, "-c", "from corrsteer.cli import main; main()", *arguments]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, **options)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no full device")  # noqa: PTH110
@pytest.mark.parametrize("arguments", [["tasks"], ["tasks", "--json"], ["plan", "--frequency=.1"]])
def test_a_result_that_cannot_be_printed_is_told_of(arguments):
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = corrsteer(*arguments, stdout=full)
    expected = "corrsteer: cannot print the result: No space left on device; send stdout elsewhere"
    assert (done.returncode, done.stderr) == (2, f"{expected}\n")


@pytest.mark.parametrize("arguments", [["tasks"], ["tasks", "--json"]])
def test_a_reader_who_has_enough_is_no_fault(arguments):
    theirs, ours = os.pipe()
    os.close(theirs)
    done = corrsteer(*arguments, stdout=ours)
    os.close(ours)
    assert (done.returncode, done.stderr) == (141, "")


def test_without_a_stdout_nothing_is_printed():
    done = corrsteer("tasks", "--json", preexec_fn=lambda: os.close(1))
    assert (done.returncode, done.stderr) == (0, "")


def test_a_working_directory_that_is_gone_is_told_of(tmp_path):
    code = "import os, sys; os.rmdir(sys.argv[1]); from corrsteer.cli import main; main(['tasks'])"
    command = [sys.executable, "-c", code, str(tmp_path / "gone")]
    (tmp_path / "gone").mkdir()
    done = subprocess.run(command, cwd=tmp_path / "gone", capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "corrsteer: the working directory is gone; cd to one that is there\n"
