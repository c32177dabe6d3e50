import json
import math

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import stats

from corrsteer.cli import cli
from corrsteer.errors import SettingsError
from corrsteer.stats import metrics
from corrsteer.stats.sample_size import (
    Questions,
    detectable_gain,
    detecting_samples,
    exact_samples,
    gain_power,
    hoeffding_samples,
    largest_correlation,
    plan,
    printed_samples,
    samples_for_gain,
    samples_for_width,
    smallest_correlation,
)
from corrsteer.stats.significance import correlation_interval, correlation_p_value

GRID = [
    (s, k, delta)
    for s in (0.002, 0.05, 0.3, 0.9, 1.0)
    for k in (1, 2, 10, 40)
    for delta in (0.5, 0.05, 1e-6)
]


def chance_of_fewer(n, s, k):
    """P[Bin(n, s) < k] as the sum of its terms."""
    terms = (math.comb(n, i) * s**i * (1 - s) ** (n - i) for i in range(min(k, n + 1)))
    return math.fsum(terms)


@pytest.mark.parametrize(("s", "k", "delta"), GRID)
def test_the_exact_answer_is_the_smallest_by_direct_sums(s, k, delta):
    n = exact_samples(s, k, delta)
    assert n >= k
    assert chance_of_fewer(n, s, k) <= delta * (1 + 1e-9)
    assert n == k or chance_of_fewer(n - 1, s, k) > delta


@pytest.mark.parametrize(("s", "k", "delta"), GRID)
def test_hoeffdings_answer_is_the_smallest_that_the_inequality_allows(s, k, delta):
    def bound(n):
        return math.exp(-2 * (n * s - k) ** 2 / n) if n * s >= k else 1.0

    n = hoeffding_samples(s, k, delta)
    assert bound(n) <= delta * (1 + 1e-9)
    assert bound(n - 1) > delta
    assert n >= exact_samples(s, k, delta)


def test_the_printed_formula_does_not_solve_hoeffdings_inequality():
    n = printed_samples(0.01, 10, 0.05)
    assert n == 1123
    assert math.exp(-2 * (n * 0.01 - 10) ** 2 / n) > 0.9  # the bound promised to be 0.05
    assert chance_of_fewer(n, 0.01, 10) > 0.05  # and the probability itself is above it
    assert hoeffding_samples(0.01, 10, 0.05) > 10 * n


def test_hoeffding_grows_with_the_square_where_the_exact_answer_grows_linearly():
    exact = [exact_samples(s, 10, 0.05) for s in (1e-3, 1e-4)]
    hoeffding = [hoeffding_samples(s, 10, 0.05) for s in (1e-3, 1e-4)]
    assert exact[1] / exact[0] == pytest.approx(10, rel=0.01)
    assert hoeffding[1] / hoeffding[0] == pytest.approx(100, rel=0.05)


def test_answers_are_monotone():
    for answer in (exact_samples, hoeffding_samples, printed_samples):
        for s, k, delta in [(0.1, 10, 0.05), (0.02, 3, 0.2)]:
            n = answer(s, k, delta)
            assert answer(s / 2, k, delta) > n
            assert answer(s, k + 1, delta) > n
            assert answer(s, k, delta / 10) > n


@pytest.mark.parametrize("r", [0.0, 0.1, -0.4, 0.779, 0.99])
@pytest.mark.parametrize("width", [0.01, 0.1, 0.4])
def test_the_interval_is_as_wide_as_planned_and_no_fewer_samples_do(r, width):
    def wide(n):
        low, high = correlation_interval(r, n)
        return high - low

    n = samples_for_width(r, width)
    assert wide(n) <= width * (1 + 1e-9)
    assert n == 4 or wide(n - 1) > width


def test_the_width_agrees_with_the_papers_variance_where_it_is_narrow():
    r, width = 0.5, 0.01
    z = stats.norm.ppf(0.975)
    assert samples_for_width(r, width) == pytest.approx(
        3 + (2 * z * (1 - r**2) / width) ** 2, rel=1e-3
    )


@pytest.mark.parametrize("n", [4, 108, 4000])
@pytest.mark.parametrize("comparisons", [1, 6144, 425_984])
def test_the_smallest_correlation_has_just_the_level_as_its_p_value(n, comparisons):
    import numpy as np

    r = smallest_correlation(n, comparisons, 0.05)
    assert 0 < r < 1
    # 1 - r^2 of an r near 1 keeps few digits
    p = correlation_p_value(np.array(r), n) * comparisons
    assert p == pytest.approx(0.05, rel=1e-6 if r < 0.999 else 1e-2)


def test_noise_over_all_features_of_gemma_reaches_about_one_half_at_108_samples():
    assert smallest_correlation(108, 425_984, 0.5) == pytest.approx(0.46, abs=0.02)


@pytest.mark.parametrize("r", [0.05, -0.2, 0.7])
@pytest.mark.parametrize("comparisons", [1, 425_984])
def test_the_samples_that_find_a_correlation_are_the_fewest(r, comparisons):
    n = detecting_samples(r, comparisons)
    assert smallest_correlation(n, comparisons) <= abs(r) < smallest_correlation(n - 1, comparisons)


@pytest.mark.parametrize(
    "bad",
    [
        {"frequency": 0},
        {"frequency": 1.1},
        {"k": 0},
        {"delta": 0},
        {"delta": 1},
        {"correlation": 1.0},
        {"correlation": 0.0},
        {"correlation": 0.2, "width": 0},
        {"comparisons": 0},
        {"alpha": 1},
        {"samples": (3,)},
        {"right": 1.0},
        {"gain": 0.0},
        {"gain": 0.9, "worse": 0.1},
        {"power": 1.0},
        {"tolerance": 0.0},
        {"frequency": math.nan},
    ],
)
def test_values_out_of_range_are_refused(bad):
    with pytest.raises(SettingsError, match=r"is .*; choose a number"):
        plan(Questions(**{"frequency": 0.1, **bad}))


def test_the_command_prints_one_json_object():
    done = CliRunner().invoke(
        cli, ["plan", "--frequency", "0.01", "--correlation", "0.3", "--comparisons=6144", "--json"]
    )
    assert done.exit_code == 0
    document = json.loads(done.output)
    assert document["activations"]["exact"] == exact_samples(0.01, 10, 0.05)
    assert document["width"]["samples"] == samples_for_width(0.3, 0.2)
    assert document["detection"]["samples"] == detecting_samples(0.3, 6144, power=0.8)
    assert document["detection"]["largest"] == pytest.approx(math.sqrt(0.01 / 0.99))
    assert document["detection"]["possible"] is False
    assert document["change"]["samples"] == samples_for_gain(0.1)
    assert document["change"]["guard_samples"] == 112
    assert set(document["detection"]["smallest"]) == {"108", "400", "1000", "4000"}


def test_the_command_prints_a_table():
    done = CliRunner().invoke(cli, ["plan", "--frequency", "0.01", "--samples", "50"])
    assert done.exit_code == 0
    assert "1,568" in done.output  # exact
    assert "at 50 samples" in " ".join(done.output.split())
    asked = CliRunner().invoke(cli, ["plan", "--frequency", "0.01", "--correlation", "0.3"])
    assert "0.101, less than asked for" in " ".join(asked.output.split())


@pytest.mark.parametrize("power", [0.5, 0.8, 0.9])
def test_a_correlation_is_found_as_often_as_it_was_planned_to_be(power):
    n = detecting_samples(0.3, 1000, power=power)
    rng = np.random.default_rng(0)
    x, noise = rng.normal(size=(2, 4000, n))
    y = 0.3 * x + math.sqrt(1 - 0.3**2) * noise
    r = [np.corrcoef(*pair)[0, 1] for pair in zip(x, y, strict=True)]
    assert np.mean(np.abs(r) >= smallest_correlation(n, 1000)) == pytest.approx(power, abs=0.025)


@pytest.mark.parametrize(("s", "right"), [(0.01, 0.5), (0.3, 0.6), (0.7, 0.4)])
def test_no_latent_goes_with_the_outcome_better_than_it_can(s, right):
    n, rng = 1000, np.random.default_rng(0)
    y = (np.arange(n) < round(right * n)).astype(float)
    best = np.corrcoef((np.arange(n) < round(s * n)).astype(float), y)[0, 1]
    assert largest_correlation(s, right) == pytest.approx(best, abs=1e-9)
    z = (rng.random((500, n)) < s) * rng.lognormal(size=(500, n))
    z[:250] *= y  # active on right samples alone
    z = z[(z > 0).mean(axis=1) <= s] if s <= right else z
    assert max(abs(np.corrcoef(row, y)[0, 1]) for row in z if row.any()) <= best + 0.05


@pytest.mark.parametrize(
    ("gain", "n", "worse"), [(0.1, 60, 0.0), (0.2, 40, 0.1), (0.05, 300, 0.02)]
)
def test_the_power_of_a_gain_is_how_often_the_exact_test_finds_it(gain, n, worse):
    rng, found = np.random.default_rng(0), 0
    for _ in range(1500):
        change = rng.choice([1.0, -1.0, 0.0], n, p=[gain + worse, worse, 1 - gain - 2 * worse])
        each = metrics.delta(np.where(change < 0, 1.0, 0.0), np.where(change > 0, 1.0, 0.0))
        found += each.value > 0 and each.p_value < 0.05
    assert gain_power(gain, n, worse) == pytest.approx(found / 1500, abs=0.04)


def test_samples_and_gains_are_the_least_that_reach_the_power():
    n = samples_for_gain(0.1)
    assert gain_power(0.1, n) >= 0.8 > gain_power(0.1, n - 1)
    gain = detectable_gain(n)
    assert gain_power(gain, n) >= 0.8 > gain_power(gain - 0.001, n)
    assert detectable_gain(3) is None
    assert detectable_gain(0) is None
