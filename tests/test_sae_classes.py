"""Every class and flag that the installed sae-lens can load: as sae-lens has it, or refused."""

import warnings

import pytest
import torch
from conftest import D_MODEL, D_SAE
from sae_lens import SAE, JumpReLUSAE, StandardSAE, StandardSAEConfig
from sae_lens.registry import SAE_CLASS_REGISTRY, SAE_TRAINING_CLASS_REGISTRY

from corrsteer.errors import SAEError
from corrsteer.hook_points import HookPoint
from corrsteer.lm.models import load_model
from corrsteer.lm.sae_placement import load_coders
from corrsteer.lm.saes import LensSAE, local_saes

CPU = torch.device("cpu")
SIZES = {"d_in": D_MODEL, "d_sae": D_SAE, "device": "cpu"}
NORMALISATIONS = (
    "none",
    "expected_average_only_in",
    "constant_norm_rescale",
    "layer_norm",
    "covariance_whitening",
)
SPARSE = {"topk": {"k": 5}, "abstopk": {"k": 5}}
RESCALED = {
    kind: [{"rescale_acts_by_decoder_norm": yes} for yes in (False, True)] for kind in SPARSE
}
OTHERS = {"temporal": {"n_heads": 1, "bottleneck_factor": 4}}

STEERABLE = [
    (kind, SPARSE.get(kind, {}) | flags, subtracts, norm)
    for kind in SAE_CLASS_REGISTRY
    if "transcoder" not in kind and kind not in OTHERS
    for flags in RESCALED.get(kind, [{}])
    for subtracts in (False, True)
    for norm in ("unit", "any")
]


def filled(sae, norm="any"):
    """Its weights random but for a decoder of rows of norm 1, or 0.5 to 3."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        sae.W_dec.div_(sae.W_dec.norm(dim=1, keepdim=True))
        if norm == "any":
            sae.W_dec.mul_(torch.linspace(0.5, 3, D_SAE)[:, None])
    return sae


def saved(sae, folder, hook_name="blocks.0.hook_resid_post"):
    sae.cfg.metadata.hook_name = hook_name
    sae.save_model(folder / "sae")
    return folder


def made(kind, **options):
    sae_class, config_class = SAE_CLASS_REGISTRY[kind]
    return sae_class(config_class(**SIZES, **options))


def residuals(rows: int) -> torch.Tensor:
    return 4 * torch.randn(rows, D_MODEL, generator=torch.Generator().manual_seed(rows))


def added_by_decode(sae, latent: int) -> torch.Tensor:
    """What the SAE's own decode adds when a latent rises by one, on some residuals."""
    x = residuals(20).double()
    z = sae.encode(x)
    raised = z + torch.eye(D_SAE, dtype=z.dtype)[latent]
    return sae.decode(raised) - sae.decode(z)


def test_the_classes_that_steer_are_those_expected():
    assert {kind for kind, *_ in STEERABLE} >= {
        "standard",
        "gated",
        "jumprelu",
        "topk",
        "abstopk",
        "matching_pursuit",
    }


@pytest.mark.parametrize(("kind", "flags", "subtracts", "norm"), STEERABLE)
def test_saes_encode_and_steer_as_sae_lens_has_them(tmp_path, kind, flags, subtracts, norm):
    sae = filled(made(kind, apply_b_dec_to_input=subtracts, **flags), norm)
    [handle] = local_saes(saved(sae, tmp_path), D_MODEL, 1)
    untouched = SAE.load_from_disk(tmp_path / "sae").requires_grad_(False)
    expected = untouched.encode(residuals(200))
    assert 0 < (expected != 0).float().mean() < 1
    for coder in (handle.load(CPU), handle.load(CPU, residuals(3)), handle.load_visiting()):
        assert torch.equal(coder.encode(residuals(200)), expected)
    latents = [0, 7, D_SAE - 1]
    vectors = handle.decoder_rows(latents)
    for latent, vector in zip(latents, vectors, strict=True):
        added = added_by_decode(untouched.double(), latent)
        torch.testing.assert_close(added, vector.double().expand_as(added), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", sorted(SAE_TRAINING_CLASS_REGISTRY))
def test_saes_as_they_are_trained_are_as_sae_lens_has_them_or_refused(tmp_path, kind):
    sae_class, config_class = SAE_TRAINING_CLASS_REGISTRY[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of matching pursuit, which sets its own norm
        options = {"matryoshka_widths": [8, D_SAE]} if "matryoshka" in kind else {}
        sae = filled(sae_class(config_class(**SIZES, **options)))
    if "k" in sae.cfg.to_dict():
        sae.cfg.k = 5
    sae.cfg.metadata.hook_name = "blocks.0.hook_resid_post"
    if hasattr(sae, "topk_threshold"):
        sae.topk_threshold.fill_(0.7)
    sae.save_inference_model(tmp_path / "inference" / "sae")
    sae.save_model(tmp_path / "training" / "sae")
    [handle] = local_saes(tmp_path / "inference", D_MODEL, 1)
    untouched = SAE.load_from_disk(tmp_path / "inference" / "sae").requires_grad_(False)
    assert torch.equal(handle.load(CPU).encode(residuals(9)), untouched.encode(residuals(9)))
    [vector] = handle.decoder_rows([4])
    added = added_by_decode(untouched.double(), 4)
    torch.testing.assert_close(added, vector.double().expand_as(added), rtol=1e-5, atol=1e-6)
    [handle] = local_saes(tmp_path / "training", D_MODEL, 1)
    if kind in SAE_CLASS_REGISTRY:
        handle.load(CPU)
    else:
        with pytest.raises(SAEError, match=f"is a {kind} one as it is trained"):
            handle.load(CPU)


@pytest.mark.parametrize("kind", ["standard", "topk"])
@pytest.mark.parametrize("normalisation", NORMALISATIONS[1:])
def test_normalised_activations_are_refused_with_the_class_and_the_reason(
    tmp_path, kind, normalisation
):
    sae = filled(made(kind, normalize_activations=normalisation, **SPARSE.get(kind, {})))
    [handle] = local_saes(saved(sae, tmp_path), D_MODEL, 1)
    told = rf"is a (Standard|TopK)SAE .*{normalisation}.*(fold that in|differs from residual)"
    for use in (lambda: handle.load(CPU), lambda: handle.decoder_rows([0])):
        with pytest.raises(SAEError, match=told):
            use()


def test_saes_of_sequences_are_refused(tmp_path):
    sae = filled(made("temporal", kval_topk=3, **OTHERS["temporal"]))
    [handle] = local_saes(saved(sae, tmp_path), D_MODEL, 1)
    with pytest.raises(SAEError, match="is a TemporalSAE, which does not encode single residuals"):
        handle.load(CPU)


@pytest.mark.parametrize("kind", [kind for kind in SAE_CLASS_REGISTRY if "transcoder" in kind])
def test_transcoders_are_refused_also_where_they_do_not_say_where_they_write(tmp_path, kind):
    sae = filled(made(kind, d_out=D_MODEL, apply_b_dec_to_input=False))
    with pytest.raises(SAEError, match="is a transcoder"):
        local_saes(saved(sae, tmp_path), D_MODEL, 1)


def test_reshaped_activations_are_refused(tmp_path):
    sae = made("standard")
    sae.cfg.reshape_activations = "hook_z"
    with pytest.raises(SAEError, match="hook_z' cannot be steered"):
        local_saes(saved(sae, tmp_path, "blocks.0.attn.hook_z"), D_MODEL, 1)
    [handle] = local_saes(saved(sae, tmp_path), D_MODEL, 1)
    with pytest.raises(SAEError, match="cannot be loaded: This method should only be called"):
        handle.load(CPU)


def test_wider_saes_encode_in_their_own_dtype(tmp_path):
    sae = filled(made("standard", dtype="float64"))
    [handle] = local_saes(saved(sae, tmp_path), D_MODEL, 1)
    z = handle.load(CPU).encode(residuals(5))
    assert z.dtype == torch.float64
    assert torch.equal(z, SAE.load_from_disk(tmp_path / "sae").encode(residuals(5)))
    assert handle.decoder_rows([1]).dtype == torch.float32


class OtherEncode(StandardSAE):
    def encode(self, x):
        return super().encode(x) * self.W_dec.norm(dim=1)


def test_a_class_that_decodes_otherwise_is_refused():
    class Squared(StandardSAE):
        def decode(self, feature_acts):
            return super().decode(feature_acts**2)

    config = StandardSAEConfig(**SIZES)
    with pytest.raises(SAEError, match="is a Squared, whose decode adds for one latent"):
        LensSAE("a", lambda device: filled(Squared(config)).requires_grad_(False), CPU)


def test_a_class_that_encodes_otherwise_encodes_by_itself():
    sae = filled(OtherEncode(StandardSAEConfig(**SIZES))).requires_grad_(False)
    expected = sae.encode(residuals(9))
    assert torch.equal(LensSAE("a", lambda device: sae, CPU).encode(residuals(9)), expected)


def test_the_decoder_is_let_go_where_encoding_does_not_read_it(tmp_path):
    kept = {}
    for kind, flags in (("gated", {}), ("topk", {"k": 5, "rescale_acts_by_decoder_norm": True})):
        sae = filled(made(kind, **flags)).requires_grad_(False)
        kept[kind] = LensSAE("a", lambda device, sae=sae: sae, CPU).weights()["W_dec"].numel()
    assert kept == {"gated": 0, "topk": D_SAE * D_MODEL}


def test_saes_are_tried_on_the_models_own_residuals(hub, monkeypatch):
    lm = load_model(str(hub / "model"), sae=str(hub / "saes"))
    hooks = [handle.hook_point for handle in lm.saes]
    seen, encode = [], JumpReLUSAE.encode

    def watched(sae, x):
        seen.append(x)
        return encode(sae, x)

    monkeypatch.setattr(JumpReLUSAE, "encode", watched)
    load_coders(lm.saes, lm)
    own = lm.own_residuals(hooks)
    assert len(seen) == len(hooks)
    assert all(torch.equal(x, own[hook]) for x, hook in zip(seen, hooks, strict=True))
    assert not torch.equal(seen[0], seen[1])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.layers.1", HookPoint(1, "resid_post")),
        ("model.layers.1.output", HookPoint(1, "resid_post")),
        ("layers.1.output", HookPoint(1, "resid_post")),
        ("layers.12", HookPoint(12, "resid_post")),
        ("layers.1.input", HookPoint(1, "resid_pre")),
        ("transformer.h.1", HookPoint(1, "resid_post")),
        ("gpt_neox.layers.1", HookPoint(1, "resid_post")),
        ("model.decoder.layers.1", HookPoint(1, "resid_post")),
        ("model.language_model.layers.1", HookPoint(1, "resid_post")),
        ("language_model.model.layers.1", HookPoint(1, "resid_post")),
        ("blocks.1.hook_out", HookPoint(1, "resid_post")),
        ("blocks.1.hook_in", HookPoint(1, "resid_pre")),
        ("blocks.1.hook_mlp_out", HookPoint(1, "mlp_out")),
    ],
)
def test_other_libraries_names_of_the_same_places_are_taken(tmp_path, name, expected):
    [handle] = local_saes(saved(made("standard"), tmp_path, name), D_MODEL, 20)
    assert handle.hook_point == expected


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.1.mlp",
        "model.vision_tower.encoder.layers.1",
        "model.encoder.layers.1",
        "blocks.1.hook_resid_mid",
        "blocks.1.ln2.hook_normalized",
        "blocks.1.attn.hook_out",
        "model.layers",
        "",
    ],
)
def test_names_of_other_places_are_refused(tmp_path, name):
    with pytest.raises(SAEError, match="cannot be steered"):
        local_saes(saved(made("standard"), tmp_path, name), D_MODEL, 3)
