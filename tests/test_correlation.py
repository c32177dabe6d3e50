import numpy as np
import pytest
import torch

from corrsteer.correlation import StreamingCorrelation
from corrsteer.errors import ArtifactError, InsufficientDataError, NonFiniteError


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
