import numpy as np
import pytest

from corrsteer.stats.metrics import delta
from corrsteer.stats.preference import UNMOVED, preference_outcomes

ALONE = np.arange(200)


def drawn(seed, n=200):
    """Log-probabilities of replies, with their marks, which go with nothing."""
    rng = np.random.default_rng(seed)
    return rng, -np.abs(rng.normal(1, 0.5, n)), rng.integers(0, 2, n) * 1.0


def test_a_hand_computed_case():
    q, q_after = np.array([0.5, 0.5, 0.4, 0.4]), np.array([0.6, 0.5, 0.3, 0.4])
    marks, groups = np.array([1.0, 1.0, 0.0, 0.0]), np.arange(4)
    changes = q_after / q - 1
    expected = 0.5 + np.array([1, 1, -1, -1]) * (changes - changes.mean()) / 2
    found = preference_outcomes(np.log(q), np.log(q_after), marks, groups)
    np.testing.assert_allclose(found, expected)


def test_no_steering_gives_one_half_and_no_mark_or_token_gives_nothing():
    _, before, marks = drawn(0)
    marks[0], before[1] = np.nan, np.nan
    found = preference_outcomes(before, before, marks, ALONE)
    assert np.isnan(found).tolist() == [True, True] + [False] * 198
    assert (found[2:] == UNMOVED).all()
    alike = preference_outcomes(before, before + 1, np.ones(200), ALONE)
    assert np.nanmax(np.abs(alike - UNMOVED)) == 0
    assert np.isnan(preference_outcomes(before, before, np.full(200, np.nan), ALONE)).all()


@pytest.mark.parametrize("moved", [lambda x: x + 0.3, lambda x: x - 2, lambda x: x * 0 - 40])
@pytest.mark.parametrize("offset", [-0.8, 0.8], ids=["bad likelier", "good likelier"])
def test_what_moves_all_replies_alike_or_breaks_the_model_changes_nothing(moved, offset):
    _, before, marks = drawn(1)
    before = np.minimum(before + offset * marks, -0.01)
    found = preference_outcomes(before, moved(before), marks, ALONE)
    assert found.mean() == pytest.approx(UNMOVED, abs=1e-9)


def test_good_replies_that_gain_more_raise_it_and_bad_ones_lower_it():
    rng, before, marks = drawn(2)
    for sign in (1, -1):
        after = before + 0.2 * sign * (marks - 0.5) + rng.normal(0, 0.1, 200)
        found = delta(np.full(200, UNMOVED), preference_outcomes(before, after, marks, ALONE))
        assert np.sign(found.value) == sign
        assert found.p_value < 0.01


def test_replies_to_one_prompt_are_compared_with_each_other():
    marks, groups = np.tile([1.0, 0.0], 50), np.repeat(np.arange(50), 2)
    _, before, _ = drawn(3, 100)
    by_prompt = np.repeat(np.random.default_rng(3).normal(0, 0.2, 50), 2)
    found = preference_outcomes(before, before + by_prompt, marks, groups)
    np.testing.assert_allclose(found, UNMOVED, atol=1e-9)


MOVES = {
    "noise": lambda x, noise: x + 0.3 * noise,
    "flattened": lambda x, noise: 0.5 * x + 0.2 * noise,
    "sharpened": lambda x, noise: 1.4 * x + 0.1 * noise,
    "lost": lambda x, noise: x - 1 - np.abs(noise),
}


@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES.keys())
@pytest.mark.parametrize("share", [0.5, 0.85])
def test_movements_that_know_no_marks_are_significant_as_often_as_chance_has_it(move, share):
    found = []
    for seed in range(200):
        rng, before, _ = drawn(seed, 80)
        marks = 1.0 * (rng.random(80) < share)
        after = move(before, rng.standard_normal(80))
        outcomes = preference_outcomes(before, after, marks, np.arange(80))
        sums = outcomes - UNMOVED
        flips = rng.choice([-1, 1], (400, 80)) @ sums
        found.append((1 + (np.abs(flips) >= abs(sums.sum())).sum()) / 401)
    assert np.mean(np.array(found) < 0.05) < 0.1  # 5 % and three standard errors
