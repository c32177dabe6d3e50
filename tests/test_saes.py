from typing import Any

import pytest
import torch
from conftest import D_MODEL, D_SAE, write_sae
from sae_lens import GatedSAE, GatedSAEConfig, StandardSAE, StandardSAEConfig

from corrsteer.errors import SAEError
from corrsteer.lm.models import load_model
from corrsteer.lm.sae_placement import choose_handles, load_coders
from corrsteer.lm.saes import LensSAE, ResidualDimensions, VisitingSAE, local_saes
from corrsteer.method.collect import collect
from corrsteer.settings import FitSettings

CPU = torch.device("cpu")
SIZES = {"d_in": D_MODEL, "d_sae": D_SAE, "dtype": "float32", "device": "cpu"}


def filled(sae):
    for parameter in sae.parameters():
        torch.nn.init.normal_(parameter)
    return sae.requires_grad_(False)


def residuals(rows: int) -> torch.Tensor:
    return torch.randn(rows, D_MODEL, generator=torch.Generator().manual_seed(rows))


@pytest.mark.parametrize("threshold", [0.2, -0.5])
@pytest.mark.parametrize("rows", [1, 7, 300])
def test_jumprelu_saes_encode_bit_for_bit_as_sae_lens_does(tmp_path, threshold, rows):
    from sae_lens import SAE

    weights = {"threshold": torch.full((D_SAE,), threshold)}
    write_sae(tmp_path / "sae", 0, seed=1, weights=weights)
    expected = SAE.load_from_disk(tmp_path / "sae").encode(residuals(rows))
    [handle] = local_saes(tmp_path, D_MODEL, 1)
    for coder in (handle.load(CPU), handle.load_visiting()):
        assert torch.equal(coder.encode(residuals(rows)), expected)
    assert 0 < (expected > 0).float().mean() < 1


@pytest.mark.parametrize("subtract_bias", [False, True])
def test_standard_saes_encode_bit_for_bit_as_sae_lens_does(subtract_bias):
    sae = filled(StandardSAE(StandardSAEConfig(**SIZES, apply_b_dec_to_input=subtract_bias)))
    expected = sae.encode(residuals(9))
    assert torch.equal(LensSAE("a", lambda device: sae, CPU).encode(residuals(9)), expected)


def test_other_architectures_encode_by_sae_lens_and_have_no_bfloat16():
    sae = filled(GatedSAE(GatedSAEConfig(**SIZES)))
    expected = sae.encode(residuals(9))
    coder = LensSAE("a gated one", lambda device: sae, CPU)
    assert torch.equal(coder.encode(residuals(9)), expected)
    with pytest.raises(SAEError, match=r"a gated one is a GatedSAE.*leave it at float32"):
        coder.multiply_in_bfloat16()


def test_what_is_encoded_is_left_as_it_was(tmp_path):
    write_sae(tmp_path / "sae", 0, seed=1)
    coder = local_saes(tmp_path, D_MODEL, 1)[0].load(CPU)
    x = residuals(5)
    first = coder.encode(x)
    kept = first.clone()
    assert torch.equal(coder.encode(x), kept)
    assert torch.equal(first, kept)
    assert torch.equal(x, residuals(5))


def test_a_visitor_stays_from_fetching_until_it_leaves(tmp_path):
    write_sae(tmp_path / "sae", 0, seed=1)
    coder = local_saes(tmp_path, D_MODEL, 1)[0].load_visiting()
    assert isinstance(coder, VisitingSAE)

    def devices():
        return {weight.device.type for weight in coder._visitor.weights().values()}

    alone = coder.encode(residuals(4))
    assert devices() == {"meta"}
    coder.fetch(CPU)
    for _ in range(2):
        assert torch.equal(coder.encode(residuals(4)), alone)
        assert devices() == {"cpu"}
    coder.leave()
    assert devices() == {"meta"}
    assert torch.equal(coder.encode(residuals(4)), alone)


def test_blocks_that_wait_for_visitors_change_no_bit(lm, task, monkeypatch):
    """Whatever is free, and however many blocks are encoded in one visit."""
    monkeypatch.setattr("corrsteer.method.pooling.BLOCK_ROWS", {"cpu": 8, "gpu": 8})
    handles = choose_handles(lm, None)
    found = []
    for most in (1, 3, 1000):
        monkeypatch.setattr("corrsteer.method.pooling.VISITED_BLOCKS", most)
        coders = {handle.hook_point: handle.load_visiting() for handle in handles}
        found.append(collect(lm, task, task.fit, coders, FitSettings(pool="mean")))
    for hook, statistics in found[0].statistics.items():
        for other in found[1:]:
            state = other.statistics[hook].state()
            assert all(torch.equal(state[name], t) for name, t in statistics.state().items())


def test_bfloat16_products_are_close_and_say_how_close(lm, caplog):
    handles = choose_handles(lm, [0, 1])
    exact, lowered = load_coders(handles, lm), load_coders(handles, lm, "bfloat16")
    products: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = products.fp32_precision
    with caplog.at_level("INFO", logger="corrsteer"):
        for _ in range(2):
            for hook, coder in lowered.items():
                z = coder.encode(residuals(300))
                assert z.dtype == torch.float32
                torch.testing.assert_close(
                    z, exact[hook].encode(residuals(300)), rtol=0.02, atol=0.2
                )
    assert products.fp32_precision == before
    assert caplog.text.count("in bfloat16: of 300 rows' activations") == 2


def test_residual_dimensions_have_no_bfloat16(hub):
    raw = load_model(str(hub / "model"), sae="raw")
    assert isinstance(next(iter(load_coders(raw.saes, raw).values())), ResidualDimensions)
    with pytest.raises(SAEError, match="--sae-dtype bfloat16 is for SAEs"):
        load_coders(raw.saes, raw, "bfloat16")
