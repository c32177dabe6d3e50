"""Files for other programs: what is in them, what is refused, and that nothing is half-written."""

import json
from typing import ClassVar

import pytest
import torch
from conftest import D_MODEL

from corrsteer.errors import ArtifactError, ConsumerError, UnknownNameError
from corrsteer.export import CONSUMERS, Consumer, Exported, export
from corrsteer.export.base import block_outputs
from corrsteer.hook_points import HookPoint
from corrsteer.runs.steering import Steering


def vector(seed):
    return torch.randn(D_MODEL, generator=torch.Generator().manual_seed(seed))


def made(*names, **options):
    """A steering with a vector at each hook point."""
    vectors = {HookPoint.parse(name): vector(index) for index, name in enumerate(names)}
    return Steering(vectors, model="tiny", **options)


TWO = ("blocks.1.hook_resid_post", "blocks.2.hook_resid_post")


def harness_file(steering, tmp_path):
    path = tmp_path / "s.pt"
    export(steering, "lm-eval", path)
    return torch.load(path, weights_only=True)


def test_the_harness_gets_one_entry_a_block_with_the_strength_in_the_vector(tmp_path):
    entries = harness_file(made(*TWO, strength=0.5), tmp_path)
    assert list(entries) == ["layers.1", "layers.2"]
    for index, entry in enumerate(entries.values()):
        assert torch.equal(entry.pop("steering_vector"), 0.5 * vector(index))
        assert entry == {
            "steering_coefficient": 1.0,
            "action": "add",
            "bias": None,
            "head_index": None,
        }


def test_the_residual_before_a_block_is_the_one_after_the_block_before(tmp_path):
    names = ("blocks.1.hook_resid_post", "blocks.2.hook_resid_pre", "blocks.1.hook_resid_pre")
    entries = harness_file(made(*names), tmp_path)
    assert list(entries) == ["layers.0", "layers.1"]
    assert torch.equal(entries["layers.0"]["steering_vector"], vector(2))
    torch.testing.assert_close(entries["layers.1"]["steering_vector"], vector(0) + vector(1))


@pytest.mark.parametrize("name", ["blocks.0.hook_resid_pre", "blocks.1.hook_mlp_out"])
@pytest.mark.parametrize("to", ["lm-eval", "gguf"])
def test_what_is_no_blocks_output_is_refused(tmp_path, name, to):
    pytest.importorskip("gguf")
    out = tmp_path / f"s{CONSUMERS[to].suffix}"
    with pytest.raises(ConsumerError, match=f"{name} is not one"):
        export(made(*TWO, name), to, out)
    assert list(tmp_path.iterdir()) == []


def control_vector(path):
    """Tensors and metadata, read back by the format's own package."""
    gguf = pytest.importorskip("gguf")
    reader = gguf.GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    return {t.name: torch.tensor(t.data) for t in reader.tensors}, fields


def test_a_control_vector_has_a_direction_a_block(tmp_path):
    pytest.importorskip("gguf")
    path = tmp_path / "s.gguf"
    steering = made(*TWO, strength=0.5, revision="abc", metadata={"model_type": "gemma2"})
    exported = export(steering, "gguf", path)
    assert "generated positions only" in exported.notes[0]
    directions, fields = control_vector(path)
    assert list(directions) == ["direction.1", "direction.2"]
    for index, direction in enumerate(directions.values()):
        assert direction.dtype == torch.float32
        assert torch.equal(direction, 0.5 * vector(index))
    expected = {
        "general.architecture": "controlvector",
        "controlvector.model_hint": "gemma2",
        "controlvector.layer_count": 2,
        "corrsteer.strength": 0.5,
        "corrsteer.model": "tiny",
        "corrsteer.revision": "abc",
        "corrsteer.scope": "all",
        "corrsteer.made_for_positions": "generated",
    }
    assert {name: fields[name] for name in expected} == expected


def test_a_control_vector_for_block_0_is_refused_or_left_out_and_said_so(tmp_path):
    pytest.importorskip("gguf")
    path = tmp_path / "s.gguf"
    steering = made("blocks.0.hook_resid_post", *TWO)
    with pytest.raises(ConsumerError, match=r"cannot steer block 0.*--drop-block-0"):
        export(steering, "gguf", path)
    assert list(tmp_path.iterdir()) == []
    exported = export(steering, "gguf", path, drop_block_0=True)
    assert "block 0 is left out" in exported.notes[0]
    directions, fields = control_vector(path)
    assert list(directions) == ["direction.1", "direction.2"]
    assert "block 0 is left out" in fields["corrsteer.notes"]
    with pytest.raises(ConsumerError, match="nothing is left without block 0"):
        export(made("blocks.1.hook_resid_pre"), "gguf", tmp_path / "t.gguf", drop_block_0=True)


def test_a_steering_for_all_positions_needs_no_note(tmp_path):
    assert export(made(*TWO, positions="all"), "lm-eval", tmp_path / "s.pt").notes == ()


@pytest.mark.parametrize("steering", [made(), made(*TWO, strength=0.0)])
def test_a_steering_that_does_nothing_is_refused(tmp_path, steering):
    with pytest.raises(ConsumerError, match="nothing to steer by"):
        export(steering, "lm-eval", tmp_path / "s.pt")
    assert list(tmp_path.iterdir()) == []


def test_places_that_are_taken_or_misnamed_are_refused(tmp_path):
    taken = tmp_path / "taken.pt"
    taken.write_text("mine")
    with pytest.raises(ArtifactError, match="exists already"):
        export(made(*TWO), "lm-eval", taken)
    with pytest.raises(ConsumerError, match=r"lm-eval reads \.pt files; name it s\.gguf\.pt"):
        export(made(*TWO), "lm-eval", tmp_path / "s.gguf")
    with pytest.raises(ArtifactError, match="is a file"):
        export(made(*TWO), "lm-eval", taken / "below.pt")
    with pytest.raises(UnknownNameError, match=r"unknown consumer 'lm_eval' \(did you mean"):
        export(made(*TWO), "lm_eval", tmp_path / "s.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["taken.pt"]
    assert taken.read_text() == "mine"


class Numbers:
    """A consumer made by the book: docs/consumers.md, "Adding a consumer"."""

    name = "numbers"
    suffix = ".json"
    checks: ClassVar = {"read": "all"}
    probe = "run_numbers.py"
    install = ""
    takes_model_path = False
    tolerances: ClassVar = {}

    def render(self, steering, drop_block_0=False):
        added = block_outputs(steering, self.name)
        content = json.dumps({block: vector.tolist() for block, vector in added.items()})
        return Exported(content.encode(), steering, ("numbers, all of them",))


def test_another_consumer_needs_nothing_but_a_class(call, tmp_path, monkeypatch):
    assert isinstance(Numbers(), Consumer)
    monkeypatch.setitem(CONSUMERS, "numbers", Numbers())
    made(*TWO).save(tmp_path / "run")
    out = tmp_path / "s.json"
    code, text, _ = call("export", tmp_path / "run", "--to=numbers", f"--out={out}")
    assert code == 0
    assert text == f"{out} (strength 1)\nnumbers, all of them\n"
    assert json.loads(out.read_text())["1"] == vector(0).tolist()


def test_the_command_line_exports_at_a_strength(call, tmp_path):
    made(*TWO).save(tmp_path / "run")
    out = tmp_path / "s.pt"
    code, text, err = call("export", tmp_path / "run", "--to", "lm-eval", "--out", out, "--json")
    assert (code, err) == (0, "")
    document = json.loads(text)
    assert document["strength"] == 1.0
    assert "generated positions only" in document["notes"][0]
    out = tmp_path / "t.pt"
    options = ("--to=lm-eval", f"--out={out}", "--strength=0.25")
    code, text, _ = call("export", tmp_path / "run", *options)
    assert code == 0
    assert text.startswith(f"{out} (strength 0.25)\nlm-eval steers at every position")
    entries = torch.load(out, weights_only=True)
    assert torch.equal(entries["layers.1"]["steering_vector"], 0.25 * vector(0))


def test_a_mistake_is_one_line_and_writes_nothing(call, tmp_path):
    run = made(*TWO).save(tmp_path / "run").parent
    empty = made().save(tmp_path / "empty").parent
    (tmp_path / "corrupt").mkdir()
    (tmp_path / "corrupt" / "steering.safetensors").write_bytes(b"no")
    before = sorted(tmp_path.rglob("*"))
    out = tmp_path / "out.pt"
    for arguments, words in (
        ((run, "--to=tgi", f"--out={out}"), "unknown consumer 'tgi'"),
        ((empty, "--to=lm-eval", f"--out={out}"), "nothing to steer by"),
        ((tmp_path / "none", "--to=lm-eval", f"--out={out}"), "no run at"),
        ((tmp_path / "corrupt", "--to=lm-eval", f"--out={out}"), "not a whole steering"),
        ((run, "--to=lm-eval", f"--out={run}"), "run"),
        ((run, "--to=lm-eval", f"--out={out}", "--strength=nan"), "strength has nan"),
        ((run, "--to=lm-eval"), "--out"),
    ):
        code, text, err = call("export", *arguments)
        assert (code, text) == (2, ""), arguments
        assert words in err
        assert len(err.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before
