"""The benchmarks of speed run, at a size that measures nothing."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SMALL = [
    *("--layers", "2", "--d-model", "32", "--d-ff", "64", "--heads", "2"),
    *("--kv-heads", "1", "--d-sae", "64", "--threads", "1"),
]
FEW = [*SMALL, "--samples", "4", "--prompt", "8", "--batch-size", "2"]


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs a benchmark here and returns what it prints."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
        __import__(name).main()
        return capsys.readouterr().out

    yield run
    for name in ("random_model", "blocks", "collection", "interventions", "scaling"):
        sys.modules.pop(name, None)


def test_blocks(run):
    out = run("blocks", *SMALL, "--rows", "16", "--rounds", "1")
    assert len(re.findall(r"^\([de]\) .*: \d+\.\d\d$", out, re.MULTILINE)) == 2


@pytest.mark.parametrize("architecture", ["gemma2", "llama"])
def test_collection(run, architecture):
    options = ["--architecture", architecture, "--tokens", "1", "3", "--memory-tokens", "0"]
    out = run("collection", *FEW, *options, "--rounds", "1")
    assert re.findall(r"^\| (\d) \| \d", out, re.MULTILINE) == ["1", "3"]


def test_both_ways_to_collect_find_the_same(run):
    import argparse

    import collection
    import torch
    from random_model import Shape

    parser = argparse.ArgumentParser()
    Shape.add_to(parser)
    options = parser.parse_args(SMALL)
    options.samples, options.prompt, options.batch_size = 6, 8, 4
    options.sae_dtype = "float32"
    found: dict[str, Any] = collection.sides(options, 5)
    ours, theirs = found["collect"]().statistics, found["in loop"]()
    for hook, statistics in theirs.items():
        # whose outcomes are made up, so what is pooled alone is the same
        torch.testing.assert_close(ours[hook].active.double(), statistics.active, rtol=0, atol=0)
        torch.testing.assert_close(
            ours[hook].mean_z + ours[hook].first_z,
            statistics.mean_z + statistics.first_z,
            rtol=1e-4,
            atol=1e-5,
        )
        assert statistics.active.sum() > 0


def test_interventions(run):
    options = ["--tokens", "6", "--inert", "0.5", "--strength", "5", "--rounds", "1"]
    out = run("interventions", *FEW, *options)
    assert re.search(r"^4 candidates, replies of 6, \d+% changed$", out, re.MULTILINE)
    assert len(re.findall(r"^\(c\) .*: \d+\.\d\d$", out, re.MULTILINE)) == 2


def test_scaling(run, monkeypatch):
    assert json.loads(run("scaling", *FEW, "--tokens", "3", "--only"))["seconds"] > 0
    import scaling

    costs = {4: {"seconds": 1.0, "mb": 100.0}, 8: {"seconds": 4.0, "mb": 100.0}}
    monkeypatch.setattr(scaling, "in_own_process", lambda given, **size: costs[size["samples"]])
    out = run("scaling", *FEW, "--vary", "samples", "--factors", "1", "2")
    assert "| samples | 2.00 | 0.00 |" in out
