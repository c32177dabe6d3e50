import dataclasses
import json

import numpy as np
import pytest
import torch

import corrsteer as cs
from corrsteer.errors import SettingsError
from corrsteer.hook_points import HookPoint
from corrsteer.method.evidence import family_wise, infer, permuted_null
from corrsteer.method.ranking import rank
from corrsteer.runs.activation_log import Entries, LogWriter
from corrsteer.settings import FitSettings
from corrsteer.stats.intervals import bootstrap_intervals
from corrsteer.stats.sample_size import smallest_correlation

HOOKS = [HookPoint(1, "resid_post"), HookPoint(4, "resid_post")]


@pytest.fixture
def data():
    """Statistics and log of two layers; latent 3 of the first goes with the outcome."""
    generator = torch.Generator().manual_seed(0)
    y = (torch.rand(120, generator=generator) < 0.5).double()
    writer, statistics = LogWriter({hook.name: 25 for hook in HOOKS}), {}
    pooled = {}
    for hook in HOOKS:
        z = torch.rand(120, 25, generator=generator) * (
            torch.rand(120, 25, generator=generator) < 0.3
        )
        if hook is HOOKS[0]:
            z[:, 3] += y
        z[:, 7] = 0
        pooled[hook.name] = z = z.half().float()
        statistics[hook] = cs.StreamingCorrelation(25).update(z, y)
    writer.add(Entries.of([str(i) for i in range(120)], y.tolist(), pooled))
    return statistics, writer.close()


def test_features_are_judged_by_permutations_of_all_layers(data):
    statistics, log = data
    ranking, found = infer(rank(statistics), log, FitSettings())
    assert found.p_method == "max-T permutation"
    assert found.comparisons == ranking.comparisons == 48
    best = ranking.best()[0]
    assert (best.layer, best.latent) == (1, 3)
    assert best.p_adjusted == pytest.approx(1 / 1001)
    assert best.p_method == "max-T permutation"
    other = ranking.by_layer[HOOKS[1]][0]
    assert other.p_adjusted > 0.05
    null = permuted_null(log, FitSettings())
    assert other.p_adjusted == pytest.approx(float(null.p_adjusted(other.correlation)))
    for features in ranking.by_layer.values():
        for feature in features:
            assert (feature.p_adjusted <= 0.05) == (feature.correlation > found.threshold)


def test_max_t_is_no_stricter_than_bonferroni_where_latents_are_alike(data):
    statistics, log = data
    _, found = infer(rank(statistics), log, FitSettings())
    bound = smallest_correlation(120, 48, 0.05)
    assert 0.8 * bound < found.threshold < 1.05 * bound


def test_features_carry_bootstrap_intervals_and_layers_their_stability(data):
    statistics, log = data
    ranking, found = infer(rank(statistics), log, FitSettings())
    best = ranking.best()[0]
    z = log.activations(best.hook_point)[[best.latent]].toarray()
    expected = bootstrap_intervals(z, log.outcomes, seed=42)[0]
    assert best.correlation_ci_bootstrap == pytest.approx(tuple(expected), abs=1e-12)
    assert best.correlation_ci_bootstrap[0] < best.correlation < best.correlation_ci_bootstrap[1]
    by_hook = found.stability_by_hook_point
    assert by_hook[HOOKS[0].name] == 1.0
    assert by_hook[HOOKS[1].name] < 0.6
    assert found.stability == pytest.approx(np.mean(list(by_hook.values())))


def test_without_a_log_the_bounds_are_analytic_and_it_is_said(data):
    statistics, log = data
    ranking = rank(statistics)
    same, found = infer(ranking, None, FitSettings(), "given up")
    assert same == ranking
    assert (found.p_method, found.permutations, found.note) == ("Bonferroni", 0, "given up")
    assert found.threshold == smallest_correlation(120, 48)
    without, found = infer(ranking, log, FitSettings(permutations=0))
    assert found.p_method == "Bonferroni"
    best = without.best()[0]
    assert best.p_adjusted == ranking.best()[0].p_adjusted
    assert best.correlation_ci_bootstrap is not None


def test_outcomes_can_be_permuted_for_a_null_study(data):
    _, log = data
    shuffled = np.random.default_rng(0).permutation(log.outcomes)
    settings = FitSettings(permutations=200)
    found = family_wise(log, settings, shuffled)
    assert np.isnan(found[HOOKS[0].name][7])
    assert found[HOOKS[0].name][3] > 0.05  # it goes with the outcomes as they were
    assert np.nanmin(found[HOOKS[1].name]) > 0.05
    assert family_wise(log, settings)[HOOKS[0].name][3] == pytest.approx(1 / 201)
    null = permuted_null(log, settings, shuffled)
    assert null.comparisons == 48
    assert abs(null.threshold(0.05) - permuted_null(log, settings).threshold(0.05)) < 0.05


def test_layers_without_a_feature_and_levels_at_the_ends_are_fine(data):
    statistics, log = data
    for alpha, threshold in ((0.0, 1.0), (1.0, 0.0)):
        for each in (log, None):
            assert infer(rank(statistics), each, FitSettings(alpha=alpha))[1].threshold == threshold
    none = FitSettings(min_frequency=1.0)
    ranking, found = infer(rank(statistics, min_frequency=1.0), log, none)
    assert set(ranking.by_layer.values()) == {()}
    assert (found.comparisons, found.stability) == (0, None)


def test_rare_latents_are_neither_selected_nor_compared(data):
    statistics, log = data
    often = rank(statistics, min_frequency=0.5)
    assert often.comparisons == 1
    assert [f.latent for f in often.best_per_layer()] == [3]
    _, found = infer(often, log, FitSettings(min_frequency=0.5))
    assert found.comparisons == 1
    with pytest.raises(SettingsError, match="min_frequency is 2"):
        FitSettings(min_frequency=2)


def test_q_values_are_scipys_over_all_layers(data):
    from scipy import stats

    statistics, _ = data
    p = {}
    for hook, each in statistics.items():
        for latent, r in enumerate(each.correlation().tolist()):
            if r == r:
                t = abs(r) * np.sqrt(118 / (1 - r * r))
                p[hook.name, latent] = 2 * stats.t.sf(t, 118)
    expected = dict(zip(p, stats.false_discovery_control(list(p.values())), strict=True))
    for features in rank(statistics).by_layer.values():
        for feature in features:
            assert feature.q_value == pytest.approx(expected[feature.key], abs=1e-9)


def test_runs_from_before_still_load(lm, tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": f"say {i}"}) for i in range(40)))
    task = cs.load_task(path, scorer=r"regex:^\s*[n-zN-Z0-4]", max_new_tokens=3)
    run = cs.fit(lm, task, strategy="A", log=False)
    folder = run.save(tmp_path / "run")
    features = json.loads((folder / "features.json").read_text())
    for each in (*features["selected"], *(f for fs in features["top"].values() for f in fs)):
        for name in ("q_value", "p_method", "correlation_ci_bootstrap"):
            del each[name]
    (folder / "features.json").write_text(json.dumps(features))
    document = json.loads((folder / "run.json").read_text())
    del document["inference"]
    for name in ("log", "permutations", "min_frequency"):
        del document["settings"][name]
    (folder / "run.json").write_text(json.dumps(document))
    back = cs.load_run(folder)
    assert back.inference is None
    assert back.features[0].p_method == "Bonferroni"
    assert back.features[0].q_value is None


def test_samples_that_belong_together_know_less(data):
    statistics, log = data
    pairs = dataclasses.replace(log, labels=tuple(str(int(each) // 4) for each in log.ids))
    (alone, _), (grouped, _) = (
        infer(rank(statistics), each, FitSettings()) for each in (log, pairs)
    )
    for before, after in zip(alone.best_per_layer(), grouped.best_per_layer(), strict=True):
        assert (before.latent, before.correlation) == (after.latent, after.correlation)
        assert np.ptp(before.correlation_ci) < np.ptp(after.correlation_ci)
        assert 0 < after.chosen_again <= 1


def test_rarely_active_features_have_no_bootstrap_interval():
    y = torch.arange(200).remainder(2).double()
    z = torch.zeros(200, 2)
    z[1:20:2, 0], z[:100, 1] = 1.0, 1.0
    z[1:20:2, 1] += 1
    writer, hook = LogWriter({HOOKS[0].name: 2}), HOOKS[0]
    writer.add(Entries.of([str(i) for i in range(200)], y.tolist(), {hook.name: z}))
    statistics = {hook: cs.StreamingCorrelation(2).update(z, y)}
    ranking, _ = infer(rank(statistics), writer.close(), FitSettings())
    found = {f.latent: f.correlation_ci_bootstrap for f in ranking.by_layer[hook]}
    assert found[0] is None
    assert found[1] is not None
