import numpy as np
import pytest
from scipy import stats

from corrsteer.stats.significance import (
    bonferroni,
    correlation_interval,
    correlation_p_value,
    correlation_standard_error,
)


@pytest.mark.parametrize("seed", range(3))
def test_interval_and_p_value_are_scipys(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=40)
    y = 0.4 * x + rng.normal(size=40)
    expected = stats.pearsonr(x, y)
    interval = expected.confidence_interval(0.95)
    r = float(expected.statistic)
    assert correlation_interval(r, 40) == pytest.approx((interval.low, interval.high), abs=1e-9)
    assert correlation_p_value(np.array(r), 40) == pytest.approx(expected.pvalue, abs=1e-9)


def test_edges():
    assert correlation_interval(0.9, 3) == (-1.0, 1.0)
    assert correlation_interval(1.0, 10) == (1.0, 1.0)
    assert correlation_p_value(np.array([1.0, -1.0]), 10).tolist() == [0.0, 0.0]
    assert np.isnan(correlation_p_value(np.array([np.nan]), 10)).all()
    assert correlation_standard_error(0.0, 103) == pytest.approx(0.1)


def test_bonferroni_is_at_most_one():
    assert bonferroni(0.01, 3) == pytest.approx(0.03)
    assert bonferroni(0.5, 3) == 1.0
    assert bonferroni(0.5, 0) == 0.5
