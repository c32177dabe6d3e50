"""The same inputs, seed and machine give the same bytes (docs/determinism.md)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SCORER

import corrsteer

MEASURED = ("seconds", "peak_memory_mb")
"""What of a run's JSON is measured and not computed."""
COMPUTED = (
    "activations.parquet",
    "features.json",
    "outcomes.parquet",
    "predictions.parquet",
    "statistics.safetensors",
    "steering.safetensors",
)
"""Files of which every byte is."""


def without_measured(document):
    """A JSON document without what is measured, at any depth."""
    if isinstance(document, dict):
        return {k: without_measured(v) for k, v in document.items() if k not in MEASURED}
    return [without_measured(v) for v in document] if isinstance(document, list) else document


@pytest.fixture(scope="module")
def runs(hub, task_file, tmp_path_factory):
    """Two folders of the same command in two processes, whose hashes of strings differ."""
    folders = [tmp_path_factory.mktemp("run") / "run" for _ in range(2)]
    for seed, folder in enumerate(folders):
        command = [
            sys.executable, "-c", "from corrsteer.cli import main; main()", "train",
            f"--model={hub / 'model'}", f"--sae={hub / 'saes'}", f"--task={task_file}",
            f"--scorer={SCORER}", "--max-new-tokens=3", "--strategy=A",
            "--controls=2", "--permutations=50", "--json", "--out=run",
        ]  # fmt: skip
        source = str(Path(corrsteer.__file__).parents[1])
        environment = {**os.environ, "PYTHONPATH": source, "PYTHONHASHSEED": str(seed + 1)}
        subprocess.run(command, check=True, capture_output=True, env=environment, cwd=folder.parent)
    return folders


@pytest.mark.parametrize("name", COMPUTED)
def test_two_processes_write_the_same_bytes(runs, name):
    one, other = ((folder / name).read_bytes() for folder in runs)
    assert one == other


@pytest.mark.parametrize("name", ["run.json", "evaluation.json"])
def test_two_processes_write_the_same_json_but_for_what_is_measured(runs, name):
    texts = [(folder / name).read_text() for folder in runs]
    documents = [without_measured(json.loads(text)) for text in texts]
    assert json.dumps(documents[0]) == json.dumps(documents[1])


def test_a_run_has_no_other_files(runs):
    names = {path.name for path in runs[0].iterdir()}
    assert names == {*COMPUTED, "run.json", "evaluation.json", "report.html"}
