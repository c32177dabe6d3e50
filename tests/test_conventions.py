"""Prompts, ends of replies, generation settings and positions: a model's own, once, everywhere."""

import json
import logging
import shutil

import pytest
import torch
from conftest import D_MODEL, tiny_tokenizer
from tokenizers import processors
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

import corrsteer as cs
from corrsteer.errors import ModelError
from corrsteer.hook_points import HookPoint
from corrsteer.lm.conventions import opening, prompt_tokens, reply_greedily
from corrsteer.lm.decoding import greedy
from corrsteer.lm.hooks import adding
from corrsteer.lm.shared_prefix import decode_arms
from corrsteer.runs import card
from corrsteer.runs.steer import steer
from corrsteer.runs.steering import Steering
from corrsteer.samples import Sample

PAD, BOS, EOS, UNK = range(4)


def tokenizer_of(template):
    tokenizer = tiny_tokenizer()
    names = ("<pad>", "<bos>", "<eos>", "<unk>")
    special = [(name, index) for index, name in enumerate(names)]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=special
    )
    return tokenizer


@pytest.mark.parametrize(
    ("template", "first"),
    [
        ("$A", []),
        ("<bos> $A", [BOS]),
        ("<bos> $A <eos>", [BOS]),
        ("$A <eos>", []),
        ("<pad> <bos> $A <eos> <pad>", [PAD, BOS]),
    ],
)
def test_special_tokens_begin_a_prompt_once_and_none_is_put_behind_it(template, first):
    tokenizer = tokenizer_of(template)
    assert opening(tokenizer) == first
    a, b = tokenizer("ab", add_special_tokens=False)["input_ids"]
    for text, ids in {
        "ab": [*first, a, b],
        "<bos>ab": [*first, a, b] if BOS in first else [BOS, a, b],
        "ab<eos>a": [*first, a, b, EOS, a],  # what a template wrote stays
        "<pad><bos>a": [PAD, BOS, a],
        "": first,
    }.items():
        if text != "<pad><bos>a" or first != [BOS]:
            assert prompt_tokens(tokenizer, text, first) == ids, text


@pytest.fixture
def folder(hub, tmp_path):
    return shutil.copytree(hub / "model", tmp_path / "model")


def test_texts_that_a_template_rendered_are_the_chats_own_tokens(folder):
    tokenizer = tokenizer_of("<bos> $A <eos>")
    tokenizer.chat_template = "{{ bos_token }}{% for m in messages %}[{{ m.content }}]{% endfor %}"
    tokenizer.save_pretrained(folder)
    for prepend in (False, True):
        lm = cs.load_model(str(folder), prepend_bos=prepend)
        messages = ({"role": "user", "content": "hello"},)
        chat = lm.prompt_ids(Sample("a", "", messages=messages))
        assert lm.prompt_ids(Sample("b", "<bos>[hello]")) == chat
        assert lm.prompt_ids(Sample("c", "[hello]")) == chat
        assert chat.count(BOS) == 1
        assert EOS not in chat
    assert lm.prompt_ids(Sample("d", "")) == [BOS]


SETTINGS = {
    "repetition_penalty": 3.0,
    "no_repeat_ngram_size": 1,
    "suppress_tokens": [30, 31],
    "begin_suppress_tokens": [40],
    "bad_words_ids": [[50]],
    "forced_eos_token_id": 2,
    "min_new_tokens": 3,
    "num_beams": 2,
}


@pytest.fixture
def told(folder):
    """The tiny model with settings that change greedy replies, and a second end token."""
    plain = cs.load_model(str(folder))
    prompt = plain.prompt_ids(Sample("a", "hello"))
    ending = greedy(plain.decoder, [prompt], 6)[0][3]
    path = folder / "generation_config.json"
    said = {**json.loads(path.read_text()), **SETTINGS, "eos_token_id": [EOS, ending]}
    path.write_text(json.dumps(said))
    return plain, prompt, ending


def test_settings_that_change_greedy_replies_are_off_and_said_once(told, folder, caplog):
    plain, prompt, ending = told
    with caplog.at_level(logging.INFO, "corrsteer"):
        lm = cs.load_model(str(folder))
    (line,) = [r.getMessage() for r in caplog.records if "generation settings" in r.getMessage()]
    assert {each.partition("=")[0] for each in lm.switched_off} == {*SETTINGS}
    assert all(name in line for name in SETTINGS)
    assert lm.facts.switched_off == lm.switched_off
    (whole,) = greedy(plain.decoder, [prompt], 12)
    expected = whole[: whole.index(ending)]
    assert greedy(lm.decoder, [prompt], 12) == [expected]
    said = lm.model.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False)
    assert said[0, len(prompt) :].tolist() == [*expected, ending]
    assert reply_greedily(lm.model) == []


def test_a_run_tells_which_settings_were_off(told, folder, task, tmp_path):
    lm = cs.load_model(str(folder), sae="raw")
    options = {"controls": 0, "permutations": 0, "samples": 20, "layers": (1,), "val_limit": 4}
    cs.fit(lm, task, strategy="S", **options).save(tmp_path / "run")
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert "repetition_penalty=3.0" in run["switched_off"]
    assert "repetition_penalty=3.0" in cs.load_run(tmp_path / "run").provenance.switched_off


def test_the_shared_script_replies_as_we_do(told, folder, tmp_path, capfd):
    lm = cs.load_model(str(folder))
    vector = torch.linspace(-1, 1, D_MODEL)
    steering = Steering({HookPoint(1, "resid_post"): vector}, model=str(folder))
    path = steering.save(tmp_path / "s.safetensors")
    script: dict = {"__name__": "steer"}
    exec(card.script().decode(), script)
    script["main"](str(folder), "<bos>hello", str(path))
    out, err = capfd.readouterr()
    assert "repetition_penalty=3.0 changes greedy replies" in err
    with steer(lm, steering):
        assert out == lm.generate(["hello"], max_new_tokens=64)[0] + "\n"


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """A GPT-2 of 40 learned positions."""
    folder = tmp_path_factory.mktemp("gpt2")
    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            **{"n_positions": 40, "n_embd": D_MODEL, "n_layer": 2, "n_head": 2},
            **{"bos_token_id": BOS, "eos_token_id": EOS, "tie_word_embeddings": False},
        )
    )
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.5)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return cs.load_model(str(folder))


TEXTS = ["a" * 39, "b" * 34, "hello", "c" * 20]


def test_replies_end_where_positions_do_and_that_is_said_once(short, caplog):
    decoder = type(short.decoder)(**{**vars(short.decoder), "eos_ids": frozenset()})
    with caplog.at_level(logging.INFO, "corrsteer"):
        prompts = short.prompts_of([Sample(t, t) for t in TEXTS], 12, "some")
    (record,) = caplog.records
    assert "2 of 4 prompts leave room for fewer than 12 tokens within the 40" in record.getMessage()
    replies = greedy(decoder, prompts, 12)
    assert [len(reply) for reply in replies] == [1, 6, 12, 12]
    for prompt, reply in zip(prompts, replies, strict=True):
        said = short.model.generate(
            torch.tensor([prompt]), max_new_tokens=len(reply), do_sample=False, eos_token_id=-1
        )
        assert said[0, len(prompt) :].tolist() == reply
    generator = torch.Generator().manual_seed(0)
    at = HookPoint(0, "resid_post")
    arms = [{}, *({at: s * torch.randn(D_MODEL, generator=generator)} for s in (0.3, 3.0))]
    expected = []
    for arm in arms:
        with adding(short.model, arm):
            expected.append(greedy(decoder, prompts, 12))
    for drafts in (replies, [[]] * 4):
        assert decode_arms(decoder, prompts, drafts, arms, 12) == expected
    assert expected[0] != expected[2]
    assert len(short.generate(TEXTS, max_new_tokens=12)) == 4
    with pytest.raises(ModelError, match=r"has 41 tokens, and .* takes at most 40"):
        short.generate(["a" * 40])


def test_a_model_that_cannot_decode_in_batches_is_refused_when_it_is_loaded(tmp_path, call, capfd):
    from test_architectures import decoder_of

    tokenizer = tiny_tokenizer()
    decoder_of("mamba").model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    capfd.readouterr()
    code, out, err = call("eval", "baseline", "--model", tmp_path, "--task=mini-xstest")
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert "MambaForCausalLM) replies otherwise" in err


def test_a_model_that_cannot_share_prefixes_says_so_once(tmp_path, caplog):
    from test_architectures import decoder_of

    decoder_of("bloom").model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with caplog.at_level(logging.INFO, "corrsteer"):
        lm = cs.load_model(str(tmp_path))
    assert not lm.decoder.shares_prefix
    assert [r.getMessage() for r in caplog.records if "one by one" in r.getMessage()]


def test_loading_is_bitwise_the_model_of_its_files(lm):
    own = AutoModelForCausalLM.from_pretrained(lm.id)
    ids = torch.tensor([[1, 20, 30]])
    with torch.no_grad():
        assert torch.equal(lm.model(ids).logits, own(ids).logits)
