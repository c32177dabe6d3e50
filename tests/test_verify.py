"""What `verify` compares, how it ends, and what it refuses."""

import json
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from conftest import D_MODEL

from corrsteer.export import CONSUMERS, base, verify
from corrsteer.export.plain import PlainTorch
from corrsteer.export.verify import ConsumerReply
from corrsteer.hook_points import HookPoint
from corrsteer.runs.steering import Steering

AT = HookPoint(1, "resid_post")


@pytest.fixture
def run(hub, tmp_path):
    """A steering of the tiny model, saved."""
    vector = torch.linspace(-2, 2, D_MODEL)
    return Steering({AT: vector}, model=str(hub / "model")).save(tmp_path / "run").parent


@pytest.fixture
def probe(lm, monkeypatch):
    """Lets the probe of PyTorch answer at once: what we would say, changed by a function."""

    def replace_probe(change):
        def run_probe(consumer, python, request, folder):
            steering = Steering.load(request["steering"])
            found = {"version": np.array("fake 1")}
            replies = verify._replies(
                lm, steering, steering.positions, request["prompts"], request["max_new_tokens"]
            )
            for index, reply in enumerate(replies):
                tokens, logits = change(reply.tokens.copy(), reply.logits.copy())
                found |= {f"0/{index}/tokens": tokens, f"0/{index}/logits": logits}
            return found

        monkeypatch.setattr(verify, "_run_probe", run_probe)

    return replace_probe


def checked(call, run, *more):
    code, out, err = call(
        "verify", run, "--with=torch", "--prompt=abc", "--prompt=hello you", "--json", *more
    )
    return code, json.loads(out) if out else None, err


def test_the_real_script_does_what_we_do(call, run):
    code, document, err = checked(call, run, "--max-new-tokens=5")
    assert code == 0, err
    assert document["schema"] == "corrsteer.verify/1"
    assert document["version"].startswith("transformers ")
    assert document["passed"]
    (finding,) = document["findings"]
    assert finding["scope"] == "generated"
    assert finding["tokens"] <= 10
    assert finding["max_difference"] < 1e-5 < 0.1 < finding["effect"]
    assert finding["same_text"]


def test_the_table_says_whether_it_does_the_same(call, run, probe):
    probe(lambda tokens, logits: (tokens, logits))
    code, out, _ = call("verify", run, "--with=torch", "--prompt=abc")
    assert code == 0
    assert "torch does the same; tolerance 0.002." in out
    probe(lambda tokens, logits: (tokens, logits + 0.1))
    code, out, _ = call("verify", run, "--with=torch", "--prompt=abc")
    assert code == 1
    assert "torch does not do the same" in out
    assert "FAILED" in out


def other_text(tokens, logits):
    tokens[-1] += 1
    return tokens, logits


def nan(tokens, logits):
    logits[0, 0] = np.nan
    return tokens, logits


@pytest.mark.parametrize(
    "change",
    [
        lambda tokens, logits: (tokens, logits + 0.01),
        lambda tokens, logits: (tokens[:-1], logits[:-1]),
        lambda tokens, logits: (tokens, logits[:, :-1]),
        other_text,
        nan,
    ],
)
def test_a_consumer_that_does_something_else_is_found_out(call, run, probe, change):
    probe(change)
    code, document, _ = checked(call, run, "--max-new-tokens=4")
    assert code == 1
    assert not document["passed"]


def test_a_consumer_that_does_not_steer_is_found_out(call, run, lm, monkeypatch):
    def unsteered(consumer, python, request, folder):
        steering = Steering.load(request["steering"]).at(0.0)
        replies = verify._replies(lm, steering, "all", request["prompts"], 4)
        found = {"version": np.array("fake 1")}
        for index, reply in enumerate(replies):
            found |= {f"0/{index}/tokens": reply.tokens, f"0/{index}/logits": reply.logits}
        return found

    monkeypatch.setattr(verify, "_run_probe", unsteered)
    assert checked(call, run, "--max-new-tokens=4")[0] == 1
    # nor does it pass where steering is too small to be seen
    code, document, _ = checked(call, run, "--max-new-tokens=4", "--strength=1e-6")
    assert code == 1
    assert document["findings"][0]["max_difference"] < 1e-4


def test_logits_are_compared_as_far_as_the_tokens_agree():
    def reply(tokens, *first):
        logits = np.zeros((len(tokens), 3), dtype=np.float32)
        logits[:, 0] = first
        return ConsumerReply(np.array(tokens), logits)

    ours, theirs = reply([1, 2, 0], 0, 0, 0), reply([1, 0, 0], 0, 0.5, 9)
    plain = reply([1], 7)
    finding = verify._compare("c", "all", [ours], [(theirs, None)], [ours], [plain], 1.0)
    assert finding.tokens == 2
    assert finding.max_difference == 0.5
    assert not finding.same_text
    assert not finding.passed


def test_the_scope_of_a_consumer_is_what_it_is_held_against(lm, monkeypatch):
    steering = Steering({AT: torch.linspace(-2, 2, D_MODEL)}, model=lm.id)
    prompts = [lm.tokenizer("hello you")["input_ids"]]

    class Everywhere(PlainTorch):
        checks: ClassVar = {"everywhere": "all", "as it says": None}

        def render(self, steering, drop_block_0=False):
            exported = super().render(steering)
            return replace(exported, steering=replace(steering, positions="all"))

    def run_probe(consumer, python, request, folder):
        found = {"version": np.array("fake 1")}
        for check, scope in enumerate(request["scopes"]):
            (reply,) = verify._replies(lm, steering, scope, prompts, 3)
            found |= {f"{check}/0/tokens": reply.tokens, f"{check}/0/logits": reply.logits}
        return found

    monkeypatch.setattr(verify, "_run_probe", run_probe)
    found = verify.verify(lm, steering, Everywhere(), prompts, max_new_tokens=3)
    assert found.passed
    everywhere, own = found.findings
    assert (everywhere.scope, own.scope) == ("all", "generated")
    assert everywhere.scope_effect > 0.01
    assert own.scope_effect == 0


def fake_python(folder, code):
    folder.mkdir()
    path = folder / "python"
    path.write_text(f"#!/bin/sh\necho starting >&2\necho 'No module: it' >&2\nexit {code}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--with=tgi"], ["unknown consumer 'tgi'"]),
        (["--with=lm-eval", "--python=PYTHON3"], ["lm-eval is not installed", "make verify-lm-ev"]),
        (["--with=lm-eval", "--python=PYTHON1"], ["lm-eval failed", "No module: it"]),
        (["--with=torch", "--python=/no/python"], ["cannot run --python '/no/python'"]),
        (["--with=llama.cpp"], ["give --model-path"]),
        (["--with=llama.cpp", "--model-path=/no.gguf"], ["no model at '/no.gguf'"]),
        (["--with=torch", "--strength=0"], ["nothing to steer by"]),
    ],
)
def test_what_cannot_be_tried_is_one_line(call, run, tmp_path, options, words):
    fakes = {f"PYTHON{code}": str(fake_python(tmp_path / str(code), code)) for code in (1, 3)}
    for name, path in fakes.items():
        options = [option.replace(name, path) for option in options]
    code, out, err = call("verify", run, "--prompt=abc", *options)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    for word in words:
        assert word in err


def test_a_steering_alone_needs_prompts_and_a_model(call, run, tmp_path):
    assert "give --prompt TEXT" in call("verify", run, "--with=torch")[2]
    nameless = Steering({AT: torch.ones(D_MODEL)}).save(tmp_path / "nameless").parent
    assert "give --model NAME" in call("verify", nameless, "--with=torch", "--prompt=a")[2]


@pytest.mark.parametrize("consumer", CONSUMERS.values(), ids=CONSUMERS)
def test_every_consumer_has_its_probe_and_target(consumer, pytestconfig):
    assert isinstance(consumer, base.Consumer)
    probe = Path(verify.__file__).with_name("probes") / consumer.probe
    assert "sys.exit(3)" in probe.read_text()
    if consumer.install:
        assert f"\n{consumer.install}:" in (pytestconfig.rootpath / "Makefile").read_text()
