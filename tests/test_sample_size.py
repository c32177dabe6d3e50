import json
import math

import pytest
from click.testing import CliRunner
from scipy import stats

from corrsteer.cli import cli
from corrsteer.errors import SettingsError
from corrsteer.stats.sample_size import (
    detecting_samples,
    exact_samples,
    hoeffding_samples,
    plan,
    printed_samples,
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
        {"frequency": math.nan},
    ],
)
def test_values_out_of_range_are_refused(bad):
    with pytest.raises(SettingsError, match=r"is .*; choose a number"):
        plan(**{"frequency": 0.1, **bad})


def test_the_command_prints_one_json_object():
    done = CliRunner().invoke(
        cli, ["plan", "--frequency", "0.01", "--correlation", "0.3", "--comparisons=6144", "--json"]
    )
    assert done.exit_code == 0
    document = json.loads(done.output)
    assert document["activations"]["exact"] == exact_samples(0.01, 10, 0.05)
    assert document["width"]["samples"] == samples_for_width(0.3, 0.2)
    assert document["detection"]["samples"] == detecting_samples(0.3, 6144)
    assert set(document["detection"]["smallest"]) == {"108", "400", "1000", "4000"}


def test_the_command_prints_a_table():
    done = CliRunner().invoke(cli, ["plan", "--frequency", "0.01", "--samples", "50"])
    assert done.exit_code == 0
    assert "1,568" in done.output  # exact
    assert "at 50 samples" in " ".join(done.output.split())
