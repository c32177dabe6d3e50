import copy
from types import SimpleNamespace
from typing import Any

import accelerate
import peft
import pytest
import torch

from corrsteer.errors import ModelError
from corrsteer.hook_points import HookPoint
from corrsteer.lm.decoding import pad_left
from corrsteer.lm.hooks import adding, drop_capturing_hooks, find_blocks, tapped
from corrsteer.runs.steer import steer
from corrsteer.runs.steering import Steering

PROMPTS = [[1, 10, 11, 12, 13], [1, 20, 21], [1, 30, 31, 32]]


def forward(lm, ids, mask=None, **options):
    with torch.no_grad():
        return lm.model(input_ids=ids, attention_mask=mask, **options)


def residuals(lm, ids, mask=None) -> dict[HookPoint, torch.Tensor]:
    seen = {}
    points = [HookPoint(layer, "resid_post") for layer in range(lm.n_layers)]
    with tapped(lm.model, {p: lambda h, p=p: seen.__setitem__(p, h.clone()) for p in points}):
        forward(lm, ids, mask)
    return seen


def hook_count(lm) -> int:
    drop_capturing_hooks(lm.model)  # which an earlier test may have left, idle
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in lm.model.modules())


@pytest.fixture
def batch():
    return pad_left(PROMPTS, 0)


def test_resid_post_is_the_output_of_its_block(lm, batch):
    ids, mask = batch
    out = forward(lm, ids, mask, output_hidden_states=True)
    seen = residuals(lm, ids, mask)
    for layer in range(lm.n_layers - 1):  # the last hidden state has the final norm applied
        assert torch.equal(seen[HookPoint(layer, "resid_post")], out.hidden_states[layer + 1])


def test_resid_pre_is_the_output_of_the_block_before(lm, batch):
    seen = {}
    with tapped(
        lm.model,
        {
            HookPoint(1, "resid_pre"): lambda h: seen.__setitem__("pre", h.clone()),
            HookPoint(0, "resid_post"): lambda h: seen.__setitem__("post", h.clone()),
        },
    ):
        forward(lm, *batch)
    assert torch.equal(seen["pre"], seen["post"])


def test_mlp_out_is_what_the_mlp_adds(lm, batch):
    """Gemma-2 norms the MLP's output before adding it; that normed output is mlp_out."""
    seen, block = {}, find_blocks(lm.model)[1]
    with tapped(lm.model, {HookPoint(1, "mlp_out"): lambda h: seen.__setitem__("mlp", h.clone())}):
        attended = {}
        before_mlp: Any = block.pre_feedforward_layernorm
        handle = before_mlp.register_forward_pre_hook(
            lambda m, args: attended.__setitem__("mid", args[0].clone())
        )
        post = residuals(lm, *batch)[HookPoint(1, "resid_post")]
        handle.remove()
    torch.testing.assert_close(attended["mid"] + seen["mlp"], post)


def test_steered_state_is_original_plus_vector_and_earlier_layers_are_untouched(lm, batch):
    ids, mask = batch
    vector = torch.linspace(-1, 1, lm.d_model)
    before = residuals(lm, ids, mask)
    with adding(lm.model, {HookPoint(1, "resid_post"): vector}):
        after = residuals(lm, ids, mask)
    assert torch.equal(after[HookPoint(0, "resid_post")], before[HookPoint(0, "resid_post")])
    at = HookPoint(1, "resid_post")
    assert torch.equal(after[at][:, -1], before[at][:, -1] + vector)
    assert torch.equal(after[at][:, :-1], before[at][:, :-1])


def test_hidden_states_are_those_that_steering_leaves_whatever_was_asked_for_before(lm, batch):
    at = HookPoint(1, "resid_post")

    def hidden():
        return forward(lm, *batch, output_hidden_states=True).hidden_states[at.layer + 1]

    before = hidden()
    for _ in range(2):
        with adding(lm.model, {at: torch.ones(lm.d_model)}):
            assert torch.equal(hidden()[:, -1], before[:, -1] + 1)
    assert torch.equal(hidden(), before)


@pytest.mark.parametrize("site", ["resid_pre", "mlp_out", "resid_post"])
def test_every_site_can_be_steered(lm, batch, site):
    before = forward(lm, *batch).logits
    with adding(lm.model, {HookPoint(1, site): torch.ones(lm.d_model)}):
        after = forward(lm, *batch).logits
    assert not torch.allclose(before[:, -1], after[:, -1])
    earlier = batch[1].bool()[:, :-1]  # what a model computes for padding means nothing
    assert torch.equal(before[:, :-1][earlier], after[:, :-1][earlier])


def test_all_positions_steers_every_token_but_no_padding(lm, batch):
    ids, mask = batch
    at = HookPoint(0, "resid_post")
    before = residuals(lm, ids, mask)[at]
    with adding(lm.model, {at: torch.ones(lm.d_model)}, "all"):
        after = residuals(lm, ids, mask)[at]
    changed = (after != before).any(-1)
    assert torch.equal(changed, mask.bool())


def test_right_padding_steers_the_last_token_of_each_row(lm):
    ids = torch.tensor([[1, 10, 11, 12], [1, 20, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    at = HookPoint(0, "resid_post")
    before = residuals(lm, ids, mask)[at]
    with adding(lm.model, {at: torch.ones(lm.d_model)}):
        after = residuals(lm, ids, mask)[at]
    changed = (after != before).any(-1)
    assert changed.tolist() == [[False, False, False, True], [False, True, False, False]]


@pytest.mark.parametrize("positions", ["generated", "all"])
def test_decoding_without_a_cache_gives_the_same_tokens_as_with_one(lm, batch, positions):
    ids, mask = batch
    vectors = {HookPoint(layer, "resid_post"): torch.randn(lm.d_model) for layer in (0, 2)}
    with adding(lm.model, vectors, positions):
        with_cache, without = (
            lm.model.generate(
                ids, attention_mask=mask, max_new_tokens=8, do_sample=False, use_cache=use_cache
            )
            for use_cache in (True, False)
        )
    unsteered = lm.model.generate(ids, attention_mask=mask, max_new_tokens=8, do_sample=False)
    assert torch.equal(with_cache, without)
    assert with_cache.shape != unsteered.shape or not torch.equal(with_cache, unsteered)


def test_a_loop_of_bare_forward_passes_is_steered_like_generate(lm):
    ids = torch.tensor([PROMPTS[0]])
    vectors = {HookPoint(1, "resid_post"): torch.randn(lm.d_model) * 2}
    with adding(lm.model, vectors):
        generated = lm.model.generate(
            ids, max_new_tokens=6, min_new_tokens=6, do_sample=False, eos_token_id=None
        )
        looped = ids
        for _ in range(6):
            token = forward(lm, looped, use_cache=False).logits[:, -1].argmax(-1)
            looped = torch.cat([looped, token[:, None]], 1)
    assert torch.equal(generated, looped)


def test_chunked_prefill_steers_the_last_prompt_position_only(lm):
    ids = torch.tensor([[1, *range(10, 22)]])
    vectors = {HookPoint(1, "resid_post"): torch.randn(lm.d_model) * 2}
    with adding(lm.model, vectors):
        whole, chunked = (
            lm.model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False, **more
            )
            for more in ({}, {"prefill_chunk_size": 4})
        )
    assert torch.equal(whole, chunked)


def test_hooks_go_away_on_leaving(lm, batch):
    hooks = hook_count(lm)
    before = forward(lm, *batch).logits
    with adding(lm.model, {HookPoint(1, "resid_post"): torch.ones(lm.d_model)}):
        assert hook_count(lm) > hooks
    assert hook_count(lm) == hooks
    assert "generate" not in lm.model.__dict__
    assert torch.equal(forward(lm, *batch).logits, before)


def test_hooks_go_away_when_an_exception_passes(lm, batch):
    hooks = hook_count(lm)
    before = forward(lm, *batch).logits
    with (
        pytest.raises(RuntimeError, match="passing"),
        adding(lm.model, {HookPoint(1, "resid_post"): torch.ones(lm.d_model)}),
    ):
        raise RuntimeError("passing")
    assert hook_count(lm) == hooks
    assert "generate" not in lm.model.__dict__
    assert torch.equal(forward(lm, *batch).logits, before)


def test_hooks_go_away_when_setting_up_fails_half_way(lm):
    hooks = hook_count(lm)
    good, bad = HookPoint(0, "resid_post"), HookPoint(99, "resid_post")
    vector = torch.ones(lm.d_model)
    with (
        pytest.raises(ModelError, match=r"layer 99 is not in 0\.\.2"),
        adding(lm.model, {good: vector, bad: vector}),
    ):
        pass
    assert hook_count(lm) == hooks


def test_nested_steerings_add(lm, batch):
    ids, mask = batch
    at = HookPoint(1, "resid_post")
    before = residuals(lm, ids, mask)[at]
    one, two = torch.ones(lm.d_model), torch.full((lm.d_model,), 2.0)
    with adding(lm.model, {at: one}), adding(lm.model, {at: two}):
        after = residuals(lm, ids, mask)[at]
    torch.testing.assert_close(after[:, -1], before[:, -1] + 3)


def test_a_model_without_blocks_is_refused():
    class NoBlocks(torch.nn.Module):
        config = type("Config", (), {"num_hidden_layers": 2})()

    with pytest.raises(ModelError, match="transformer blocks"):
        find_blocks(NoBlocks())


def with_lora(model):
    config = peft.LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    return peft.get_peft_model(model, config).eval()


WRAPPERS = {
    "peft": with_lora,
    "DataParallel": torch.nn.DataParallel,
    "accelerate": lambda model: accelerate.cpu_offload(model),
}


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*pin_memory:UserWarning")
@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("positions", ["generated", "all"])
def test_a_wrapped_model_is_steered_inside_at_the_same_positions(lm, wrapper, positions):
    ids, mask = pad_left(PROMPTS, 0)
    vectors = {HookPoint(1, "resid_post"): torch.linspace(-2, 2, lm.d_model)}
    steering = Steering(vectors, model=lm.id, positions=positions)
    with torch.no_grad():
        plain = lm.model(ids, attention_mask=mask).logits
        with adding(lm.model, vectors, positions):
            expected = lm.model(ids, attention_mask=mask).logits
            said = lm.model.generate(ids, attention_mask=mask, max_new_tokens=5, do_sample=False)
        wrapped = WRAPPERS[wrapper](copy.deepcopy(lm.model))
        with steer(wrapped, steering):
            assert torch.equal(wrapped(ids, attention_mask=mask).logits, expected)
            if hasattr(wrapped, "generate"):
                options = {"max_new_tokens": 5, "do_sample": False}
                assert torch.equal(
                    wrapped.generate(input_ids=ids, attention_mask=mask, **options), said
                )
        assert torch.equal(wrapped(ids, attention_mask=mask).logits, plain)
    assert not torch.equal(plain, expected)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_what_steers_nobody_knows_where_is_refused(lm):
    vectors = {HookPoint(1, "resid_post"): torch.ones(lm.d_model)}
    ids = torch.tensor([PROMPTS[0]])
    block, hidden = find_blocks(lm.model)[1], torch.zeros(1, 2, lm.d_model)
    embeddings = lm.model.model.rotary_emb(hidden, torch.arange(2)[None])
    with adding(lm.model, vectors):
        with pytest.raises(ModelError, match="outside of its model's forward pass"):
            block(hidden, position_embeddings=embeddings)
        with pytest.raises(ModelError, match="attention mask that is not"):
            lm.model(ids, attention_mask=torch.zeros(1, 1, 5, 5))
        assert lm.model(ids).logits.shape[1] == 5  # and goes on
    config = peft.PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM")
    prompted = peft.get_peft_model(copy.deepcopy(lm.model), config)
    with pytest.raises(ModelError, match="learned positions"), adding(prompted, vectors):
        pass


class Toy(torch.nn.Module):
    """Blocks that compile in no time."""

    config = SimpleNamespace(num_hidden_layers=2)

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList([torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)])

    def forward(self, input_ids):
        hidden = torch.nn.functional.one_hot(input_ids, 4).float()
        for layer in self.layers:
            hidden = layer(hidden)
        return hidden


def test_compiled_code_that_ran_before_is_steered_and_back_again_afterwards():
    """It would not look for hooks again."""
    toy, ids = Toy(), torch.tensor([[1, 2, 3]])
    vectors = {HookPoint(0, "resid_post"): torch.ones(4)}
    compiled: Any = torch.compile(toy, backend="eager")
    plain = compiled(ids)
    with adding(toy, vectors):
        expected = toy(ids)
    for model in (compiled, toy, torch.nn.DataParallel(compiled)):
        with adding(model, vectors):
            assert torch.equal(compiled(ids), expected)
    assert torch.equal(compiled(ids), plain)
    assert (expected != plain).any(-1).tolist() == [[False, False, True]]
