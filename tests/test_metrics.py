import itertools

import numpy as np
import pytest
from scipy import stats

from corrsteer.errors import InsufficientDataError
from corrsteer.runs.comparison import paired
from corrsteer.stats import metrics
from corrsteer.stats.groups import Groups
from corrsteer.stats.means import mean_interval, sign_flip_p_value
from corrsteer.stats.sample_size import samples_without_loss


def outcomes(text: str) -> np.ndarray:
    return np.array([float(c) for c in text])


def test_accuracy_of_outcomes_of_0_and_1_has_wilsons_interval():
    result = metrics.accuracy(outcomes("1101000000"))
    z, p, n = 1.959963984540054, 0.3, 10
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert result.accuracy == 0.3
    assert result.n == 10
    assert result.ci == pytest.approx((centre - half, centre + half))


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("groups", [None, np.arange(12) // 2])
def test_no_interval_of_finite_samples_has_zero_width(value, groups):
    low, high = metrics.accuracy(np.full(12, value), groups).ci
    assert 0 <= low <= value <= high <= 1
    assert high - low > 2 / 12


def test_one_group_alone_says_nothing_of_others():
    same = np.zeros(20, dtype=np.int64)
    assert metrics.accuracy(np.linspace(0, 1, 20), same).ci == (0.0, 1.0)
    assert metrics.delta(np.zeros(20), np.ones(20), same).ci == (-1.0, 1.0)


def test_no_outcome_has_no_accuracy():
    with pytest.raises(InsufficientDataError, match="no sample could be judged"):
        metrics.accuracy(np.array([]))


def test_delta_is_mcnemars_exact_test_on_discordant_samples():
    baseline, steered = outcomes("1100000000"), outcomes("0111111100")
    result = metrics.delta(baseline, steered)
    assert result.value == pytest.approx(0.5)
    # 6 improved, 1 worsened: two-sided binomial tail
    assert result.p_value == pytest.approx(2 * (1 + 7) / 2**7)
    assert result.ci[0] < 0.5 < result.ci[1]


def test_the_interval_of_a_change_is_students_with_three_more_groups():
    before, after = outcomes("110010000011"), outcomes("011110111011")
    d, groups = after - before, np.array([0, 0, 0, 1, 1, 2, 3, 3, 4, 4, 5, 5])
    n, sizes = 12, np.bincount(groups)
    k = (sizes**2).sum() / n
    sums = np.array([d[groups == g].sum() for g in range(6)])
    for labels, sums_, sizes_, k_ in [(groups, sums, sizes, k), (None, d, np.ones(12), 1)]:
        m = d.sum() / (n + 3 * k_)
        squares = ((sums_ - m * sizes_) ** 2).sum() + 1.5 * k_**2 * ((1 - m) ** 2 + (1 + m) ** 2)
        half = stats.t.ppf(0.975, n / k_ - 1) * np.sqrt(squares) / (n + 3 * k_)
        low, high = mean_interval(d, Groups.of(labels, n), -1, 1)
        assert (low, high) == pytest.approx((m - half, m + half))


def test_no_change_is_no_effect_within_what_so_few_samples_can_tell():
    result = metrics.delta(outcomes("0110"), outcomes("0110"))
    assert (result.value, result.p_value) == (0.0, 1.0)
    assert result.ci[0] == pytest.approx(-result.ci[1])
    assert result.ci[1] > 0.5
    assert metrics.delta(np.zeros(500), np.zeros(500)).ci[1] == pytest.approx(3.4 / 503, rel=0.01)


def test_interval_and_test_say_the_same_of_no_change():
    rng = np.random.default_rng(0)
    for _ in range(300):
        n, groups = rng.integers(8, 80), None
        before, after = (rng.random((2, n)) < rng.random(2)[:, None]).astype(float)
        if rng.random() < 0.5:
            groups = rng.integers(0, n // 2, n)
        found = metrics.delta(before, after, groups)
        if not found.ci[0] <= 0 <= found.ci[1]:
            assert found.p_value <= 0.05
        elif groups is None:
            assert found.p_value > 0.05


def chances(n, improved, worsened):
    """Numbers of improved and worsened among n, with their probability."""
    for up in range(n + 1):
        for down in range(n + 1 - up):
            p = stats.multinomial.pmf(
                [up, down, n - up - down], n, [improved, worsened, 1 - improved - worsened]
            )
            if p > 1e-7:
                yield up, down, p


@pytest.mark.parametrize("share", [0.01, 0.03, 0.1, 0.2])
@pytest.mark.parametrize("up", [1.0, 0.8, 0.5])
def test_the_interval_of_a_change_covers(share, up):
    n, improved = 30, share * up
    worsened = share - improved
    covered, lost = 0.0, 0.0
    for plus, minus, p in chances(n, improved, worsened):
        d = np.repeat([1.0, -1.0, 0.0], [plus, minus, n - plus - minus])
        low, high = metrics.delta(np.zeros(n), d).ci
        covered += p * (low <= improved - worsened <= high)
        lost += p * (-high > worsened - improved)  # the low end, were all changes turned around
    assert covered >= 0.944
    assert lost <= 0.051


def tangos_limit(n, up, down, z):
    """Where Tango's (1998) score statistic of a paired change is z; by bisection."""
    low, high = -1.0, 1.0
    for _ in range(60):
        d = (low + high) / 2
        b = (2 * n - up + down) * d - up - down
        fewer = (np.sqrt(b * b + 8 * n * down * d * (1 - d)) - b) / (4 * n)
        variance = n * (2 * fewer + d * (1 - d))
        above = up - down - n * d > z * np.sqrt(max(variance, 1e-12))
        low, high = (d, high) if above else (low, d)
    return low


def test_the_interval_of_a_change_is_no_wider_than_it_must_be():
    for n, up, down in [(100, 8, 2), (100, 24, 6), (500, 12, 3), (500, 40, 10), (500, 75, 75)]:
        d = np.repeat([1.0, -1.0, 0.0], [up, down, n - up - down])
        low, high = metrics.delta(np.zeros(n), d).ci
        theirs = tangos_limit(n, up, down, -1.96) - tangos_limit(n, up, down, 1.96)
        assert 0.95 * theirs < high - low < 1.03 * theirs


def drawn(rng, groups, share):
    """Graded changes; half of a group's samples share theirs."""
    shared, own = (
        np.where(rng.random(n) < share, rng.integers(1, 5, n) / 4, 0.0)
        for n in (groups.max() + 1, len(groups))
    )
    return np.where(rng.random(len(groups)) < 0.7, shared[groups], own)


@pytest.mark.parametrize("size", [1, 2, 10])
def test_intervals_of_graded_outcomes_in_groups_cover(size):
    rng, groups = np.random.default_rng(size), np.arange(200) // size
    covered = np.zeros(2)
    for _ in range(400):
        d = drawn(rng, groups, 0.05)
        for i, (low, high) in enumerate(
            [metrics.accuracy(1 - d, groups).ci, metrics.delta(np.ones(200), 1 - d, groups).ci]
        ):
            covered[i] += low <= (1 - 0.05 * 0.625 if i == 0 else -0.05 * 0.625) <= high
    assert (covered >= stats.binom.ppf(0.001, 400, 0.95)).all()


def test_groups_widen_what_they_correlate():
    rng, groups = np.random.default_rng(0), np.arange(300) // 3
    y = (rng.random(100) < 0.6).astype(float)[groups]
    alone, together = metrics.accuracy(y).ci, metrics.accuracy(y, groups).ci
    assert together[1] - together[0] > 1.5 * (alone[1] - alone[0])
    assert metrics.accuracy(y, np.arange(300)).ci == alone


def test_whole_sums_are_tested_against_all_signs():
    sums = np.array([3.0, -1, 2, 2, -4, 5, 1, 0])
    flips = np.array(list(itertools.product([1, -1], repeat=7)))
    exact = np.mean(np.abs(flips @ sums[:7]) >= sums.sum())
    assert sign_flip_p_value(sums) == pytest.approx(exact)
    noise = 4 * np.sqrt(exact * (1 - exact) / 19_999)
    assert sign_flip_p_value(sums / 10) == pytest.approx(exact, abs=noise)  # drawn, ties counted


def test_graded_changes_have_the_least_p_value_that_draws_can_show():
    rng = np.random.default_rng(0)
    found = metrics.delta(np.zeros(60), 0.2 + 0.5 * rng.random(60))
    assert found.p_value == 1 / 20_000
    assert found == metrics.delta(np.zeros(60), 0.2 + 0.5 * np.random.default_rng(0).random(60))


def test_noise_in_groups_is_called_a_change_as_often_as_promised():
    rng, groups, called = np.random.default_rng(1), np.arange(120) // 5, [0, 0]
    for _ in range(400):
        d = rng.choice([-1.0, 0.0, 1.0], 24)[groups]
        for i, labels in enumerate((groups, None)):
            called[i] += metrics.delta(np.zeros(120), d, labels).p_value <= 0.05
    assert called[0] <= stats.binom.ppf(0.999, 400, 0.05)
    assert called[1] > 100  # what samples taken as independent would have claimed


def test_a_loss_is_ruled_out_by_as_many_samples_as_planned():
    n = samples_without_loss(0.03)
    assert n == 112
    ones = np.ones(n)
    assert metrics.delta(ones, ones).most_lost <= 0.03
    assert metrics.delta(ones[1:], ones[1:]).most_lost > 0.03
    worse = ones.copy()
    worse[0] = 0
    assert metrics.delta(ones, worse).most_lost > 0.03


def test_side_effects_count_every_sample_once():
    baseline, steered = outcomes("11000110"), outcomes("10110110")
    same = np.array([True, False, False, False, True, True, False, False])
    result = metrics.side_effects(baseline, steered, same)
    assert (result.improved, result.worsened) == (2, 1)
    assert (result.changed_equal, result.unchanged) == (2, 3)
    assert result.ser == pytest.approx(1 / 3)
    low, high = result.ci
    assert low < 1 / 3 < high


def test_ser_is_undefined_when_no_outcome_changed():
    result = metrics.side_effects(outcomes("01"), outcomes("01"), np.array([True, False]))
    assert result.ser is None
    assert result.ci is None
    assert (result.changed_equal, result.unchanged) == (1, 1)


def test_graded_outcomes_improve_and_worsen():
    result = metrics.side_effects(
        np.array([0.2, 0.8]), np.array([0.3, 0.7]), np.array([False, False])
    )
    assert (result.improved, result.worsened, result.ser) == (1, 1, 0.5)


def test_the_ser_of_groups_has_their_interval():
    before, after = outcomes("000011110000"), outcomes("111111001100")
    same, groups = before == after, np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3])
    found = metrics.side_effects(before, after, same, groups)
    assert (found.worsened, found.improved) == (2, 6)
    changed = before != after
    expected = metrics.accuracy(1.0 * (after < before)[changed], groups[changed])
    assert found.ci == expected.ci
    assert found.ci != metrics.side_effects(before, after, same).ci


def test_labels_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="3 group labels for 4 samples"):
        metrics.accuracy(np.ones(4), np.array([0, 0, 1]))


def test_samples_that_were_not_judged_leave_with_their_groups():
    before, after = np.array([0, 1, np.nan, 0, 1, 0, 1, 0]), np.array([1, 1, 1, 0, 0, 1, np.nan, 1])
    same, groups = before == after, np.array([0, 0, 1, 1, 2, 2, 3, 3])
    found = paired(before, after, same, groups)
    kept = [0, 1, 3, 4, 5, 7]
    assert found.unscored == 2
    assert found.delta == metrics.delta(before[kept], after[kept], groups[kept])
    assert found.steered == metrics.accuracy(after[kept], groups[kept])
