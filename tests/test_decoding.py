import pytest
import torch

from corrsteer.hook_points import HookPoint
from corrsteer.lm.decoding import greedy, greedy_with_residuals, length_batches, pad_left
from corrsteer.lm.hooks import tapped

POINTS = [HookPoint(layer, "resid_post") for layer in range(3)]


@pytest.fixture
def ids(lm, prompts):
    return [lm.tokenizer(text)["input_ids"] for text in prompts]


def run(lm, ids, length, positions="generated"):
    """Replies, and (row, hook point) -> residuals in the order they came."""
    seen = {}

    def receive(residuals):
        for index, row in enumerate(residuals.rows.tolist()):
            for hook, hidden in residuals.at.items():
                seen.setdefault((row, hook), []).append(hidden[index].clone())

    replies = greedy_with_residuals(lm.decoder, ids, length, POINTS, positions, receive)
    return replies, seen


def residuals(lm, ids) -> dict[HookPoint, torch.Tensor]:
    """The residuals of one whole sequence, [pos, d_model], by one pass without a cache."""
    seen = {}
    taps = {p: lambda h, p=p: seen.__setitem__(p, h[0].clone()) for p in POINTS}
    with torch.no_grad(), tapped(lm.model, taps):
        lm.model(torch.tensor([ids]))
    return seen


def test_a_padded_batch_gives_the_tokens_of_one_prompt_at_a_time(lm, ids):
    together = greedy(lm.decoder, ids, 12)
    alone = [greedy(lm.decoder, [prompt], 12)[0] for prompt in ids]
    assert together == alone
    assert any(together)


@pytest.mark.parametrize("total", [8, 30])
def test_greedy_is_what_transformers_generates(lm, ids, total):
    assert lm.model.config.sliding_window == 8
    compared = 0
    for prompt in ids:
        new = total - len(prompt)
        if new < 2:
            continue
        whole = lm.model.generate(torch.tensor([prompt]), max_new_tokens=new, do_sample=False)
        reply = whole[0, len(prompt) :].tolist()
        while reply and reply[-1] in lm.decoder.eos_ids:
            reply.pop()
        assert greedy(lm.decoder, [prompt], new) == [reply]
        compared += 1
    assert compared > 2


def test_rows_finish_at_eos_and_others_go_on(lm, ids):
    replies = greedy(lm.decoder, ids, 12)
    ending = next(reply[2] for reply in replies if len(reply) > 2)
    decoder = type(lm.decoder)(lm.model, lm.decoder.pad_id, frozenset({ending}))
    cut = greedy(decoder, ids, 12)
    for reply, short in zip(greedy(lm.decoder, ids, 12), cut, strict=True):
        expected = reply[: reply.index(ending)] if ending in reply else reply
        assert short[: len(expected)] == expected
        assert ending not in short
    assert cut != replies


def test_residuals_are_of_the_positions_that_predict_generated_tokens(lm, ids):
    replies, seen = run(lm, ids, 6)
    for row, (prompt, reply) in enumerate(zip(ids, replies, strict=True)):
        whole = residuals(lm, prompt + reply)
        for hook in POINTS:
            got = seen.get((row, hook), [])
            assert len(got) == len(reply)  # the state that predicts EOS is left out
            for step, residual in enumerate(got):
                expected = whole[hook][len(prompt) - 1 + step]
                torch.testing.assert_close(residual, expected, atol=1e-4, rtol=1e-4)


def test_all_positions_adds_every_prompt_position(lm, ids):
    replies, seen = run(lm, ids, 4, "all")
    for row, (prompt, reply) in enumerate(zip(ids, replies, strict=True)):
        later = max(len(reply) - 1, 0)
        assert len(seen[row, POINTS[0]]) == len(prompt) + later


def test_a_sample_that_emits_eos_at_once_has_no_residual(lm, ids):
    first = greedy(lm.decoder, ids, 1)[0][0]
    decoder = type(lm.decoder)(lm.model, lm.decoder.pad_id, frozenset({first}))
    seen = []
    replies = greedy_with_residuals(
        decoder, ids[:1], 5, POINTS, "generated", lambda residuals: seen.append(residuals)
    )
    assert replies == [[]]
    assert seen == []


def test_collecting_residuals_does_not_change_replies(lm, ids):
    assert run(lm, ids, 10)[0] == greedy(lm.decoder, ids, 10)


def test_batches_hold_every_index_once_longest_first():
    batches = length_batches([3, 9, 1, 9, 4], 2)
    assert batches == [[1, 3], [4, 0], [2]]


def test_padding_goes_to_the_left():
    ids, mask = pad_left([[5, 6, 7], [8]], 0)
    assert ids.tolist() == [[5, 6, 7], [0, 0, 8]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]
