import pytest
import torch

from corrsteer.hook_points import HookPoint
from corrsteer.lm.decoding import greedy
from corrsteer.lm.hooks import adding
from corrsteer.lm.shared_prefix import decode_arms


def arms_of(lm, count, scale, seed=0):
    """Random vectors at one, two or three hook points; and one arm that adds nothing."""
    generator = torch.Generator().manual_seed(seed)
    arms = [{}]
    for index in range(count):
        hooks = [HookPoint(layer, "resid_post") for layer in range(lm.n_layers)][: index % 3 + 1]
        arms.append({hook: scale * torch.randn(lm.d_model, generator=generator) for hook in hooks})
    return arms


def one_by_one(lm, ids, arm, length):
    with adding(lm.model, arm):
        return greedy(lm.decoder, ids, length)


@pytest.fixture
def ids(lm, prompts):
    return [lm.tokenizer(text)["input_ids"] for text in prompts]


@pytest.mark.parametrize("length", [1, 2, 12])
@pytest.mark.parametrize("scale", [0.05, 0.5, 3.0])
def test_branches_reply_as_each_arm_alone(lm, ids, length, scale):
    drafts = greedy(lm.decoder, ids, length)
    arms = arms_of(lm, 6, scale)
    together = decode_arms(lm.decoder, ids, drafts, arms, length)
    assert together == [one_by_one(lm, ids, arm, length) for arm in arms]
    assert together[0] == drafts
    if scale == 3.0:
        assert any(replies != drafts for replies in together)


def test_a_wrong_draft_costs_time_only(lm, ids):
    arms = arms_of(lm, 3, 0.5)
    right = decode_arms(lm.decoder, ids, greedy(lm.decoder, ids, 8), arms, 8)
    assert decode_arms(lm.decoder, ids, [[] for _ in ids], arms, 8) == right
    assert decode_arms(lm.decoder, ids, [[5, 6, 7]] * len(ids), arms, 8) == right


@pytest.mark.parametrize("length", [18, 40])
def test_arms_that_leave_a_long_draft_early_or_late_or_never(lm, ids, length):
    arms = arms_of(lm, 3, 0.05) + arms_of(lm, 3, 0.3, seed=1)[1:] + arms_of(lm, 3, 5.0, seed=2)[1:]
    drafts = greedy(lm.decoder, ids, length)
    expected = [one_by_one(lm, ids, arm, length) for arm in arms]
    assert decode_arms(lm.decoder, ids, drafts, arms, length) == expected
    left = [sum(a[:4] != b[:4] for a, b in zip(r, drafts, strict=True)) for r in expected]
    assert min(left) == 0
    assert max(left) > len(ids) / 2  # so that some are decoded at once
    assert any(r != drafts and 2 * n < len(ids) for n, r in zip(left, expected, strict=True))


@pytest.mark.parametrize("length", [1, 2, 20])
def test_an_arm_that_adds_nothing_makes_the_drafts_where_there_are_none(lm, ids, length):
    """Within the sliding window (8 positions), where its pass computes the prefix, and beyond."""
    arms = arms_of(lm, 4, 0.5)
    short = [prompt for prompt in ids if len(prompt) + 2 <= 8]
    assert 1 < len(short) < len(ids)
    for prompts in (ids, short):
        drafts = greedy(lm.decoder, prompts, length)
        expected = [one_by_one(lm, prompts, arm, length) for arm in arms]
        assert decode_arms(lm.decoder, prompts, [[]] * len(prompts), arms, length) == expected
        assert expected[0] == drafts


def test_eos_ends_a_branch_wherever_it_comes(lm, ids):
    replies = greedy(lm.decoder, ids, 12)
    ending = next(reply[3] for reply in replies if len(reply) > 3)
    decoder = type(lm.decoder)(lm.model, lm.decoder.pad_id, frozenset({ending}))
    arms = arms_of(lm, 5, 1.0)
    drafts = greedy(decoder, ids, 12)
    together = decode_arms(decoder, ids, drafts, arms, 12)
    for arm, got in zip(arms, together, strict=True):
        with adding(lm.model, arm):
            assert got == greedy(decoder, ids, 12)


def test_groups_of_arms_change_nothing(lm, ids, monkeypatch):
    arms, drafts = arms_of(lm, 7, 0.5), greedy(lm.decoder, ids, 6)
    whole = decode_arms(lm.decoder, ids, drafts, arms, 6)
    monkeypatch.setattr("corrsteer.lm.shared_prefix.SCORE_BYTES", 100_000)
    assert decode_arms(lm.decoder, ids, drafts, arms, 6) == whole


def test_a_prompt_of_one_token(lm):
    ids = [[1], [1, 7]]
    drafts = greedy(lm.decoder, ids, 5)
    arms = arms_of(lm, 3, 0.5)
    expected = [one_by_one(lm, ids, arm, 5) for arm in arms]
    assert decode_arms(lm.decoder, ids, drafts, arms, 5) == expected
    alone = decode_arms(lm.decoder, ids[:1], drafts[:1], arms, 5)
    assert alone == [replies[:1] for replies in expected]
