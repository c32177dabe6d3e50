"""All places that add a steering give the same logits on the same prompts."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from corrsteer.export import vllm_plugin
from corrsteer.hook_points import HookPoint
from corrsteer.lm.load_check import _Listening
from corrsteer.lm.shared_prefix import decode_arms
from corrsteer.runs import card
from corrsteer.runs.steer import steer
from corrsteer.runs.steering import Steering

NEW = 4
SITES = {
    "resid_post": [HookPoint(0, "resid_post"), HookPoint(1, "resid_post")],
    "resid_pre": [HookPoint(1, "resid_pre"), HookPoint(2, "resid_pre")],
}


def generated(model, prompt):
    """Greedy tokens, and the logits behind each."""
    ids = torch.tensor([prompt])
    said = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=NEW,
        do_sample=False,
        eos_token_id=-1,
        output_logits=True,
        return_dict_in_generate=True,
    )
    return said.sequences[0, len(prompt) :].tolist(), torch.cat(said.logits)


def by_context(lm, steering, path, prompt, reply):
    with steer(lm, steering):
        return generated(lm.model, prompt)[1]


def by_forward_passes(lm, steering, path, prompt, reply):
    with steer(lm, steering), torch.no_grad():
        lm.model(torch.tensor([prompt]), use_cache=False)  # where the prompt ends
        return lm.model(torch.tensor([prompt + reply[:-1]]), use_cache=False).logits[0]


def by_shared_prefix(lm, steering, path, prompt, reply):
    decoder = _Listening(lm.model, 0, frozenset())
    vectors = steering.scaled()
    other = {hook: -vector for hook, vector in vectors.items()}
    decode_arms(decoder, [prompt], [reply[:-1]], [vectors, other], NEW)
    return decoder.heard[0][:NEW]


def by_arms_that_left_their_draft(lm, steering, path, prompt, reply):
    decoder = _Listening(lm.model, 0, frozenset())
    decode_arms(decoder, [prompt], [[reply[0] ^ 1]], [steering.scaled()], NEW)
    return torch.cat([decoder.heard[0][:1], *decoder.heard[1:]])


def by_the_shared_script(lm, steering, path, prompt, reply):
    script: dict = {"__name__": "steer"}
    exec(card.script().decode(), script)
    hooks = script["steer"](lm.model, str(path))
    try:
        return generated(lm.model, prompt)[1]
    finally:
        for hook in hooks:
            hook.remove()


def harness(lm, path):
    pytest.importorskip("lm_eval")
    from corrsteer.export.lm_eval_model import CorrSteerLM

    return CorrSteerLM(str(path), pretrained=lm.id, device="cpu", dtype="float32")


def by_the_harness_generating(lm, steering, path, prompt, reply):
    said = harness(lm, path)._model_generate(
        context=torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
        max_length=len(prompt) + NEW,
        stop=[],
        eos_token_id=-1,
        output_logits=True,
        return_dict_in_generate=True,
    )
    return torch.cat(said.logits)


def by_the_harness_judging(lm, steering, path, prompt, reply):
    batch = [(tuple(prompt), tuple(reply[:-1]), False)]
    return harness(lm, path)._continuation_logits(batch)[0]


class Flat(nn.Module):
    """A block over a row of tokens, as vLLM's are."""

    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, hidden, *args, **options):
        return self.block(hidden[None], *args, **options)[0]


class Batched(nn.Module):
    """Such a block where transformers expects its own."""

    def __init__(self, flat):
        super().__init__()
        self.flat = [flat]  # found as a layer of its own
        self.attention_type = getattr(flat.block, "attention_type", None)

    def forward(self, hidden, *args, **options):
        return self.flat[0](hidden[0], *args, **options)[None]


def by_the_vllm_plugin(lm, steering, path, prompt, reply):
    model = copy.deepcopy(lm.model)
    flat = nn.ModuleList(map(Flat, model.model.layers))
    model.model.layers = nn.ModuleList(map(Batched, flat))
    tokens = prompt + reply[:-1]
    runner = SimpleNamespace(
        cache_config=SimpleNamespace(enable_prefix_caching=False),
        parallel_config=SimpleNamespace(pipeline_parallel_size=1),
        model_config=SimpleNamespace(
            get_hidden_size=lambda: lm.d_model, get_total_num_hidden_layers=lambda: lm.n_layers
        ),
        get_model=lambda: nn.ModuleDict({"layers": flat}),
        vllm_config=SimpleNamespace(additional_config={}),
        max_num_tokens=64,
        device="cpu",
        input_batch=SimpleNamespace(
            req_ids=["a"], num_reqs=1, num_computed_tokens_cpu=[0], num_prompt_tokens=[len(prompt)]
        ),
        requests={"a": SimpleNamespace(sampling_params=SimpleNamespace(extra_args=None))},
    )
    vllm_plugin.install(runner, str(path))
    vllm_plugin._filling(lambda *args: None)(runner, None, [len(tokens)])
    with torch.no_grad():
        return model(torch.tensor([tokens]), use_cache=False).logits[0]


PLACES = {
    "generated": [
        *(by_context, by_forward_passes, by_shared_prefix, by_arms_that_left_their_draft),
        *(by_the_shared_script, by_the_harness_generating, by_the_harness_judging),
        by_the_vllm_plugin,
    ],
    "all": [
        *(by_context, by_forward_passes, by_the_shared_script, by_the_harness_generating),
        *(by_the_harness_judging, by_the_vllm_plugin),
    ],
}


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize(
    ("scope", "place"),
    [(scope, place) for scope, places in PLACES.items() for place in places],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_every_place_steers_alike(lm, tmp_path, site, scope, place):
    """Held to hooks written out here, on one pass over the prompt and its reply."""
    draws = torch.randn(2, lm.d_model, generator=torch.Generator().manual_seed(1))
    vectors = dict(zip(SITES[site], draws, strict=True))
    made = Steering(vectors, model=lm.id, positions=scope, strength=0.7)
    path = made.save(tmp_path / "run")
    prompt = lm.tokenizer("what is it?")["input_ids"]
    start = 0 if scope == "all" else len(prompt) - 1
    handles = []

    def add(vector):
        def hook(module, args, output):
            output[:, start:] += 0.7 * vector  # these blocks return a tensor

        return hook

    for point, vector in vectors.items():
        layer = point.layer - (point.site == "resid_pre")
        handles.append(lm.model.model.layers[layer].register_forward_hook(add(vector)))
    tokens = list(prompt)
    with torch.inference_mode():
        for _ in range(NEW):
            logits = lm.model(torch.tensor([tokens]), use_cache=False).logits[0]
            tokens.append(int(logits[-1].argmax()))
    for handle in handles:
        handle.remove()
    found = place(lm, made, path, prompt, tokens[len(prompt) :])[-NEW:]
    torch.testing.assert_close(found, logits[-NEW:], atol=1e-4, rtol=1e-4)
    plain = lm.model(torch.tensor([tokens[:-1]])).logits[0, -NEW:]
    assert (found - plain).abs().max() > 0.1
