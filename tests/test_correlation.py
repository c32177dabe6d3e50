import numpy as np
import pytest
import torch

from corrsteer.errors import ArtifactError, InsufficientDataError, NonFiniteError
from corrsteer.stats.correlation import BINS, EDGES, StreamingCorrelation


def reference(z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whole-data Pearson r in extended precision."""
    z, y = z.astype(np.longdouble), y.astype(np.longdouble)
    z, y = z - z.mean(0), y - y.mean()
    with np.errstate(invalid="ignore"):
        r = (y @ z) / np.sqrt((z * z).sum(0) * (y * y).sum())
    return r.astype(np.float64)


def stream(z: np.ndarray, y: np.ndarray, sizes: list[int]) -> StreamingCorrelation:
    statistics, start = StreamingCorrelation(z.shape[1]), 0
    for size in sizes:
        statistics.update(
            torch.tensor(z[start : start + size]), torch.tensor(y[start : start + size])
        )
        start += size
    assert start == len(z)
    return statistics


def draw(rng: np.random.Generator, n: int, offset: float) -> tuple[np.ndarray, np.ndarray]:
    y = rng.random(n)
    return offset + rng.normal(size=(n, 5)) + np.outer(y, [0, 1, -1, 3, 0.1]), y


@pytest.mark.parametrize("offset", [0.0, 1e6, -1e6])
@pytest.mark.parametrize("sizes", [[300], [1] * 300, [7, 1, 200, 92], [299, 1]])
def test_streaming_equals_whole_data_under_any_batching(offset, sizes):
    z, y = draw(np.random.default_rng(0), 300, offset)
    np.testing.assert_allclose(
        stream(z, y, sizes).correlation().numpy(), reference(z, y), rtol=0, atol=1e-10
    )


def test_batches_of_unequal_means_agree_with_whole_data():
    rng = np.random.default_rng(1)
    z, y = draw(rng, 400, 1e6)
    order = np.argsort(z[:, 3])  # sorted, so that every batch has its own mean
    z, y = z[order], y[order]
    np.testing.assert_allclose(
        stream(z, y, [1, 99, 100, 200]).correlation().numpy(), reference(z, y), rtol=0, atol=1e-10
    )


@pytest.mark.parametrize("cut", [1, 2, 150, 299])
def test_merging_unequal_parts_equals_one_stream(cut):
    z, y = draw(np.random.default_rng(2), 300, 1e6)
    first, second = stream(z[:cut], y[:cut], [cut]), stream(z[cut:], y[cut:], [300 - cut])
    for merged in (
        StreamingCorrelation(5).merge(first).merge(second),
        StreamingCorrelation(5).merge(second).merge(first),
    ):
        assert merged.n == 300
        np.testing.assert_allclose(
            merged.correlation().numpy(), reference(z, y), rtol=0, atol=1e-10
        )


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6 + 0.1, 1e-200])
@pytest.mark.parametrize("sizes", [[50], [1] * 50, [49, 1]])
def test_a_constant_latent_has_no_correlation(value, sizes):
    rng = np.random.default_rng(3)
    z, y = draw(rng, 50, 0.0)
    z[:, 2] = value
    r = stream(z, y, sizes).correlation()
    assert torch.isnan(r[2])
    assert torch.isfinite(r[[0, 1, 3, 4]]).all()


def test_a_constant_outcome_has_no_correlation():
    z, _ = draw(np.random.default_rng(4), 50, 0.0)
    assert torch.isnan(stream(z, np.full(50, 0.1), [17, 33]).correlation()).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_and_change_nothing(value):
    z, y = draw(np.random.default_rng(5), 20, 0.0)
    statistics = stream(z, y, [20])
    before = statistics.state()
    bad = z.copy()
    bad[3, 1] = value
    with pytest.raises(NonFiniteError, match="NaN or infinity"):
        statistics.update(torch.tensor(bad), torch.tensor(y))
    with pytest.raises(NonFiniteError):
        statistics.update(torch.tensor(z), torch.full((20,), value, dtype=torch.float64))
    after = statistics.state()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_coefficients_are_means_over_outcomes():
    z, y = draw(np.random.default_rng(6), 60, 2.0)
    y = np.where(y > 0.5, y, 0.0)
    statistics = stream(z, y, [11, 49])
    positive, zero = z[y > 0].mean(0), z[y == 0].mean(0)
    np.testing.assert_allclose(statistics.coefficient("positive"), positive, rtol=1e-12)
    np.testing.assert_allclose(statistics.coefficient("contrast"), positive - zero, rtol=1e-12)


def test_coefficients_use_their_own_pooling():
    z = torch.rand(10, 3)
    y = torch.ones(10)
    statistics = StreamingCorrelation(3).update(z, y, 2 * z)
    torch.testing.assert_close(statistics.coefficient(), 2 * z.double().mean(0))


def test_frequencies_count_active_samples():
    z = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0], [0.5, 0.0]])
    y = torch.tensor([1.0, 0.0, 1.0, 0.5])
    statistics = StreamingCorrelation(2).update(z, y)
    assert statistics.frequency().tolist() == [0.75, 0.25]
    assert statistics.frequency("positive").tolist() == pytest.approx([2 / 3, 1 / 3])
    assert statistics.frequency("rest").tolist() == [1.0, 0.0]


def test_too_few_samples_are_refused():
    with pytest.raises(InsufficientDataError, match="2 samples or more, not 1"):
        StreamingCorrelation(2).update(torch.ones(1, 2), torch.ones(1)).correlation()
    with pytest.raises(InsufficientDataError, match="outcome above 0"):
        StreamingCorrelation(2).update(torch.ones(1, 2), torch.zeros(1)).coefficient()


def test_state_round_trips_exactly():
    z, y = draw(np.random.default_rng(7), 30, 1e6)
    statistics = stream(z, y, [30])
    back = StreamingCorrelation.from_state(statistics.state())
    assert torch.equal(back.correlation(), statistics.correlation())
    assert (back.n, back.n_positive, back.n_zero) == (30, 30, 0)
    more = torch.rand(4, 5, dtype=torch.float64)
    both = [
        s.update(more, torch.rand(4, generator=torch.Generator().manual_seed(0)))
        for s in (back, statistics)
    ]
    assert torch.equal(both[0].correlation(), both[1].correlation())


def test_a_state_that_is_not_one_is_refused():
    state = StreamingCorrelation(3).update(torch.rand(5, 3), torch.rand(5)).state()
    for broken in (
        {name: t for name, t in state.items() if name != "c_zy"},
        state | {"m2_z": torch.zeros(2, dtype=torch.float64)},
        state | {"m2_z": torch.zeros(3)},
        state | {"m2_z": torch.full((3,), torch.nan, dtype=torch.float64)},
    ):
        with pytest.raises(ArtifactError):
            StreamingCorrelation.from_state(broken)


def test_statistics_of_different_saes_do_not_merge():
    with pytest.raises(ArtifactError, match="over 4 latents"):
        StreamingCorrelation(3).merge(StreamingCorrelation(4))


def sparse_draw(n=400, seed=8):
    """Activations like an SAE's, over the range of the histogram's bins, and outcomes."""
    rng = np.random.default_rng(seed)
    y = rng.choice([0.0, 0.0, 0.5, 1.0], n)
    z = np.exp(rng.normal(0, 3, size=(n, 6))) * (rng.random((n, 6)) < 0.6)
    z[:, 1] *= 1 + 3 * y
    z[:, 2] = 0.0
    z[:, 3] = 2.0 * (y > 0)
    z[:, 4] = -z[:, 4]
    return z, y


@pytest.mark.parametrize("sizes", [[400], [1] * 400, [7, 1, 250, 142]])
def test_contrast_and_fisher_ratio_are_those_of_the_whole_data(sizes):
    z, y = sparse_draw()
    statistics = stream(z, y, sizes)
    ones, zeros = z[y > 0], z[y == 0]
    contrast = ones.mean(0) - zeros.mean(0)
    np.testing.assert_allclose(statistics.contrast(), contrast, rtol=1e-10, atol=1e-10)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = contrast**2 / (ones.var(0) + zeros.var(0))
    got = statistics.fisher_ratio().numpy()
    ordinary = [0, 1, 4, 5]
    np.testing.assert_allclose(got[ordinary], ratio[ordinary], rtol=1e-10)
    assert np.isnan(got[2])
    assert got[3] > 1e30  # constant in both classes, and not the same
    assert np.isfinite(got[3])


def test_class_moments_survive_a_large_offset():
    z, y = sparse_draw()
    plain, offset = (stream(each, y, [100, 300]).fisher_ratio().numpy() for each in (z, z + 1e6))
    np.testing.assert_allclose(offset[[0, 1, 4, 5]], plain[[0, 1, 4, 5]], rtol=1e-8)


@pytest.mark.parametrize("sizes", [[400], [1] * 400, [7, 1, 250, 142]])
def test_mutual_information_is_scikit_learns_on_the_same_bins(sizes):
    from sklearn.metrics import mutual_info_score

    z, y = sparse_draw()
    z[:14, 5] = [0.0, *EDGES]  # an edge belongs to the bin below it
    bins = np.where(z > 0, np.searchsorted(EDGES, z, side="left"), -1)
    expected = [mutual_info_score(y > 0, bins[:, latent]) for latent in range(6)]
    assert len(np.unique(bins[:, 5])) == BINS + 1
    got = stream(z, y, sizes).mutual_information().numpy()
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-9)
    assert got[2] == pytest.approx(0.0, abs=1e-12)


def test_the_means_over_active_samples_leave_out_the_others():
    z, y = sparse_draw()
    got = stream(z, y, [400]).coefficient("active").numpy()
    ones = z[y > 0]
    for latent in (0, 1, 5):
        assert got[latent] == pytest.approx(ones[ones[:, latent] > 0, latent].mean(), rel=1e-12)
    assert got[2] == 0.0


@pytest.mark.parametrize("cut", [1, 150, 399])
def test_merging_keeps_everything_that_one_stream_has(cut):
    z, y = sparse_draw()
    whole = stream(z, y, [400]).state()
    parts = stream(z[:cut], y[:cut], [cut]).merge(stream(z[cut:], y[cut:], [400 - cut])).state()
    assert set(parts) == set(whole)
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor, rtol=1e-12, atol=1e-10)


def test_statistics_from_before_there_were_classes_say_so():
    z, y = sparse_draw()
    state = stream(z, y, [400]).state()
    new = ("mean_positive", "m2_positive", "mean_zero", "m2_zero", "histogram")
    old = {name: tensor for name, tensor in state.items() if name not in new}
    back = StreamingCorrelation.from_state(old)
    assert torch.equal(
        back.correlation().nan_to_num(), stream(z, y, [400]).correlation().nan_to_num()
    )
    assert set(back.state()) == set(old)
    for statistics in (back, stream(z, y, [400]).merge(back)):
        for ask in (statistics.contrast, statistics.fisher_ratio, statistics.mutual_information):
            with pytest.raises(ArtifactError, match="collect again"):
                ask()
    with pytest.raises(ArtifactError, match="statistics have only histogram"):
        StreamingCorrelation.from_state(old | {"histogram": state["histogram"]})


def test_methods_that_compare_classes_need_both():
    statistics = StreamingCorrelation(2).update(torch.rand(5, 2), torch.rand(5) / 2 + 0.5)
    with pytest.raises(InsufficientDataError, match="5 fit outcomes are above 0 and 0 equal 0"):
        statistics.contrast()


@pytest.mark.parametrize("offset", [0.0, 1e6])
@pytest.mark.parametrize("sizes", [[300], [1] * 300, [7, 1, 200, 92]])
def test_sparse_blocks_give_the_statistics_of_dense_ones(monkeypatch, offset, sizes):
    rng = np.random.default_rng(6)
    z, y = draw(rng, 300, offset)
    z[:, 0] *= rng.random(300) < 0.1
    z[:, 1] *= y > 0.5  # nonzero wherever the outcome is above its threshold
    y = np.where(y > 0.5, y, 0.0)
    z[:, 2] = 1e6 + 0.1
    wide = np.concatenate([z, np.zeros((300, 40))], 1)
    sparse = stream(wide, y, sizes)
    monkeypatch.setattr("corrsteer.stats.batch_moments.DENSE", -1.0)
    dense = stream(wide, y, sizes)
    for name, tensor in dense.state().items():
        if not name.startswith(("mean", "first", "scalars")):  # which depend on the shift
            np.testing.assert_allclose(sparse.state()[name], tensor, rtol=1e-8, atol=1e-7)
    for of_sparse, of_dense in (
        (sparse.correlation(), dense.correlation()),
        (sparse.contrast(), dense.contrast()),
        (sparse.coefficient(), dense.coefficient()),
    ):
        np.testing.assert_allclose(of_sparse, of_dense, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(sparse.correlation(), reference(wide, y), rtol=0, atol=1e-10)
    assert torch.isnan(sparse.correlation()[2])


def test_a_sparse_block_with_nan_is_refused_whole():
    statistics = StreamingCorrelation(50)
    z = torch.zeros(8, 50)
    z[3, 7] = torch.nan
    with pytest.raises(NonFiniteError, match="activations hold NaN"):
        statistics.update(z, torch.arange(8).remainder(2).double())
    assert statistics.n == 0
    assert not statistics.histogram.any()
