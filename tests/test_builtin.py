"""The whole method on the built-in model."""

import json
import subprocess
import sys

import pytest
import torch

import corrsteer as cs
from corrsteer.lm.hooks import adding
from corrsteer.method.arms import ArmRunner
from corrsteer.runs.steer import steer


@pytest.fixture(scope="module")
def mini():
    return cs.load_model("mini")


@pytest.fixture(scope="module")
def refusal():
    return cs.load_task("mini-harmbench")


@pytest.fixture(scope="module")
def run(mini, refusal):
    guard = cs.load_task("probe-harmless")
    settings = {"arms": ("S", "A", "G"), "strengths": (0.25, 0.5, 0.75), "samples": 500}
    return cs.fit(mini, refusal, guards=[guard], val_limit=250, **settings)


def test_steering_is_found_and_believed(mini, refusal, run):
    """The refusal task gains 15 points or more; harmless requests are answered as before."""
    recommended = run.search.recommended
    assert recommended.p_adjusted < 0.05
    result = cs.evaluate(mini, refusal, run.steering, guards=[cs.load_task("probe-harmless")])
    assert result.baseline.n >= 400
    assert result.delta.value >= 0.15
    assert result.delta.ci[0] > 0
    guard = result.guards["probe-harmless"]
    assert guard.steered.accuracy >= guard.baseline.accuracy - 0.03


def test_a_padded_batch_replies_as_one_prompt_at_a_time(mini, refusal, run):
    prompts = [sample.prompt for sample in refusal.test[:24]]
    prompts += [sample.prompt for sample in cs.load_task("mini-mmlu").test[:8]]
    assert mini.generate(prompts, 12, batch_size=8) == mini.generate(prompts, 12, batch_size=1)
    with cs.steer(mini, run.steering):
        assert mini.generate(prompts, 12, batch_size=8) == mini.generate(prompts, 12, batch_size=1)


def test_strength_zero_is_bitwise_the_unsteered_model(mini, refusal, run):
    ids = torch.tensor([mini.prompt_ids(refusal.test[0])])
    with torch.no_grad():
        before = mini.model(ids).logits
        with cs.steer(mini, run.steering, strength=0.0):
            assert torch.equal(mini.model(ids).logits, before)
        with cs.steer(mini, run.steering):
            assert not torch.equal(mini.model(ids).logits, before)
        assert torch.equal(mini.model(ids).logits, before)


def test_arms_run_together_reply_as_each_alone(mini, refusal, run):
    runner = ArmRunner(mini, refusal, "select", limit=60)
    arms = [run.candidates["A"].at(strength) for strength in (0.25, 1.0, 4.0)]
    arms += [run.steering, run.candidates["S"]]
    prompts = [sample.prompt for sample in runner.samples]
    for arm, together in zip(arms, runner.steered(arms), strict=True):
        with steer(mini, arm):
            alone = mini.generate(prompts, refusal.max_new_tokens, batch_size=32)
        assert list(together.texts) == alone


def test_steering_without_a_cache_is_the_same(mini, refusal, run):
    prompt = torch.tensor([mini.prompt_ids(refusal.test[1])])
    with adding(mini.model, run.steering.scaled()):
        with_cache, without = (
            mini.model.generate(prompt, max_new_tokens=10, do_sample=False, use_cache=use_cache)
            for use_cache in (True, False)
        )
    assert torch.equal(with_cache, without)


MEMORY = """
import json
import corrsteer as cs
from corrsteer.lm.sae_placement import choose_handles, load_coders
from corrsteer.method.collect import collect
from corrsteer.settings import FitSettings
from corrsteer.timing import peak_memory_mb

lm, task = cs.load_model("mini"), cs.load_task("mini-mmlu")
coders = load_coders(choose_handles(lm, None), lm)
peaks = []
for samples in (200, 1000):
    collection = collect(lm, task, task.fit[:samples], coders, FitSettings())
    assert collection.n == samples
    peaks.append(peak_memory_mb())
print(json.dumps(peaks))
"""


def test_collecting_more_samples_takes_no_more_memory():
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True
    )
    few, many = json.loads(done.stdout)
    assert many <= 1.02 * few


def test_without_docstrings_one_line_says_what_is_missing():
    code = "from corrsteer.cli import main; main(['eval', 'baseline', '--task', 'mini-mmlu'])"
    done = subprocess.run([sys.executable, "-OO", "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "(-OO, PYTHONOPTIMIZE=2), which transformers needs; unset PYTHONOPTIMIZE" in line
