import gc
import json
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import SCORER

import corrsteer as cs
from corrsteer.cli import main
from corrsteer.errors import ArtifactError, DeviceMemoryError, ScorerError
from corrsteer.execution.checkpoint import RESULTS_FILE, Checkpoint, unfinished
from corrsteer.execution.units import Execution
from corrsteer.lm.sae_placement import choose_handles, load_coders
from corrsteer.method.collect import collect
from corrsteer.method.provenance import provenance_of
from corrsteer.method.train import train
from corrsteer.runs.activation_log import Entries
from corrsteer.runs.content import Extent
from corrsteer.runs.identity import Identity
from corrsteer.runs.statistics_file import read_statistics, statistics_bytes
from corrsteer.settings import FitSettings

ROOT = Path(__file__).parents[1]
SETTINGS = FitSettings(
    batch_size=4, arms=("A", "G", "dense"), strengths=(1.0,), controls=2, permutations=20
)


class Interrupting:
    """Progress that is interrupted as it is told of the n-th thing done."""

    def __init__(self, after):
        self.left = after

    @contextmanager
    def stage(self, name, total):
        yield self.tell

    def tell(self, samples):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def run_to(out, lm, task, guards, after, resume=True):
    """Train until the n-th thing is done; whether it got to the end."""
    with unfinished(out, resume) as checkpoint:
        made = provenance_of(lm.facts, task, guards, choose_handles(lm, None))
        checkpoint.open(Identity(made, SETTINGS, Extent(8)).document())
        execution = Execution(Interrupting(after), checkpoint=checkpoint, unit_samples=8)
        train(lm, task, guards, SETTINGS, out, execution=execution)


def left_by(folder):
    found = {}
    for path in sorted(folder.iterdir()):
        found[path.name] = path.read_bytes()
        if path.suffix == ".json":
            document = json.loads(found[path.name])
            for name in ("seconds", "peak_memory_mb", "run"):
                document.pop(name, None)
                document.get("counts", {}).pop(name, None)
            found[path.name] = document
    return found


def test_a_run_interrupted_at_any_moment_ends_as_if_it_had_not_been(lm, task, hub, tmp_path):
    guard = cs.load_task(task_rows(tmp_path), scorer="regex:a", max_new_tokens=1)
    run_to(tmp_path / "whole", lm, task, [guard], 10**9)
    expected = left_by(tmp_path / "whole")
    assert not (tmp_path / "whole.partial").exists()
    moments = 0
    while True:
        out = tmp_path / f"after-{moments}"
        moments += 97
        try:
            run_to(out, lm, task, [guard], moments)
            break
        except KeyboardInterrupt:
            pass
        assert not out.exists()
        run_to(out, lm, task, [guard], 10**9)
        assert left_by(out) == expected
    assert moments > 50


def test_a_run_interrupted_again_and_again_ends_as_if_it_had_not_been(lm, task, tmp_path):
    run_to(tmp_path / "whole", lm, task, [], 10**9)
    deaths = 0
    while not (tmp_path / "run").exists():
        try:
            run_to(tmp_path / "run", lm, task, [], 25 + 5 * deaths)
        except KeyboardInterrupt:
            deaths += 1
    assert deaths > 3
    assert left_by(tmp_path / "run") == left_by(tmp_path / "whole")


def task_rows(folder):
    path = folder / "guard.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": f"say {i}:"}) for i in range(40)))
    return path


def test_units_hold_every_batch_once():
    batches, execution = [[1] * 5, [2] * 3, [3] * 9, [4] * 2], Execution(unit_samples=8)
    assert execution.units_of(batches) == [[[1] * 5, [2] * 3], [[3] * 9], [[4] * 2]]
    assert execution.units_of([]) == []


class Doubled:
    def __call__(self, lm, unit):
        return unit * 2

    def fingerprint(self):
        return "doubled"


def test_units_that_are_alike_are_done_once_and_each_gets_its_own_result(lm, tmp_path):
    for units in ([3, 3, 5, 3, 7], [5, 5, 9, 3, 9]):
        with unfinished(tmp_path / "run", True) as checkpoint:
            checkpoint.open({})
            found = list(Execution(checkpoint=checkpoint).remembered(lm, Doubled(), units))
        assert found == [2 * unit for unit in units]


def test_nothing_of_a_unit_is_held_once_it_is_added(lm, task, tmp_path):
    held = []

    class Counting(Interrupting):
        def tell(self, samples):
            held.append(sum(type(each) is Entries for each in gc.get_objects()))

    coders = load_coders(choose_handles(lm, None), lm)
    many = [replace(sample, id=f"{sample.id}-{n}") for n in range(4) for sample in task.fit]
    execution = Execution(Counting(0), unit_samples=8)
    collect(lm, task, many, coders, SETTINGS, execution)
    assert len(held) > 10
    assert max(held) <= 4  # two batches of the unit at hand, and of the one before


def test_work_of_others_is_refused(lm, task, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run_to(out, lm, task, [], 6)
    kept = (tmp_path / "run.partial" / RESULTS_FILE).read_bytes()
    with pytest.raises(ArtifactError, match="go on with it by --resume, or remove it"):
        run_to(out, lm, task, [], 10**9, resume=False)
    other = cs.load_task(task_rows(tmp_path), scorer="regex:a")
    with pytest.raises(ArtifactError, match=r"is of other work \(task is .*letters.jsonl"):
        run_to(out, lm, other, [], 10**9)
    assert (tmp_path / "run.partial" / RESULTS_FILE).read_bytes() == kept


def test_a_second_process_is_refused(tmp_path):
    code = (
        "import sys; from pathlib import Path\n"
        "from corrsteer.execution.checkpoint import unfinished\n"
        "with unfinished(Path(sys.argv[1]), True): print('in')"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    with unfinished(tmp_path / "run", False):
        second = subprocess.run(command, capture_output=True, text=True)
        assert "another process is at work on" in second.stderr
        assert second.stdout == ""
    assert subprocess.run(command, capture_output=True, text=True).stdout == "in\n"
    assert [*tmp_path.iterdir()] == []


def test_a_mistake_leaves_nothing_and_a_full_disk_leaves_the_work(tmp_path):
    def fail(error):
        with unfinished(tmp_path / "new" / "run", True) as checkpoint:
            checkpoint.open({})
            checkpoint.remember("unit", [1])
            raise error

    with pytest.raises(ScorerError, match=r"^no$"):
        fail(ScorerError("no"))
    assert [*tmp_path.iterdir()] == []
    for error in (ArtifactError("disk full"), DeviceMemoryError("too small"), KeyboardInterrupt()):
        with pytest.raises(type(error), match=r"the same command with --resume$"):
            fail(error)
        again = Checkpoint(tmp_path / "new" / "run.partial")
        again.open({})
        assert again.results == {"unit": [1]}


def test_a_broken_checkpoint_is_told_of(lm, task, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run_to(tmp_path / "run", lm, task, [], 6)
    path = tmp_path / "run.partial" / "statistics.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ArtifactError, match=r"statistics\.safetensors is corrupt"):
        run_to(tmp_path / "run", lm, task, [], 10**9)


@pytest.mark.parametrize(
    "change",
    [
        {"units": 1},
        {"units": 10**9},
        {"units": -1},
        {"units": "all"},
        {"unscored": 3},
        {"parts": None},
        {"parts": 99},
    ],
)
def test_a_checkpoint_of_other_counts_is_refused(lm, task, tmp_path, change):
    with pytest.raises(KeyboardInterrupt):
        run_to(tmp_path / "run", lm, task, [], 6)
    path = tmp_path / "run.partial" / "statistics.safetensors"
    stored = read_statistics(path)
    about = stored.about | change
    path.write_bytes(statistics_bytes(stored.statistics, stored.means, about))
    with pytest.raises(ArtifactError, match=r"corrupt|not of this work"):
        run_to(tmp_path / "run", lm, task, [], 10**9)


def command_line(hub, task_file, out, *more):
    return [
        *("train", "--model", f"{hub / 'model'}", "--sae", f"{hub / 'saes'}"),
        *(
            "--task",
            str(task_file),
            "--scorer",
            SCORER,
            "--max-new-tokens",
            "6",
            "--strategy",
            "A",
            "--json",
        ),
        *("--guard", "none", "--out", str(out), *more),
    ]


def test_resuming_a_finished_run_prints_it_again(hub, task_file, tmp_path, capsys):
    main(command_line(hub, task_file, tmp_path / "run"))
    first = capsys.readouterr().out
    main(command_line(hub, task_file, tmp_path / "run", "--resume"))
    assert json.loads(capsys.readouterr().out) == json.loads(first)
    with pytest.raises(SystemExit) as left:
        main(command_line(hub, task_file, tmp_path / "run", "--resume", "--strength", "2"))
    assert left.value.code == 2
    assert "holds a run already" in capsys.readouterr().err


@contextmanager
def room_for(lm, samples):
    """The model, out of memory with more samples than that."""

    def check(module, args, kwargs):
        if len(kwargs["input_ids"]) > samples:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    handle = lm.model.base_model.register_forward_pre_hook(check, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@pytest.mark.parametrize("strategy", ["A", "P"])
def test_out_of_memory_halves_the_batch_and_goes_on(lm, task, strategy, caplog):
    settings = {"strategy": strategy, "permutations": 0}
    expected = cs.fit(lm, task, batch_size=16, **settings)
    with room_for(lm, 5), caplog.at_level("INFO", "corrsteer"):
        run = cs.fit(lm, task, batch_size=16, **settings)
    assert "out of memory with 16 samples at once: going on with 8" in caplog.text
    assert "out of memory with 8 samples at once: going on with 4" in caplog.text
    assert [f.key for f in run.features] == [f.key for f in expected.features]
    assert {s.n for s in run.statistics.values()} == {len(task.fit)}
    with room_for(lm, 0), pytest.raises(DeviceMemoryError, match="with one sample at a time"):
        cs.fit(lm, task, batch_size=4, strategy="A")
