"""Reading replies that came with their prompts, beside generating them."""

import json

import numpy as np
import pytest
import torch
from conftest import SCORER

import corrsteer as cs
from corrsteer.lm.decoding import greedy, greedy_with_residuals
from corrsteer.lm.given_replies import passages_of
from corrsteer.lm.teacher_forcing import log_probabilities, read_replies
from corrsteer.method.foreign import foreignness
from corrsteer.method.shards import Shard, collect_shard
from corrsteer.runs.steer import steer
from corrsteer.samples import RatedReply, Sample
from corrsteer.scoring.registry import load_scorer
from corrsteer.settings import FitSettings


def columns(read, count):
    """Hook point -> residuals of each sample, in the order in which they came."""
    found = {}

    def receive(residuals):
        for hook, hidden in residuals.at.items():
            own = found.setdefault(hook, [[] for _ in range(count)])
            for row, state in zip(residuals.rows.tolist(), hidden, strict=True):
                own[row].append(state.clone())

    return read(receive), found


@pytest.mark.parametrize("positions", ["generated", "all"])
def test_residuals_are_those_of_the_positions_that_generated_the_replies(lm, prompts, positions):
    ids = [lm.prompt_ids(Sample(str(i), text)) for i, text in enumerate(prompts)]
    hooks = [handle.hook_point for handle in lm.saes]
    decoder = lm.decoder
    replies, made = columns(
        lambda receive: greedy_with_residuals(decoder, ids, 9, hooks, positions, receive), len(ids)
    )
    assert min(map(len, replies)) < max(map(len, replies)) or len(set(map(len, replies))) == 1
    _, read = columns(
        lambda receive: read_replies(decoder, ids, replies, hooks, positions, receive), len(ids)
    )
    for hook in hooks:
        for one, other in zip(made[hook], read[hook], strict=True):
            assert len(one) == len(other)
            assert torch.allclose(torch.stack(one), torch.stack(other), atol=1e-4)


def test_an_empty_reply_has_no_position(lm):
    hooks = [lm.saes[0].hook_point]
    ids = [lm.prompt_ids(Sample("a", "a b")), lm.prompt_ids(Sample("b", "c"))]
    _, read = columns(
        lambda receive: read_replies(lm.decoder, ids, [[], [7, 8]], hooks, "generated", receive), 2
    )
    assert [len(rows) for rows in read[hooks[0]]] == [0, 2]


@pytest.fixture(scope="module")
def recorded(lm, tmp_path_factory):
    """Prompts, and the tiny model's own replies to them with their scores, as two files.

    Replies with special tokens, which their texts do not show, are left out.
    """
    scorer, folder = load_scorer(SCORER), tmp_path_factory.mktemp("rated")
    prompts = [f"say {i} {chr(97 + i % 26)}{chr(97 + i * 7 % 26)}:" for i in range(150)]
    samples = [Sample(str(i), prompt) for i, prompt in enumerate(prompts)]
    rows = []
    for sample in samples:
        ids = lm.prompt_ids(sample)
        (reply,) = greedy(lm.decoder, [ids], 6)
        text = lm.decode(reply)
        if lm.tokens(sample, text) == [*ids, *reply]:
            score = scorer(text, sample).outcome
            split = ("fit", "fit", "select", "test")[len(rows) % 4]
            rows.append({"prompt": sample.prompt, "reply": text, "score": score, "split": split})
    for name, without in (("prompts", ("reply", "score")), ("replies", ())):
        lines = [json.dumps({k: v for k, v in row.items() if k not in without}) for row in rows]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    return folder


def fitted(lm, task, **settings):
    return cs.fit(lm, task, strategy="A", permutations=0, least_select=0, **settings)


@pytest.mark.parametrize("batch_size", [3, 32])
def test_own_replies_read_back_give_what_generating_them_gives(lm, recorded, batch_size):
    made = fitted(lm, cs.load_task(recorded / "prompts.jsonl", SCORER, max_new_tokens=6))
    read = fitted(lm, cs.load_task(recorded / "replies.jsonl"), batch_size=batch_size)
    for hook, statistics in made.statistics.items():
        one, other = statistics.correlation(), read.statistics[hook].correlation()
        np.testing.assert_allclose(one, other, atol=1e-6, equal_nan=True)
    assert [f.key for f in made.features] == [f.key for f in read.features]
    for one, other in zip(made.features, read.features, strict=True):
        assert one.coefficient == pytest.approx(other.coefficient, rel=1e-5)


def test_reply_tokens_leave_the_prompts_own_as_they_are(lm):
    samples = [Sample("a", "say a:", rated=RatedReply(" b", 1.0))]
    (passage,) = passages_of(lm, samples, 9, "some")
    assert list(passage.prompt) == lm.prompt_ids(samples[0])
    assert lm.decode(passage.reply) == " b"


def test_a_reply_that_merges_with_the_prompt_is_read_by_itself(lm, monkeypatch, caplog):
    monkeypatch.setattr(
        type(lm), "tokens", lambda self, sample, reply="": [5, 9] if reply else [5, 6]
    )
    with caplog.at_level("INFO", "corrsteer"):
        (passage,) = passages_of(lm, [Sample("a", "x", rated=RatedReply("b", 1.0))], 9, "some")
    assert (list(passage.prompt), lm.decode(passage.reply)) == ([5, 6], "b")
    assert "1 of 1 replies begin with what would merge" in caplog.text


def test_a_reply_ends_at_eos_and_at_the_longest(lm, caplog):
    samples = [
        Sample("a", "x", rated=RatedReply("abc<eos>de")),
        Sample("b", "y", rated=RatedReply("abcde")),
    ]
    with caplog.at_level("INFO", "corrsteer"):
        found = passages_of(lm, samples, 4, "some")
    assert [lm.decode(each.reply) for each in found] == ["abc", "abcd"]
    assert "1 of 2 replies are longer than 4 tokens" in caplog.text


def test_log_probabilities_are_those_of_decoding_step_by_step(lm, prompts):
    ids = [lm.prompt_ids(Sample(str(i), text)) for i, text in enumerate(prompts)]
    replies = [[5 + i, 9, 20][: i % 4] for i in range(len(ids))]
    steering = cs.Steering({lm.saes[1].hook_point: torch.ones(lm.d_model)}, (), lm.id, None)
    found = log_probabilities(lm.decoder, ids, replies, steering.vectors)
    plain = log_probabilities(lm.decoder, ids, replies)
    for prompt, reply, steered, unsteered in zip(ids, replies, found, plain, strict=True):
        for own, around in ((steered, steering), (unsteered, None)):
            expected, cache = [], None
            given = torch.tensor([prompt])
            for token in reply:
                with torch.inference_mode():
                    if around is None:
                        out = lm.model(given, past_key_values=cache, use_cache=True)
                    else:
                        with steer(lm, around):
                            out = lm.model(given, past_key_values=cache, use_cache=True)
                cache, given = out.past_key_values, torch.tensor([[token]])
                expected.append(out.logits[0, -1].log_softmax(-1)[token].item())
            assert own == pytest.approx(expected, abs=1e-4)
    assert found != plain


def rated(texts, prompt="say {}:"):
    return [
        Sample(str(i), prompt.format(i), rated=RatedReply(text, i % 2 * 1.0))
        for i, text in enumerate(texts)
    ]


def test_replies_cut_in_the_middle_are_told(lm, caplog):
    passages_of(lm, rated(["abcdefghijkl"] * 9 + ["it is."] * 9), 20, "some")
    assert "9 of 18 replies end in the middle of a sentence after exactly 12 tokens" in caplog.text
    caplog.clear()
    passages_of(lm, rated(["abcdefghijk."] * 9 + ["abcdefg"] * 9), 20, "some")
    assert "middle" not in caplog.text


@pytest.mark.parametrize("mark", ["<|im_start|>", "<end_of_turn>", "[/INST]"])
def test_marks_of_another_chat_template_are_told(lm, caplog, mark):
    passages_of(lm, rated(["yes", f"no{mark}"]), 40, "some")
    assert f"1 of 2 samples hold {mark}, which neither the vocabulary nor" in caplog.text
    caplog.clear()
    passages_of(lm, rated(["yes", "no"]), 40, "some")
    assert not caplog.text


def test_how_foreign_replies_are_is_told_beside_the_models_own(lm, caplog):
    samples = rated(["qqqqqq", "zzz 1"] * 8)
    passages = passages_of(lm, samples, 20, "some")
    with caplog.at_level("INFO", "corrsteer"):
        found = foreignness(lm, samples, passages, "some")
    assert found.own > found.given
    assert f"a mean log-probability of {found.given:.2f} a token" in caplog.text
    own = [lm.generate([sample.prompt], 6)[0] for sample in samples]
    same = [s for s in rated(own) if lm.tokens(s, s.rated.text)[len(lm.prompt_ids(s)) :]]
    again = foreignness(lm, same, passages_of(lm, same, 6, "own"), "own")
    assert again.given > found.given


def test_rated_replies_alone_judge_a_steering(lm, recorded):
    task = cs.load_task(recorded / "replies.jsonl")
    vector = {lm.saes[1].hook_point: torch.ones(lm.d_model)}
    found = cs.evaluate(lm, task, cs.Steering(vector, (), lm.id, None))
    assert found.baseline.accuracy == 0.5
    assert found.steered.accuracy != 0.5
    assert [each.steered_text for each in found.predictions] == [s.rated.text for s in task.test]
    (before, after), (other, others) = found.likelihoods.good, found.likelihoods.others
    assert all(0 < each <= 1 for each in (before, after, other, others))
    nothing = cs.evaluate(lm, task, cs.Steering(vector, (), lm.id, None), strength=0)
    assert nothing.steered == nothing.baseline


def test_a_run_by_rated_replies_says_what_it_does_not_show(call, hub, recorded, tmp_path):
    options = ["--model", hub / "model", "--sae", hub / "saes", "--guard", "none", "--controls", 1]
    options += ["--task", recorded / "replies.jsonl", "--permutations", 20, "--batch-size", 5]
    code, out, err = call("train", *options, "--out", tmp_path / "run", "--strategy", "A")
    assert code == 0, err
    assert "preference % [95 %]" in out
    assert "no reply was generated" in out
    assert "accuracy" not in out
    page = (tmp_path / "run" / "report.html").read_text()
    assert "No reply was generated" in page
    code, out, err = call("eval", tmp_path / "run")
    assert code == 0, err
    assert "No reply was generated" in " ".join(out.split())
    code, out, err = call(
        "train", *options, "--out", tmp_path / "run", "--strategy", "A", "--resume"
    )
    assert code == 0, err


def test_shards_and_a_merge_give_the_statistics_of_one_run(lm, recorded):
    task = cs.load_task(recorded / "replies.jsonl")
    settings = FitSettings(permutations=0, least_select=0)
    whole = fitted(lm, task)
    parts = {str(i): collect_shard(lm, task, Shard(i, 2), settings) for i in (1, 2)}
    for hook, statistics in whole.statistics.items():
        one, other = (part.statistics[hook] for part in parts.values())
        one.merge(other)
        np.testing.assert_allclose(
            one.correlation(), statistics.correlation(), atol=1e-9, equal_nan=True
        )
