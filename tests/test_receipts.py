"""What a steering costs, beside computations that share no code with it."""

import dataclasses
import json
import math

import pytest
import torch
from conftest import SCORER
from pydantic import TypeAdapter

import corrsteer as cs
from corrsteer.errors import DataError
from corrsteer.hook_points import HookPoint
from corrsteer.json_text import to_json
from corrsteer.method.arms import ArmRunner
from corrsteer.method.receipts import receipts_of, repetition
from corrsteer.method.train import Steps, train
from corrsteer.report import render
from corrsteer.runs.receipts import Receipts
from corrsteer.runs.steering import Steering
from corrsteer.settings import FitSettings

NEUTRAL = ("the cat sat on the mat, and the dog did not.", "a list: one, two, three")


@pytest.fixture(scope="module")
def steering(lm):
    generator = torch.Generator().manual_seed(0)
    vectors = {
        HookPoint(layer, "resid_post"): torch.randn(16, generator=generator) for layer in (0, 2)
    }
    return Steering(vectors, (), lm.id, strength=2.0)


@pytest.fixture(scope="module")
def measured(lm, task_file, steering):
    task = cs.load_task(task_file, scorer=SCORER, max_new_tokens=6)
    runner = ArmRunner(lm, task, "test", limit=20)
    (responses,) = runner.steered([steering])
    (found,) = receipts_of(runner, [(steering, responses.texts)], NEUTRAL)
    return runner, responses, found


def hooked(lm, steering):
    """Adds the vectors at every position by plain hooks."""
    handles = []
    for hook, vector in steering.vectors.items():
        added = steering.strength * vector

        def add(module, args, output, added=added):
            return (output[0] + added, *output[1:]) if isinstance(output, tuple) else output + added

        handles.append(lm.model.model.layers[hook.layer].register_forward_hook(add))
    return handles


def test_divergence_and_dose_are_those_of_plain_hooks(lm, steering, measured):
    kl, shares, n = 0.0, dict.fromkeys(steering.vectors, 0.0), 0
    for text in NEUTRAL:
        ids = torch.tensor([lm.tokenizer(text)["input_ids"]])
        with torch.no_grad():
            plain = lm.model(ids, output_hidden_states=True)
            handles = hooked(lm, steering)
            moved = lm.model(ids).logits[0, 1:].double().log_softmax(-1)
        for handle in handles:
            handle.remove()
        before = plain.logits[0, 1:].double().log_softmax(-1)
        kl += float((before.exp() * (before - moved)).sum())
        n += len(before)
        for hook in shares:
            if hook.layer + 1 < len(plain.hidden_states) - 1:  # the last one is normalised
                h = plain.hidden_states[hook.layer + 1][0, 1:]
                shares[hook] += float((2 * steering.vectors[hook].norm() / h.norm(dim=1)).sum())
    found = measured[2]
    assert found.kl == pytest.approx(kl / n, rel=1e-5)
    first = HookPoint(0, "resid_post")
    assert found.dose[first.name] == pytest.approx(shares[first] / n, rel=1e-5)
    assert set(found.dose) == {hook.name for hook in steering.vectors}


def test_perplexity_is_that_of_the_replies_under_the_unsteered_model(lm, measured):
    runner, responses, found = measured
    for texts, perplexity in zip(
        (runner.baseline.texts, responses.texts), found.perplexity, strict=True
    ):
        total, count = 0.0, 0
        for sample, text in zip(runner.samples, texts, strict=True):
            prompt = lm.prompt_ids(sample)
            reply = lm.tokenizer(text, add_special_tokens=False)["input_ids"]
            if not reply:
                continue
            with torch.no_grad():
                logits = lm.model(torch.tensor([[*prompt, *reply]])).logits[0].log_softmax(-1)
            chosen = logits[len(prompt) - 1 : -1].gather(1, torch.tensor(reply)[:, None])
            total, count = total + float(chosen.sum()), count + len(reply)
        assert perplexity == pytest.approx(math.exp(-total / count), rel=1e-4)


def test_length_and_change_are_counted(measured):
    runner, responses, found = measured
    n = len(runner.samples)
    assert found.length[0] == sum(map(len, runner.baseline.texts)) / n  # a token a character
    changed = [a != b for a, b in zip(runner.baseline.texts, responses.texts, strict=True)]
    assert found.changed == sum(changed) / n > 0
    assert all(0 <= share <= 1 for share in found.repetition)


def test_repetition_is_the_share_of_runs_that_stood_there_before():
    assert repetition([[1, 2, 3, 4, 5]]) == 0
    assert repetition([[1, 1, 1, 1, 1, 1]]) == pytest.approx(2 / 3)
    assert repetition([[1, 2], []]) == 0


def test_nothing_steered_costs_nothing_to_tell(lm, measured):
    runner = measured[0]
    nothing = Steering({}, (), lm.id)
    assert receipts_of(runner, [(nothing, runner.baseline.texts)]) == [None]


def test_a_run_tells_what_every_arm_costs(lm, task_file, tmp_path):
    task = cs.load_task(task_file, scorer=SCORER, max_new_tokens=3)
    settings = FitSettings(strategy="A", controls=0, permutations=0)
    run, document = train(lm, task, (), settings, tmp_path / "run", steps=Steps(neutral=NEUTRAL))
    told = document.strategies["A"].receipts
    assert told is not None
    assert document.outcome.receipts == told
    assert cs.load_run(tmp_path / "run").evaluation.strategies["A"].receipts == told
    assert "Costs" in render(run)
    assert run.extent.neutral


def test_neutral_text_is_read_or_refused(tmp_path):
    from corrsteer.cli.common import neutral_text

    file = tmp_path / "own.txt"
    file.write_text("One.\nStill one.\n\n \nTwo.\n")
    assert neutral_text(file) == ("One.\nStill one.", "Two.")
    file.write_text(" \n")
    for path in (file, tmp_path / "none.txt", tmp_path):
        with pytest.raises(DataError, match="--neutral"):
            neutral_text(path)


def test_replies_without_tokens_have_no_perplexity_and_come_back(lm, steering, measured):
    runner = measured[0]
    (found,) = receipts_of(runner, [(steering, [""] * len(runner.samples))], NEUTRAL)
    assert found.perplexity[1] is None
    assert "-> -, repetition" in str(found)
    stored = json.loads(to_json(dataclasses.asdict(found)))
    assert TypeAdapter(Receipts).validate_python(stored) == found


def test_a_neutral_text_without_a_position_to_read_is_refused(steering, measured):
    runner, responses, _ = measured
    with pytest.raises(DataError, match="neutral text"):
        receipts_of(runner, [(steering, responses.texts)], [""])
