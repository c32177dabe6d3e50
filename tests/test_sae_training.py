"""SAEs for a model that has none: what is trained on, what is written, what it is worth."""

import json
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from corrsteer import load_model
from corrsteer.errors import ArtifactError, DataError, SettingsError, UnknownNameError
from corrsteer.execution.checkpoint import Checkpoint
from corrsteer.hook_points import HookPoint
from corrsteer.lm.known_models import KNOWN_MODELS
from corrsteer.lm.load_check import residuals_of
from corrsteer.lm.sae_placement import choose_handles
from corrsteer.lm.texts import Documents, loss_of, residuals_at
from corrsteer.sae_training import training
from corrsteer.sae_training.dictionary import (
    DictionarySettings,
    read_dictionary,
    save_dictionary,
    train_dictionary,
)
from corrsteer.sae_training.documents import (
    HELD_OUT,
    own_prompts,
    pieces_of,
    prompts_of,
    texts_of,
)
from corrsteer.sae_training.quality import SAEQuality, quality_of
from corrsteer.sae_training.settings import SAESettings
from corrsteer.sae_training.training import train_saes
from corrsteer.samples import Sample

TINY = SAESettings(
    layers=(0, 2), latents=32, k=4, tokens=300, epochs=2, max_new_tokens=4, batch_size=4
)
OPTIONS = ["--layers", "0,2", "--latents", 32, "--k", 4, "--tokens", 300, "--epochs", 2]
OPTIONS += ["--max-new-tokens", 4, "--batch-size", 4]


def nothing(_: int) -> None:
    """Told of progress."""


@pytest.fixture
def texts(tmp_path):
    """A .jsonl file of texts, all of them different."""
    path = tmp_path / "texts.jsonl"
    rows = [
        {"text": f"text {n}: {'abcdefghij'[n % 10] * (n % 7 + 3)} and {n * n}"} for n in range(40)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture(scope="module")
def made(lm, tmp_path_factory):
    """A folder of SAEs of the tiny model, and its card."""
    out = tmp_path_factory.mktemp("saes") / "made"
    return out, train_saes(lm, [own_prompts(lm)], TINY, out)


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_what_was_trained_is_read_by_sae_and_encodes_as_sae_lens(made, hub):
    from sae_lens import SAE

    out, _ = made
    lm = load_model(str(hub / "model"), sae=str(out))
    assert [handle.hook_point for handle in lm.saes] == [
        HookPoint(0, "resid_post"),
        HookPoint(2, "resid_post"),
    ]
    for handle in lm.saes:
        x = residuals_of(lm.model, lm.check_prompts[1], [handle.hook_point])[handle.hook_point]
        theirs = SAE.load_from_disk(out / handle.source)
        z = handle.load(torch.device("cpu"), x).encode(x)
        assert z.shape[1] == 32
        assert torch.equal(z, theirs.encode(x))
        assert torch.equal(handle.decoder_rows([3]), theirs.W_dec[[3]])


def test_the_card_is_on_disk_and_says_what_was_done(made):
    out, card = made
    told = json.loads((out / "quality.json").read_text())
    assert told["schema"] == "corrsteer.sae-quality/1"
    assert told["model"] == "model"  # the folder's name, not its place
    assert (told["latents"], told["settings"]["tokens"]) == (32, 300)
    assert [each["layer"] for each in told["saes"]] == [0, 2]
    assert told["trained"] == card.trained >= 300
    assert told["saes"][0]["loss_recovered"] == card.saes[0].loss_recovered


def test_a_run_again_gives_the_same_bytes_and_another_seed_does_not(made, lm, tmp_path):
    out, _ = made
    train_saes(lm, [own_prompts(lm)], TINY, tmp_path / "again")
    assert contents(tmp_path / "again") == contents(out)
    train_saes(lm, [own_prompts(lm)], replace(TINY, seed=1), tmp_path / "other")
    assert contents(tmp_path / "other") != contents(out)


@pytest.mark.parametrize(
    "stop_before", ["texts 1", "held-out texts 0", HookPoint(2, "resid_post").name]
)
def test_what_was_stopped_is_resumed_to_the_same_bytes(
    made, lm, tmp_path, monkeypatch, stop_before
):
    out = tmp_path / "stopped"
    remember, begun = Checkpoint.remember, []

    def stop(self, key, result):
        begun.append(key)
        if key == stop_before:
            raise KeyboardInterrupt
        remember(self, key, result)

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoint, "remember", stop)
        with pytest.raises(KeyboardInterrupt, match="--resume"):
            train_saes(lm, [own_prompts(lm)], TINY, out)
    assert not out.exists()
    again = []
    monkeypatch.setattr(
        Checkpoint,
        "remember",
        lambda self, key, result: (again.append(key), remember(self, key, result)),
    )
    train_saes(lm, [own_prompts(lm)], TINY, out, resume=True)
    assert contents(out) == contents(made[0])
    assert set(again) & set(begun) == {stop_before}


def test_work_of_other_settings_is_not_gone_on_with(lm, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(training, "residuals_at", stop)
        with pytest.raises(KeyboardInterrupt):
            train_saes(lm, [own_prompts(lm)], TINY, tmp_path / "out")
    with pytest.raises(ArtifactError, match="seed"):
        train_saes(lm, [own_prompts(lm)], replace(TINY, seed=3), tmp_path / "out", resume=True)


def test_what_is_held_out_is_not_trained_on(lm, texts):
    for kinds in ([own_prompts(lm)], [texts_of([texts])], [texts_of([texts]), own_prompts(lm)]):
        pieces = pieces_of(lm, kinds, seed=0)
        train, held_out = ({each.ids for each in part} for part in (pieces.train, pieces.held_out))
        assert train
        assert held_out
        assert not train & held_out
        share = len(pieces.held_out) / (len(pieces.train) + len(pieces.held_out))
        assert share == pytest.approx(HELD_OUT, abs=0.06)


def test_a_subject_is_held_out_whole(lm):
    pieces = pieces_of(lm, [own_prompts(lm)], seed=0)
    held_out = {each.ids for each in pieces.held_out}
    subjects = {}
    for source in own_prompts(lm):
        is_held = tuple(lm.prompt_ids(source.sample)) in held_out
        subjects.setdefault(source.sample.group, set()).add(is_held)
    assert all(len(sides) == 1 for sides in subjects.values())
    assert sum(sides == {True} for sides in subjects.values()) == 6


def test_equal_texts_are_on_one_side(lm, tmp_path):
    path = tmp_path / "twice.jsonl"
    path.write_text("\n".join(json.dumps({"text": f"text {n % 5}"}) for n in range(40)))
    for seed in range(5):
        pieces = pieces_of(lm, [texts_of([path])], seed)
        assert len(pieces.held_out) == 8
        assert not {each.ids for each in pieces.train} & {each.ids for each in pieces.held_out}


def test_prompts_of_a_task_take_turns_with_others(lm, texts):
    samples = [Sample(str(n), f"question {n}?") for n in range(40)]
    pieces = pieces_of(lm, [texts_of([texts]), prompts_of(samples)], seed=0)
    kinds = [each.is_prompt for each in pieces.train]
    assert 0.4 < sum(kinds[:20]) / 20 < 0.6


def test_long_texts_are_cut_into_pieces_that_begin_alike(lm):
    pieces = lm.pieces_of("abc" * 10, 8)
    assert [len(each) for each in pieces] == [8, 8, 8, 8, 3]
    assert all(each[0] == lm.tokenizer.bos_token_id for each in pieces)
    assert lm.decode([token for each in pieces for token in each]) == "abc" * 10


def test_the_beginning_that_all_texts_share_is_left_out(lm, texts):
    pieces = pieces_of(lm, [texts_of([texts])], seed=0)
    assert pieces.skip == 1 + len("text ")
    documents = Documents([each.ids for each in pieces.train], pieces.skip)
    assert documents.positions == sum(len(each.ids) - 6 for each in pieces.train)


def test_residuals_are_those_of_each_text_alone(lm):
    hook_points = [HookPoint(0, "resid_post"), HookPoint(2, "resid_post")]
    documents = Documents([lm.prompt_ids(Sample("", text)) for text in ("abc", "a longer one")], 1)
    found = residuals_at(lm, documents, hook_points, 2, nothing)
    for hook_point in hook_points:
        alone = [residuals_of(lm.model, ids, [hook_point])[hook_point][1:] for ids in documents.ids]
        expected = torch.cat(alone[::-1])  # the longest comes first
        torch.testing.assert_close(found[hook_point], expected, rtol=1e-4, atol=1e-4)


def test_the_loss_is_that_of_the_tokens_behind_what_is_not_left_out(lm):
    ids = lm.prompt_ids(Sample("", "what is it"))
    with torch.no_grad():
        own = torch.nn.functional.cross_entropy(
            lm.model(torch.tensor([ids])).logits[0, 2:-1], torch.tensor(ids[3:])
        )
    documents = Documents([ids, ids[:2]], 2)  # a text that is all left out changes nothing
    assert loss_of(lm, documents) == pytest.approx(float(own), rel=1e-4)


def test_replacing_residuals_by_themselves_changes_no_loss_and_zeros_do(lm):
    documents = Documents([lm.prompt_ids(Sample("", "what is it?"))], 1)
    hook_point = HookPoint(1, "resid_post")
    loss = loss_of(lm, documents)
    assert loss_of(lm, documents, {hook_point: lambda x: x}) == loss
    assert loss_of(lm, documents, {hook_point: torch.zeros_like}) != loss


def planted(rows: int, seed: int) -> torch.Tensor:
    """Residuals that are each the sum of two of 16 directions, of a size as late layers have."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(0))).Q
    active = torch.rand(rows, 16, generator=generator).topk(2).indices
    sizes = 50 + 50 * torch.rand(rows, 2, generator=generator)
    return torch.zeros(rows, 16).scatter(1, active, sizes) @ directions + 30.0


HOW = DictionarySettings("tiny", HookPoint(1, "resid_post"), d_sae=32, k=2, epochs=60, seed=0)


@pytest.fixture(scope="module")
def planted_sae(tmp_path_factory):
    """An SAE that was trained on `planted` residuals, as written."""
    folder = tmp_path_factory.mktemp("planted")
    sae = train_dictionary(planted(4096, 1), HOW, torch.device("cpu"), nothing)
    save_dictionary(sae, folder)
    return read_dictionary(folder, torch.device("cpu"))


def test_planted_directions_are_found(planted_sae):
    x = planted(1000, 2)
    with torch.no_grad():
        z = planted_sae.encode(x)
        error = (planted_sae.decode(z) - x).square().sum()
    assert float(error / (x - x.mean(0)).square().sum()) < 0.1
    assert float((z > 0).sum(1).float().mean()) == pytest.approx(2, abs=0.3)


def test_vectors_have_unit_norm_and_activations_the_size_of_residuals(planted_sae):
    torch.testing.assert_close(planted_sae.W_dec.norm(dim=1), torch.ones(32))
    assert float(planted_sae.encode(planted(100, 2)).max()) > 50


def test_quality_by_hand(lm):
    class Halves:
        """Reconstructs half of every residual, with one latent of four that is never active."""

        W_enc = torch.zeros(1)
        half = torch.zeros(1)

        def encode(self, x):
            return torch.cat([x.abs()[:, :3] + 1, torch.zeros(len(x), 1)], 1)

        def decode(self, z):
            return self.half

    sae, hook_point = Halves(), HookPoint(1, "resid_post")
    documents = Documents([lm.prompt_ids(Sample("", "what is it?"))], 1)
    x = residuals_at(lm, documents, [hook_point], 1, nothing)[hook_point]
    sae.half = x / 2
    quality = quality_of(lm, sae, hook_point, x, x, documents)
    variance = (x - x.mean(0)).square().sum()
    assert quality.fvu == pytest.approx(float((x / 2).square().sum() / variance), rel=1e-4)
    assert (quality.l0, quality.dead) == (3, 0.25)
    assert quality.loss_reconstructed == loss_of(lm, documents, {hook_point: lambda r: r / 2})


def test_loss_recovered():
    quality = SAEQuality(
        layer=1, fvu=0.1, l0=2, dead=0, loss=2.0, loss_reconstructed=2.5, loss_zeroed=7.0
    )
    assert quality.loss_recovered == pytest.approx(0.9)
    undefined = replace(quality, loss_zeroed=2.0)
    assert undefined.loss_recovered != undefined.loss_recovered


@pytest.mark.parametrize(("n_layers", "layers"), [(30, [8, 14, 20, 26]), (3, [0, 1, 2]), (1, [0])])
def test_default_layers(n_layers, layers):
    assert SAESettings().layers_of(n_layers) == layers


@pytest.mark.parametrize(("d_model", "latents"), [(576, 2048), (2304, 8192), (64, 256)])
def test_default_latents(d_model, latents):
    assert SAESettings().latents_of(d_model) == latents


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"k": 0}, "k is 0"),
        ({"tokens": 0}, "tokens is 0"),
        ({"layers": (1, 1)}, "layers is"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_settings_that_cannot_work_are_refused(options, told):
    with pytest.raises(SettingsError, match=told):
        SAESettings(**options)


def test_more_active_latents_than_there_are_is_refused():
    with pytest.raises(SettingsError, match="k is 32, but an SAE has 16 latents"):
        SAESettings(latents=16).latents_of(16)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.txt", b"", "holds no text"),
        ("a.txt", b" \n", "holds no text"),
        ("a.txt", b"\xff\xfe", "not UTF-8"),
        ("a.txt", b"one text", "is the only text"),
        ("a.jsonl", b"", "holds no text"),
        ("a.jsonl", b'{"text": "a"}\n{"texts": "b"}', "line 2: expected an object"),
        ("a.jsonl", b'{"text": "a"}\n["b"]', "line 2: expected an object"),
        ("a.jsonl", b'{"text": "a"}\n{"text": 3}', "line 2: `text` is not a text"),
        ("a.jsonl", b'{"text": " "}', "line 1: `text` is not a text"),
    ],
)
def test_texts_that_cannot_be_used_are_refused(tmp_path, name, content, told):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=told):
        texts_of([tmp_path / name])


def test_files_are_texts_and_rows_are_texts(tmp_path, texts):
    (tmp_path / "a.txt").write_text("one\n\ntext", encoding="utf-8-sig")
    found = texts_of([tmp_path / "a.txt", texts])
    assert len(found) == 41
    assert found[0].sample.prompt == "one\n\ntext"
    for one, other in pairwise(found):
        assert one.sample.id != other.sample.id


def test_too_few_texts_are_refused_and_leave_nothing(lm, texts, tmp_path):
    with pytest.raises(DataError, match="fewer than an SAE has latents"):
        train_saes(lm, [texts_of([texts])], replace(TINY, latents=4096), tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"texts.jsonl"}


def test_texts_that_are_alike_but_for_their_ends_are_refused(lm, tmp_path):
    (tmp_path / "texts.jsonl").write_text('{"text": "aaa"}\n{"text": "aaaaa"}\n')
    with pytest.raises(DataError, match=r"no tokens on the held-out texts|fewer than an SAE has"):
        train_saes(lm, [texts_of([tmp_path / "texts.jsonl"])], TINY, tmp_path / "out")


def test_a_layer_that_is_not_there_is_refused_and_leaves_nothing(lm, tmp_path):
    with pytest.raises(UnknownNameError, match=r"layer 3 is not in 0\.\.2"):
        train_saes(lm, [own_prompts(lm)], replace(TINY, layers=(1, 3)), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_the_command_prints_the_card_and_writes_the_folder(call, hub, texts, tmp_path):
    out = tmp_path / "saes"
    code, told, err = call(
        *("sae", "train", "--model", hub / "model", "--text", texts, "--out", out, *OPTIONS)
    )
    assert (code, [line for line in err.splitlines() if "tokens to train on" not in line]) == (
        0,
        [],
    )
    assert "FVU" in told
    assert f"--sae {out}" in told
    assert {path.name for path in out.iterdir()} == {"layer_0", "layer_2", "quality.json"}


def test_the_command_adds_the_prompts_of_a_task(call, hub, task_file, tmp_path, made):
    out = tmp_path / "saes"
    task = ("--task", task_file, "--scorer", "regex:a")
    code, told, _ = call(
        *("sae", "train", "--model", hub / "model", *task, "--out", out, *OPTIONS, "--json")
    )
    assert code == 0
    document = json.loads(told)
    assert document["folder"] == str(out)
    assert (
        contents(out)["layer_0/sae_weights.safetensors"]
        != contents(made[0])["layer_0/sae_weights.safetensors"]
    )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--layers", "7"), "layer 7 is not in 0..2"),
        (("--text", "nowhere.txt"), "cannot read nowhere.txt"),
        (("--scorer", "exact"), "--scorer is of a task"),
        (("--k", "40", "--latents", "32"), "k is 40, but an SAE has 32 latents"),
        (("--tokens", "0"), "tokens is 0"),
    ],
)
def test_bad_input_is_one_line(call, hub, tmp_path, arguments, told):
    out = tmp_path / "out"
    code, printed, err = call("sae", "train", "--model", hub / "model", "--out", out, *arguments)
    assert (code, printed, len(err.splitlines())) == (2, "", 1)
    assert told in err
    assert not list(tmp_path.iterdir())


def test_a_place_is_needed_but_for_a_model_that_a_package_ships(call, hub):
    code, _, err = call("sae", "train", "--model", hub / "model")
    assert code == 2
    assert "--out" in err


def test_a_model_of_a_package_has_its_saes_beside_it(call, hub, tmp_path, monkeypatch):
    monkeypatch.setenv("CORRSTEER_CACHE", str(tmp_path))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "smollm2").symlink_to(hub / "model", target_is_directory=True)
    with pytest.raises(UnknownNameError, match="`corrsteer sae train --model smollm2`"):
        choose_handles(load_model("smollm2"), None)
    code, told, _ = call("sae", "train", "--model", "smollm2", *OPTIONS)
    assert code == 0
    assert "corrsteer train --model smollm2 --task" in told
    assert KNOWN_MODELS["smollm2"].saes == str(tmp_path / "saes" / "smollm2")
    trained = load_model("smollm2")
    assert trained.sae_source == "smollm2"
    assert [handle.layer for handle in trained.saes] == [0, 2]
    assert {handle.trained_on for handle in trained.saes} == {"smollm2"}
