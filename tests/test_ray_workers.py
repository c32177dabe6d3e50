import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

import corrsteer as cs
from corrsteer.errors import ModelError, ScorerError, SettingsError, WorkerError
from corrsteer.execution.ray_workers import ClusterSettings, workers_of
from corrsteer.execution.units import Execution
from corrsteer.scoring.base import Score

ray = pytest.importorskip("ray")
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
ROOT = Path(__file__).parents[1]
SETTINGS = {"batch_size": 4, "strategy": "P", "permutations": 20}


@dataclass(frozen=True)
class Scoring:
    """Right if it begins late in the alphabet; raises if it is told to."""

    broken: bool = False
    name: str = "late letters"
    needs_target: bool = False

    def __call__(self, reply, sample):
        if self.broken:
            raise ScorerError(f"no score for {sample.id}")
        return Score(float(reply.strip()[:1].lower() > "m"))


@pytest.fixture
def task(task):
    return replace(task, scorer=Scoring())


@pytest.fixture(scope="module")
def workers():
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_ADDRESS", "127.0.0.1:6399")  # of another cluster, long gone
        with workers_of(ClusterSettings(workers=2)) as found:
            yield found
    assert torch.get_num_threads() == threads


def test_workers_give_the_bits_that_one_process_gives(lm, task, workers):
    alone = cs.fit(lm, task, execution=Execution(unit_samples=8), **SETTINGS)
    together = cs.fit(lm, task, execution=Execution(executor=workers, unit_samples=8), **SETTINGS)
    for hook, statistics in alone.statistics.items():
        other = together.statistics[hook].state()
        assert all(torch.equal(t, other[name]) for name, t in statistics.state().items())
    assert together.features == alone.features
    assert together.search == alone.search
    for vector, other in zip(
        alone.steering.vectors.values(), together.steering.vectors.values(), strict=True
    ):
        assert torch.equal(vector, other)
    assert together.log.ids == alone.log.ids


def test_steering_at_all_positions_runs_on_workers_too(lm, task, workers):
    run = cs.fit(lm, task, positions="all", strategy="A", batch_size=4, permutations=0)
    here = cs.evaluate(lm, task, run.steering, limit=6)
    there = cs.evaluate(lm, task, run.steering, limit=6, execution=Execution(executor=workers))
    assert there.predictions == here.predictions


@dataclass(frozen=True)
class Doubling:
    """Twice the unit."""

    def __call__(self, lm, unit):
        return unit * 2


def test_a_model_whose_hidden_states_were_asked_for_can_be_sent(lm, workers):
    ids = torch.tensor([[1, 10, 11]])
    fresh = replace(lm)  # that the workers have not been given yet
    asked = fresh.model(ids, output_hidden_states=True).hidden_states
    assert [*workers.map(fresh, Doubling(), [1, 2])] == [2, 4]
    again = fresh.model(ids, output_hidden_states=True).hidden_states
    assert all(torch.equal(one, other) for one, other in zip(asked, again, strict=True))


def test_a_model_with_hooks_is_not_sent(lm, task, workers):
    assert [*workers.map(lm, Doubling(), [1])] == [2]
    run = cs.fit(lm, task, strategy="A", batch_size=4, permutations=0)
    with (
        cs.steer(lm, run.steering),
        pytest.raises(ModelError, match=r"leave `with steer\(\.\.\.\)`"),
    ):
        next(workers.map(lm, Doubling(), [1]))


@dataclass(frozen=True)
class Dying:
    """Dies on units that are negative, until as many files lie in the folder."""

    folder: str
    deaths: int

    def __call__(self, lm, unit):
        died = len(os.listdir(self.folder))  # noqa: PTH208
        if unit < 0 and died < self.deaths:
            (Path(self.folder) / str(died)).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return unit * 2


def test_the_unit_of_a_worker_that_died_is_done_by_another(lm, workers, tmp_path):
    units = [1, 2, -3, 4]
    assert [*workers.map(lm, Dying(str(tmp_path), 1), units)] == [2, 4, -6, 8]
    with pytest.raises(WorkerError, match="died 4 times on one unit"):
        list(workers.map(lm, Dying(str(tmp_path), 99), units))


def test_a_mistake_on_a_worker_is_told_as_here(lm, task, workers):
    with pytest.raises(ScorerError, match=r"^no score for q\d+$"):
        cs.fit(
            lm,
            replace(task, scorer=Scoring(broken=True)),
            execution=Execution(executor=workers),
            **SETTINGS,
        )


def test_the_command_line_starts_a_cluster_and_prints_one_document(hub, task_file, tmp_path):
    (tmp_path / "own.py").write_text("def first(reply, sample):\n    return reply[:1] > 'm'\n")
    command = [
        *(
            sys.executable,
            "-c",
            "from corrsteer.cli import main; main()",
            "train",
            "--model",
            f"{hub / 'model'}",
        ),
        *("--sae", f"{hub / 'saes'}", "--task", str(task_file), "--scorer", "own:first"),
        *("--guard", "none", "--strategy", "A", "--permutations", "0", "--json", "--out"),
    ]
    documents = []
    for more in (["one"], ["two", "--engine", "ray", "--workers", "2"]):
        done = subprocess.run([*command, *more], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        documents.append(json.loads(done.stdout))
    for document in documents:
        for name in ("seconds", "peak_memory_mb", "run"):
            del document[name]
    assert documents[0] == documents[1]
    for name in ("statistics.safetensors", "steering.safetensors", "activations.parquet"):
        one, two = ((tmp_path / run / name).read_bytes() for run in ("one", "two"))
        assert one == two


def test_more_workers_than_the_cluster_has_room_for_are_refused(workers):
    from corrsteer.execution.ray_workers import _threads

    assert _threads(ClusterSettings(workers=2), {"CPU": 7.0}) == 3
    for settings in (ClusterSettings(workers=8), ClusterSettings(2, gpus_per_worker=0.5)):
        with pytest.raises(SettingsError, match="choose fewer --workers"):
            _threads(settings, {"CPU": 7.0})
