import itertools
import math

import numpy as np
import pytest
from scipy import sparse, stats

from corrsteer.errors import InsufficientDataError
from corrsteer.stats import resampling
from corrsteer.stats.groups import Groups
from corrsteer.stats.intervals import bootstrap_intervals, carriers, effective_samples
from corrsteer.stats.resampling import (
    Latents,
    best_again,
    max_t,
    split_half_agreement,
    unit,
)


def activations(d=40, n=60, seed=0, density=0.15):
    """Sparse, skewed and of very different frequencies; latent 0 is never active, 1 constant."""
    rng = np.random.default_rng(seed)
    share = rng.random(d)[:, None] * 2 * density
    z = (rng.random((d, n)) < share) * rng.gamma(1.0, 10.0, size=(d, n))
    z[0], z[1] = 0.0, 3.0
    return z


def outcomes(n=60, seed=1):
    return (np.random.default_rng(seed).random(n) < 0.4).astype(float)


def pearson(z, y):
    """Whole-data r of every row; 0 where it is constant."""
    with np.errstate(invalid="ignore", divide="ignore"):
        r = np.corrcoef(z, y)[-1, :-1]
    return np.where(np.ptp(z, axis=1) == 0, 0.0, r)


@pytest.mark.parametrize("density", [0.05, 0.9])  # a sparse and a dense product
def test_correlations_are_scipys_and_constant_latents_do_not_count(density):
    z, y = activations(density=density), outcomes()
    latents = Latents.of(sparse.csr_array(z))
    assert isinstance(latents.scaled, np.ndarray) == (density > 0.5)
    assert {0, 1} & set(latents.index.tolist()) == set()
    r = latents.correlations(unit(y)[:, None])[:, 0]
    np.testing.assert_allclose(r, pearson(z, y)[latents.index], atol=1e-12)


def test_a_large_offset_loses_nothing():
    z, y = activations() + 1e5, outcomes()
    latents = Latents.of(sparse.csr_array(z))
    r = latents.correlations(unit(y)[:, None])[:, 0]
    np.testing.assert_allclose(r, pearson(z, y)[latents.index], atol=1e-10)


def test_latents_active_too_rarely_do_not_count():
    z = np.zeros((3, 10))
    z[0, :2], z[1, :3], z[2, :10] = 1.0, 1.0, np.arange(10)
    assert Latents.of(sparse.csr_array(z), least=0.3).index.tolist() == [1, 2]


def test_the_null_is_the_largest_r_of_all_hook_points_under_the_same_permutations():
    y = outcomes()
    layers = [activations(seed=seed) for seed in (2, 3)]
    found = max_t([Latents.of(sparse.csr_array(z)) for z in layers], y, permutations=150, seed=5)
    assert found.comparisons == sum(int((np.ptp(z, axis=1) > 0).sum()) for z in layers)
    permuted = np.concatenate(
        [p for _, p in resampling._permuted(y, 150, 5, Groups.of(None, len(y)))], axis=1
    )
    assert len({tuple(column) for column in permuted.T}) == 150
    for column, largest in zip(permuted.T, found.null, strict=True):
        assert sorted(column) == sorted(y)
        naive = max(np.abs(pearson(z, column)).max() for z in layers)
        assert largest == pytest.approx(naive, abs=1e-12)


def test_p_values_agree_with_a_permutation_test_over_all_orders():
    z, y = activations(d=4, n=8, seed=3, density=0.4), np.array([1, 1, 1, 0, 0, 0, 0, 0.5])
    orders = [y[list(order)] for order in itertools.permutations(range(8))]
    exact = np.array([np.abs(pearson(z, order)).max() for order in orders[::17]])
    null = max_t([Latents.of(sparse.csr_array(z))], y, permutations=20_000)
    for r in np.abs(pearson(z, y)):
        share = float((exact >= r - 1e-9).mean())
        noise = 4 * math.sqrt(share * (1 - share) / 2_000) + 1e-3
        assert float(null.p_adjusted(r)) == pytest.approx(share, abs=noise)


@pytest.mark.parametrize("permutations", [19, 99])
def test_noise_without_ties_is_called_significant_exactly_as_often(permutations):
    latents, rng = Latents.of(sparse.csr_array(activations(d=30, n=40))), np.random.default_rng(7)
    y, runs, alpha = rng.random(40), 2000, 0.05  # graded, so that no two orders tie
    called = 0
    for seed in range(runs):
        permuted = rng.permutation(y)
        null = max_t([latents], permuted, permutations, seed)
        r = latents.correlations(unit(permuted)[:, None])[:, 0]
        called += bool(null.p_adjusted(r).min() <= alpha)
    assert abs(called - alpha * runs) < 3.5 * math.sqrt(runs * alpha * (1 - alpha))


def test_one_latent_alone_has_scipys_permutation_p_value():
    z, y = activations(seed=4), outcomes()
    z = z[np.argmax(np.abs(pearson(z, y)))][None]
    mine = max_t([Latents.of(sparse.csr_array(z))], y, permutations=4000).p_adjusted(
        pearson(z, y)[0]
    )
    theirs = stats.permutation_test(
        (y,),
        lambda order: abs(stats.pearsonr(z[0], order).statistic),
        permutation_type="pairings",
        n_resamples=1000,
        alternative="greater",
        rng=np.random.default_rng(0),
    )
    assert float(mine) == pytest.approx(theirs.pvalue, abs=0.03)


def test_p_values_count_the_permutations_that_reach_r():
    null = resampling.MaxT(np.array([0.1, 0.5, 0.3, 0.3]), 7)
    assert null.p_adjusted(np.array([0.6, 0.5, -0.3, 0.0])).tolist() == [0.2, 0.4, 0.8, 1.0]
    assert np.isnan(null.p_adjusted(np.nan))
    assert null.threshold(0.4) == 0.3
    assert null.threshold(0.2) == 0.5
    assert null.threshold(1.0) == 0.0
    assert null.threshold(0.1) == 1.0  # five orders cannot show as little as that


def test_pure_noise_is_called_significant_as_often_as_promised():
    latents = [Latents.of(sparse.csr_array(activations(d=60, seed=6)))]
    rng, wrong = np.random.default_rng(7), 0
    for seed in range(200):
        y = (rng.random(60) < 0.2).astype(float)
        r = latents[0].correlations(unit(y)[:, None])
        wrong += bool(max_t(latents, y, 199, seed).p_adjusted(r).min() <= 0.05)
    assert wrong <= stats.binom.ppf(0.999, 200, 0.05)


def test_a_real_correlation_is_significant():
    z, y = activations(), outcomes()
    z[7] = 2 * y + np.random.default_rng(8).random(60)
    null = max_t([Latents.of(sparse.csr_array(z))], y, 999)
    assert null.p_adjusted(pearson(z, y)[7]) == pytest.approx(0.001)


def test_the_same_seed_gives_the_same_null_and_another_another():
    latents, y = Latents.of(sparse.csr_array(activations())), outcomes()
    first, again, other = (max_t([latents], y, 50, seed).null for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_equal_outcomes_are_refused():
    with pytest.raises(InsufficientDataError, match="all 5 outcomes equal 1"):
        max_t([], np.ones(5))


@pytest.mark.parametrize("seed", range(3))
def test_bootstrap_intervals_are_scipys(seed):
    z, y = activations(seed=seed)[[5, 9, 20, 33]], outcomes(seed=seed)
    z = z[np.count_nonzero(z, axis=1) > 4]
    mine = bootstrap_intervals(z, y, resamples=999, seed=seed)
    for row, ends in zip(z, mine, strict=True):
        with np.errstate(all="ignore"):
            theirs = stats.bootstrap(
                (row, y),
                lambda a, b, axis: stats.pearsonr(a, b, axis=axis).statistic,
                paired=True,
                n_resamples=999,
                method="BCa",
                rng=np.random.default_rng(seed),
            )
        interval = theirs.confidence_interval
        assert ends.tolist() == pytest.approx([interval.low, interval.high], abs=1e-6)


def test_bootstrap_intervals_do_not_depend_on_offset_and_scale():
    z, y = activations(seed=2)[5:9], outcomes()
    np.testing.assert_allclose(
        bootstrap_intervals(z, y, 300), bootstrap_intervals(1e4 + 0.01 * z, y, 300), atol=1e-6
    )


def test_a_latent_without_a_correlation_in_some_draw_has_no_interval():
    z = np.zeros((2, 60))
    z[1, 3] = 1.0
    assert np.isnan(bootstrap_intervals(z, outcomes(), 300)).all()
    assert bootstrap_intervals(z[:0], outcomes(), 300).shape == (0, 2)


def naive_agreement(z, y, sign, repeats, seed):
    n, rng = len(y), np.random.default_rng(seed)
    halves = np.zeros((n, repeats))
    halves[: n // 2] = 1.0
    halves = rng.permuted(halves, axis=0) > 0
    agree, valid = 0, 0
    for half in halves.T:
        best = []
        for part in (half, ~half):
            r = pearson(z[:, part], y[part])
            score = np.abs(r) if sign == 0 else sign * r
            best.append(int(score.argmax()) if score.max() > 0 else None)
        if None not in best:
            valid += 1
            agree += best[0] == best[1]
    return agree / valid


@pytest.mark.parametrize("sign", [1, -1, 0])
@pytest.mark.parametrize("density", [0.1, 0.9])
def test_split_halves_agree_as_often_as_counted_one_by_one(sign, density):
    z, y = activations(d=6, density=density, seed=9), outcomes()
    latents = Latents.of(sparse.csr_array(z))
    got = split_half_agreement(latents, y, sign, repeats=40, seed=3)
    assert got == pytest.approx(naive_agreement(z, y, sign, 40, 3), abs=1e-12)


def test_a_strong_feature_is_stable_and_noise_is_not():
    z, y = activations(), outcomes()
    noise = split_half_agreement(Latents.of(sparse.csr_array(z)), y)
    z[7] = 2 * y + np.random.default_rng(8).random(60)
    assert split_half_agreement(Latents.of(sparse.csr_array(z)), y) == 1.0
    assert noise < 0.5
    assert split_half_agreement(Latents.of(sparse.csr_array((5, 60))), y) is None


def test_groups_of_one_size_change_places_whole():
    labels = np.repeat(np.arange(20), 3)[np.random.default_rng(0).permutation(60)]
    groups = Groups.of(labels, 60)
    giver = groups.exchanged(50, np.random.default_rng(1))
    assert (np.sort(giver, axis=0) == np.arange(60)[:, None]).all()  # permutations
    for column in giver.T:
        for group in range(20):
            assert len(set(labels[column[labels == group]])) == 1  # of one other group
    assert len({tuple(column) for column in giver.T}) == 50


def test_groups_change_places_with_those_of_like_size():
    sizes = [1, 1, 2, 2, 3, 4, 7, 8]
    labels = np.repeat(np.arange(8), sizes)
    groups = Groups.of(labels, len(labels))
    seen = {group: set() for group in range(8)}
    for column in groups.exchanged(300, np.random.default_rng(0)).T:
        for group in range(8):
            (giver,) = set(labels[column[labels == group]])
            seen[group].add(int(giver))
    assert seen == {g: h for pair in ({0, 1}, {2, 3}, {4, 5}, {6, 7}) for g in pair for h in [pair]}


def test_noise_that_comes_in_groups_is_not_significant():
    rng, found = np.random.default_rng(0), []
    labels = np.repeat(np.arange(40), 5)
    for seed in range(20):
        z = np.maximum(rng.normal(size=(60, 40))[:, labels] + 0.3 * rng.normal(size=(60, 200)), 0)
        y = (rng.normal(size=40)[labels] + 0.5 * rng.normal(size=200) > 0).astype(float)
        latents = Latents.of(sparse.csr_array(z))
        r = latents.correlations(unit(y)[:, None])[:, 0]
        p = [
            max_t([latents], y, 99, seed, groups).p_adjusted(r).min()
            for groups in (None, Groups.of(labels, 200))
        ]
        found.append([each <= 0.05 for each in p])
    alone, whole = np.sum(found, axis=0)
    assert alone > 15
    assert whole < 5


def test_copies_of_samples_count_once():
    z, y = activations(d=5, n=100)[2:], outcomes(100)
    twice, groups = np.repeat(z, 2, axis=1), Groups.of(np.repeat(np.arange(100), 2), 200)
    wider = (stats.t.ppf(0.975, 99) / stats.norm.ppf(0.975)) ** 2
    np.testing.assert_allclose(
        effective_samples(twice, np.repeat(y, 2), groups), 3 + 197 / 2 / wider, rtol=1e-12
    )
    assert effective_samples(z, y, Groups.of(None, 100)).tolist() == [100.0] * 3
    np.testing.assert_allclose(carriers(twice, groups), carriers(z, Groups.of(None, 100)))
    copies = bootstrap_intervals(twice, np.repeat(y, 2), 500, 3, groups)
    np.testing.assert_allclose(copies, bootstrap_intervals(z, y, 500, 3), atol=1e-12)


def test_carriers_are_the_samples_on_which_a_rare_latent_is_active():
    z = np.zeros((2, 1000))
    z[0, :10], z[1, :10] = 1.0, [100.0, *[1.0] * 9]
    few, one = carriers(z, Groups.of(None, 1000))
    assert few == pytest.approx(10, rel=0.05)
    assert one == pytest.approx(1, rel=0.05)


def test_the_best_is_counted_in_resamples_of_groups():
    z, y = activations(), outcomes()
    groups = Groups.of(np.arange(60) // 3, 60)
    latents = Latents.of(sparse.csr_array(z))
    found = best_again(latents, y, groups, resamples=40, seed=5)
    for drawn, best in zip(next(groups.drawn(40, 5))[1], found, strict=True):
        rows = np.repeat(np.arange(60), drawn[groups.codes].astype(int))
        with np.errstate(invalid="ignore", divide="ignore"):
            r = np.corrcoef(z[:, rows], y[rows])[-1, :-1]
        r[(np.ptp(z[:, rows], axis=1) == 0)] = np.nan
        assert best == np.nanargmax(r)
