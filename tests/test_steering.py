import pytest
import torch
from safetensors.torch import save_file

from corrsteer.errors import ArtifactError, ModelError, SettingsError
from corrsteer.features import Feature
from corrsteer.hook_points import HookPoint
from corrsteer.runs.steer import steer
from corrsteer.runs.steering import Steering, combine

AT = HookPoint(1, "resid_post")


def feature(layer=1, latent=3, coefficient=2.0):
    name = f"blocks.{layer}.hook_resid_post"
    return Feature(name, layer, latent, coefficient, 0.5, (0.4, 0.6), 0.01, 0.9, 0.95, None)


def steering(lm, scale=1.0, **options):
    vector = scale * torch.linspace(-2, 2, lm.d_model)
    return Steering({AT: vector}, (feature(),), lm.id, **options)


def logits(lm):
    with torch.no_grad():
        return lm.model(torch.tensor([[1, 20, 30, 40]])).logits


def test_strength_zero_is_bitwise_the_unsteered_model(lm, prompts):
    before, replies = logits(lm), lm.generate(prompts)
    with steer(lm, steering(lm), strength=0.0):
        assert torch.equal(logits(lm), before)
        assert lm.generate(prompts) == replies
    with steer(lm, steering(lm, scale=0.0)):
        assert torch.equal(logits(lm), before)


def test_leaving_is_bitwise_the_unsteered_model(lm, prompts):
    before, replies = logits(lm), lm.generate(prompts)
    with steer(lm, steering(lm)):
        assert not torch.equal(logits(lm), before)
    with pytest.raises(KeyboardInterrupt), steer(lm, steering(lm)):
        raise KeyboardInterrupt
    assert torch.equal(logits(lm), before)
    assert lm.generate(prompts) == replies


def test_steering_changes_replies_by_its_own_strength_unless_told_otherwise(lm, prompts):
    strong = steering(lm, strength=3.0)
    with steer(lm, strong):
        own = lm.generate(prompts)
    with steer(lm, strong, strength=3.0):
        assert lm.generate(prompts) == own
    with steer(lm, steering(lm, scale=3.0)):
        assert lm.generate(prompts) == own
    assert own != lm.generate(prompts)


def test_a_steered_padded_batch_gives_the_tokens_of_one_prompt_at_a_time(lm, prompts):
    with steer(lm, steering(lm)):
        together = lm.generate(prompts, max_new_tokens=12, batch_size=8)
        alone = lm.generate(prompts, max_new_tokens=12, batch_size=1)
    assert together == alone


def test_a_bare_transformers_model_is_steered_alike(lm, prompts):
    ids = torch.tensor([lm.tokenizer(prompts[3])["input_ids"]])
    with steer(lm, steering(lm)):
        ours = lm.generate([prompts[3]], max_new_tokens=10)
    with steer(lm.model, steering(lm)):
        whole = lm.model.generate(ids, max_new_tokens=10, do_sample=False)
    assert lm.decode(whole[0, ids.shape[1] :].tolist()) == ours[0]


def test_features_at_one_hook_point_add(lm):
    features = [feature(1, 3, 2.0), feature(1, 5, -1.0), feature(0, 7, 0.5)]
    saes = {handle.hook_point.name: handle for handle in lm.saes}
    rows = {f.key: saes[f.hook_point].decoder_rows([f.latent])[0] for f in features}
    combined = combine(features, rows, lm)
    expected = 2.0 * rows[features[0].key] - rows[features[1].key]
    torch.testing.assert_close(combined.vectors[AT], expected)
    assert list(combined.vectors) == [HookPoint(0, "resid_post"), AT]
    assert combined.vectors[AT].dtype == torch.float32


def test_save_and_load_round_trip_exactly(lm, tmp_path):
    saved = steering(lm, strength=0.5, positions="all", revision="abc")
    saved.save(tmp_path / "run")
    back = Steering.load(tmp_path / "run")
    assert torch.equal(back.vectors[AT], saved.vectors[AT])
    assert back.features == saved.features
    assert (back.model, back.revision, back.positions, back.strength) == (lm.id, "abc", "all", 0.5)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["steering.safetensors"]


def test_a_file_is_its_own_address(lm, tmp_path):
    path = steering(lm).save(tmp_path / "mine.safetensors")
    assert Steering.load(path).features == steering(lm).features


@pytest.mark.parametrize("cut", [0, 4, 100, -4])
def test_a_truncated_file_is_refused(lm, tmp_path, cut):
    path = steering(lm).save(tmp_path / "s.safetensors")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ArtifactError, match="not a whole steering file"):
        Steering.load(path)


def test_foreign_safetensors_are_refused(tmp_path):
    save_file({"weight": torch.ones(3)}, tmp_path / "f.safetensors")
    with pytest.raises(ArtifactError, match="schema is None"):
        Steering.load(tmp_path / "f.safetensors")
    with pytest.raises(ArtifactError, match="no steering at"):
        Steering.load(tmp_path / "nothing")


def test_a_vector_that_is_not_finite_is_refused(lm, tmp_path):
    path = steering(lm, scale=float("inf")).save(tmp_path / "s.safetensors")
    with pytest.raises(ArtifactError, match="NaN or infinity"):
        Steering.load(path)


@pytest.mark.parametrize(("layer", "width"), [(1, 8), (7, 16)])
def test_a_steering_for_another_model_is_refused(lm, layer, width):
    foreign = Steering({HookPoint(layer, "resid_post"): torch.ones(width)}, model="other")
    with pytest.raises(ModelError, match="the steering is for other"), steer(lm, foreign):
        pass


@pytest.mark.parametrize("strength", [float("nan"), float("inf"), 1e9])
def test_a_strength_that_is_no_number_is_refused(lm, strength):
    with pytest.raises(SettingsError, match="strength"), steer(lm, steering(lm), strength):
        pass
