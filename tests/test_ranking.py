import pytest
import torch

from corrsteer.errors import InsufficientDataError
from corrsteer.hook_points import HookPoint
from corrsteer.method.ranking import TOP, rank
from corrsteer.stats.correlation import StreamingCorrelation

FIRST, SECOND = HookPoint(2, "resid_post"), HookPoint(5, "resid_post")


def statistics(z, y):
    z, y = torch.as_tensor(z, dtype=torch.float32), torch.as_tensor(y, dtype=torch.float32)
    return StreamingCorrelation(z.shape[1]).update(z, y)


def noisy(strengths, n=200, seed=0):
    """Latents whose activation rises with the outcome by `strengths`."""
    generator = torch.Generator().manual_seed(seed)
    y = (torch.rand(n, generator=generator) < 0.5).float()
    noise = torch.rand(n, len(strengths), generator=generator)
    return statistics(noise + torch.outer(y, torch.tensor(strengths)), y)


def test_s_is_the_best_of_all_layers_and_a_the_best_of_each():
    ranking = rank({SECOND: noisy([0.0, 2.0, 1.0]), FIRST: noisy([0.5, -3.0, 0.1], seed=1)})
    assert [(f.layer, f.latent) for f in ranking.best_per_layer()] == [(2, 0), (5, 1)]
    assert [(f.layer, f.latent) for f in ranking.best()] == [(5, 1)]
    assert ranking.comparisons == 6
    assert ranking.n == 200


def test_ties_go_to_the_lower_layer_then_the_lower_latent():
    y = torch.tensor([0.0, 1.0, 0.0, 1.0, 1.0])
    z = torch.stack([1 - y, y, y], dim=1)
    ranking = rank({SECOND: statistics(z, y), FIRST: statistics(z, y)})
    assert [(f.layer, f.latent) for f in ranking.best_per_layer()] == [(2, 1), (5, 1)]
    assert [(f.layer, f.latent) for f in ranking.best()] == [(2, 1)]


def test_constant_and_negative_latents_are_never_selected():
    y = torch.tensor([0.0, 1.0, 0.0, 1.0])
    z = torch.stack([torch.full((4,), 3.0), 1 - y, torch.zeros(4)], dim=1)
    ranking = rank({FIRST: statistics(z, y)})
    assert ranking.best() == ()
    assert ranking.best_per_layer() == ()
    assert ranking.comparisons == 1


def test_a_feature_carries_its_evidence():
    y = torch.tensor([0.0, 1.0, 0.0, 1.0, 1.0, 0.0])
    z = torch.tensor([[0.0], [3.0], [0.5], [2.0], [0.0], [0.0]])
    (feature,) = rank({FIRST: statistics(z, y)}).best()
    assert feature.hook_point == "blocks.2.hook_resid_post"
    assert feature.coefficient == pytest.approx(5 / 3)
    assert feature.frequency == pytest.approx(3 / 6)
    assert feature.frequency_correct == pytest.approx(2 / 3)
    assert feature.frequency_incorrect == pytest.approx(1 / 3)
    assert feature.correlation_ci[0] < feature.correlation < feature.correlation_ci[1]


def test_the_p_value_is_corrected_for_all_latents_of_all_layers():
    one = rank({FIRST: noisy([0.15])}).best()[0]
    many = rank({FIRST: noisy([0.15]), SECOND: noisy([0.0] * 9)})
    assert many.comparisons == 10
    assert many.by_layer[FIRST][0].p_adjusted == pytest.approx(10 * one.p_adjusted)


def test_pure_noise_is_not_called_significant():
    ranking = rank({FIRST: noisy([0.0] * 500), SECOND: noisy([0.0] * 500, seed=1)})
    assert all(feature.p_adjusted > 0.05 for feature in ranking.best_per_layer())


def test_near_ties_lie_within_one_standard_error_of_their_layers_best():
    ranking = rank({FIRST: noisy([1.0, 1.0, 1.0, 1.0, 0.2]), SECOND: noisy([0.5, 0.0])})
    ties = ranking.near_ties(most=3)
    of_first = [f for f in ties if f.layer == 2]
    assert 1 <= len(of_first) <= 3
    assert 4 not in [f.latent for f in of_first]
    assert [f.latent for f in ties if f.layer == 5] == [0]
    assert [f.correlation for f in ties] == sorted((f.correlation for f in ties), reverse=True)
    assert set(ranking.best_per_layer()) <= set(ties)
    assert ranking.near_ties(most=1) == tuple(
        sorted(ranking.best_per_layer(), key=lambda f: -f.correlation)
    )


def test_a_ranking_keeps_the_top_of_every_layer():
    ranking = rank({FIRST: noisy([1.0] * 50)})
    assert len(ranking.by_layer[FIRST]) == TOP


def test_equal_outcomes_are_refused():
    with pytest.raises(InsufficientDataError, match="all 5 fit outcomes equal 1"):
        rank({FIRST: statistics(torch.rand(5, 2), torch.ones(5))})


def test_too_few_samples_are_refused():
    with pytest.raises(InsufficientDataError, match="only 3 fit samples"):
        rank({FIRST: statistics(torch.rand(3, 2), [0.0, 1.0, 0.0])})


def mixed(n=300, seed=2):
    """Latent 0 rises with the outcome, 1 falls, 2 is active or not by it, 3 is rare, 4 is noise."""
    generator = torch.Generator().manual_seed(seed)
    y = (torch.rand(n, generator=generator) < 0.5).float()
    z = torch.rand(n, 5, generator=generator)
    z[:, 0] += 0.4 * y
    z[:, 1] += 1 - y
    z[:, 2] *= ((y > 0) ^ (torch.rand(n, generator=generator) < 0.1)).float() * 8 + 0.01
    z[:, 3] *= torch.arange(n) < 3
    return z, y


@pytest.mark.parametrize(
    ("method", "statistic"),
    [("mi", "mutual_information"), ("fisher", "fisher_ratio"), ("contrast", "contrast")],
)
def test_other_methods_rank_by_their_own_statistic(method, statistic):
    stats = statistics(*mixed())
    expected = getattr(stats, statistic)()
    r = stats.correlation()
    ranking = rank({FIRST: stats}, method=method)
    chosen = ranking.by_layer[FIRST]
    assert [f.latent for f in chosen] == sorted(
        (i for i in range(5) if r[i] > 0), key=lambda i: -abs(expected[i])
    )
    for feature in chosen:
        assert feature.score == pytest.approx(float(expected[feature.latent]))
        assert feature.correlation == pytest.approx(float(r[feature.latent]))
    assert ranking.comparisons == 5


@pytest.mark.parametrize("method", ["corr", "mi", "fisher", "contrast"])
def test_signs_choose_among_features_of_success_failure_or_both(method):
    stats = statistics(*mixed())
    best = {
        sign: rank({FIRST: stats}, method=method, sign=sign).best()[0]
        for sign in ("positive", "negative", "both")
    }
    assert best["negative"].latent == 1
    assert best["negative"].correlation < 0
    assert best["negative"].score < 0
    assert best["both"] == max(best["positive"], best["negative"], key=lambda f: f.merit)


def test_negative_features_are_steered_away_from():
    z, y = mixed()
    stats = statistics(z, y)
    of = {
        kind: rank({FIRST: stats}, coefficient=kind, sign="negative").best()[0].coefficient
        for kind in ("positive", "contrast", "active")
    }
    ones, zeros = z[y > 0, 1].double(), z[y == 0, 1].double()
    assert of["positive"] == pytest.approx(-float(ones.mean()))
    assert of["contrast"] == pytest.approx(float(ones.mean() - zeros.mean()))
    assert of["active"] == pytest.approx(-float(ones[ones > 0].mean()))
    assert of["contrast"] < 0


def test_near_ties_of_negative_features_are_near_in_size():
    y = torch.tensor([0.0, 1.0] * 50)
    z = torch.stack([1 - y + 0.1 * torch.rand(100), 1 - y, torch.rand(100)], dim=1)
    ties = rank({FIRST: statistics(z, y)}, sign="negative").near_ties(3)
    assert {0, 1} >= {f.latent for f in ties} >= {1}
