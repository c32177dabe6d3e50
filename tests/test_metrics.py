import numpy as np
import pytest
from scipy import stats

from corrsteer.errors import InsufficientDataError
from corrsteer.stats import metrics


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


def test_accuracy_of_graded_outcomes_has_students_interval():
    values = np.array([0.2, 0.5, 0.9, 0.4])
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert metrics.accuracy(values).ci == pytest.approx((expected.low, min(expected.high, 1)))


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


def test_delta_of_graded_outcomes_is_wilcoxons_test():
    rng = np.random.default_rng(0)
    baseline, steered = rng.random(30), rng.random(30)
    expected = stats.wilcoxon(steered - baseline).pvalue
    assert metrics.delta(baseline, steered).p_value == pytest.approx(expected)


def test_nothing_changed_is_no_effect():
    result = metrics.delta(outcomes("0110"), outcomes("0110"))
    assert (result.value, result.ci, result.p_value) == (0.0, (0.0, 0.0), 1.0)


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
