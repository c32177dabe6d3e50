"""The arm of dense directions: its vectors, its search, its controls, and what is told of it."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

import corrsteer as cs
from corrsteer.errors import SettingsError
from corrsteer.export import export
from corrsteer.hook_points import HookPoint, in_words
from corrsteer.lm.models import LanguageModel
from corrsteer.method.arms import ArmRunner
from corrsteer.method.candidates import Candidate, Setting, alone_and_together, dense, probe
from corrsteer.method.controls import random_directions
from corrsteer.method.ladder import FIRST, SECOND, Ladder
from corrsteer.method.ranking import Ranking
from corrsteer.method.splitting import Halves, Proving
from corrsteer.method.strategies import Searcher
from corrsteer.method.train import train
from corrsteer.report import render
from corrsteer.runs.comparison import PairedOutcomes
from corrsteer.runs.records import as_json
from corrsteer.runs.steering import Steering
from corrsteer.runs.verdict import judge
from corrsteer.settings import FitSettings

HOOKS = [HookPoint(layer, "resid_post") for layer in range(3)]


@pytest.fixture(scope="module")
def found(lm, task_file, tmp_path_factory):
    """A run that steers by a dense direction, with what is told of it, and its folder."""
    from conftest import SCORER

    task = cs.load_task(task_file, scorer=SCORER, max_new_tokens=3)
    folder = tmp_path_factory.mktemp("dense") / "run"
    settings = FitSettings(strategy="dense", controls=2, strengths=(0.5, 4.0))
    run, document = train(lm, task, (), settings, folder)
    return run, document, folder


def test_the_candidates_are_each_layers_difference_of_means_and_all_together(lm, task):
    run = cs.fit(lm, task, strategy="S")
    means = {HookPoint.parse(name): each for name, each in run.means.items()}
    *alone, together = dense(means)
    assert [list(each.vectors) for each in alone] == [[hook] for hook in HOOKS]
    assert list(together.vectors) == HOOKS
    for hook, each in means.items():
        residual = each.residual
        expected = residual.positive / residual.n_positive - residual.zero / residual.n_zero
        torch.testing.assert_close(together.vectors[hook], expected.float())
    assert {each.direction for each in (*alone, together)} == {"difference of means"}
    assert len({each.key for each in (*alone, together)}) == 4


def test_a_dense_steering_says_what_it_is_everywhere(found, tmp_path):
    run, document, folder = found
    assert run.steering.vectors
    assert run.features == ()
    assert run.steering.described.startswith(("layer ", "3 layers, 0 to 2, difference"))
    told = json.loads((folder / "evaluation.json").read_text())
    assert told["direction"] == "difference of means"
    assert [each["hook_point"] for each in told["vectors"]] == [
        h.name for h in run.steering.vectors
    ]
    assert told["strategies"]["dense"]["vectors"] == told["vectors"]
    assert told["strategies"]["dense"]["why"]
    back = cs.load_run(folder)
    assert back.steering.metadata["strategy"] == "dense"
    assert back.steering.described == run.steering.described
    assert as_json(back.evaluation)["vectors"] == as_json(document)["vectors"]
    assert run.steering.described in render(back)
    assert run.steering.described in repr(back.steering)
    card = str(back.steering.generate_model_card())
    assert "difference of means" in card
    assert "| latent |" not in card
    export(back.steering, "torch", tmp_path / "torch")
    shared = Steering.load(tmp_path / "torch")
    assert shared.described == run.steering.described


def test_random_directions_have_the_norm_and_places_of_the_steering(found):
    steering = found[0].steering
    controls = random_directions(steering, 3, seed=1)
    for control in controls:
        assert list(control.vectors) == list(steering.vectors)
        assert control.direction == steering.direction
        for hook, vector in control.vectors.items():
            torch.testing.assert_close(vector.norm(), steering.vectors[hook].norm())
            cosine = torch.cosine_similarity(vector, steering.vectors[hook], dim=0)
            assert abs(float(cosine)) < 0.99
    again = random_directions(steering, 3, seed=1)
    hook = next(iter(steering.vectors))
    assert torch.equal(again[2].vectors[hook], controls[2].vectors[hook])
    assert not torch.equal(controls[0].vectors[hook], controls[1].vectors[hook])


def test_an_arm_alone_and_arms_by_name(lm, task):
    run = cs.fit(lm, task, arms=("A", "dense"))
    assert set(run.candidates) == {"A", "dense"}
    assert {trial.strategy for trial in run.search.trials} == {"A", "dense"}
    with pytest.raises(SettingsError, match=r"arms is 'Z'|arms is"):
        FitSettings.of(arms=("A", "Z"))
    with pytest.raises(SettingsError, match="name one or more, each once"):
        FitSettings(arms=("A", "A"))


def test_arms_that_nothing_was_collected_for_are_not_offered(lm, task, caplog):
    whole = cs.fit(lm, task, arms=("A",))
    early = replace(whole, means={})
    with caplog.at_level("WARNING", "corrsteer"):
        again = cs.fit(lm, task, collected=early)
    assert "dense, denoised cannot be tried: what was collected has no residuals" in caplog.text
    assert set(again.candidates) == {"S", "A", "P", "G"}
    with pytest.raises(SettingsError, match="dense cannot be tried"):
        cs.fit(lm, task, collected=early, strategy="dense")


def test_a_denoised_direction_is_made_of_the_latents_of_largest_contrast(lm, task):
    run = cs.fit(lm, task, arms=("A", "denoised", "topk"), pool="max")
    assert set(run.candidates) == {"A", "denoised", "topk"}
    steering = run.candidates["denoised"]
    assert steering.vectors
    by_hook = {}
    for feature in steering.features:
        by_hook.setdefault(feature.hook_point, []).append(feature)
    for hook, features in by_hook.items():
        contrast = run.means[hook].latents.contrast()
        order = contrast.abs().argsort(descending=True)[: len(features)]
        assert {feature.latent for feature in features} == set(order.tolist())
        for feature in features:
            assert feature.coefficient == pytest.approx(float(contrast[feature.latent]))
            assert feature.p_method == "max-T permutation"
        (handle,) = (each for each in lm.saes if each.hook_point.name == hook)
        rows = handle.decoder_rows(order.tolist())
        expected = (contrast[order].float()[:, None] * rows).sum(0)
        torch.testing.assert_close(steering.vectors[HookPoint.parse(hook)], expected)


def test_a_probe_is_a_logistic_direction_of_the_length_of_the_difference(lm, task):
    run = cs.fit(lm, task, arms=("probe",))
    steering = run.candidates["probe"]
    assert steering.direction == "logistic direction"
    for name, each in run.means.items():
        right = each.kept.outcomes > 0
        values = each.kept.values.double()
        scaled = (values - values.mean(0)) / values.std(0, correction=0)
        model = LogisticRegression(max_iter=1000).fit(scaled.numpy(), right.numpy())
        expected = torch.from_numpy(model.coef_[0]) / values.std(0, correction=0)
        (own,) = (c for c in probe({HookPoint.parse(name): each}))
        vector = own.vectors[HookPoint.parse(name)].double()
        assert float(torch.cosine_similarity(vector, expected, dim=0)) == pytest.approx(1)
        length = float(each.residual.contrast().norm())
        assert float(vector.norm()) == pytest.approx(length, rel=1e-5)
    assert all(each.kept is None for each in cs.fit(lm, task, strategy="A").means.values())


def test_a_probe_without_scikit_learn_names_the_remedy(monkeypatch, lm, task):
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(SettingsError, match=r"pip install 'corrsteer\[probe\]'"):
        cs.fit(lm, task, arms=("probe",))


def test_topk_takes_the_best_features_of_every_layer(lm, task):
    run = cs.fit(lm, task, arms=("topk",))
    counts = {len(trial.features) for trial in run.search.trials}
    assert counts <= {6, 9, 15, 30}
    for trial in run.search.trials:
        per_layer = len(trial.features) // 3
        best = {f.key for top in run.top_features.values() for f in top[:per_layer]}
        assert {tuple(key) for key in trial.features} == best
        assert trial.where == f"3 layers, 0 to 2, {len(trial.features)} latents"


class Scripted:
    """Stands in for a model: a setting's gain is that of its hook point and strength."""

    def __init__(self, lm, n, gains, name="scripted"):
        self.lm, self.groups = lm, np.arange(n)
        self.task = replace(_named(name))
        self.gains, self.ran = gains, []

    def outcomes(self, steerings, name="steered", rows=None):
        n = len(self.groups)
        rows = np.ones(n, dtype=bool) if rows is None else rows
        self.ran.append((len(steerings), int(rows.sum())))
        found = []
        for steering in steerings:
            layers = [hook.layer for hook in steering.vectors]
            gain = self.gains(layers, steering.strength)
            before = np.full(n, 0.5)
            after = before + np.where(
                np.arange(n) % 40 < round(40 * abs(gain)), np.sign(gain) * 0.5, 0
            )
            same = before == after
            found.append(PairedOutcomes(before, after, same, self.groups).part(rows))
        return found


def _named(name):
    from corrsteer.scoring.rules import RULES
    from corrsteer.tasks import Task

    return Task(name, (), (), (), RULES["exact"], 1)


def searched(lm: LanguageModel, gains, harm, layers=6):
    vectors = {HookPoint(layer, "resid_post"): torch.ones(2) for layer in range(layers)}
    grid = alone_and_together("dense", vectors, "difference of means")
    task, guard = Scripted(lm, 400, gains), Scripted(lm, 600, harm, "guard")
    proving = Proving(task, Halves.of(task.groups, 0))
    guarding = Proving(guard, Halves.of(guard.groups, 0))
    settings = FitSettings(arms=("dense",))
    ranking = Ranking({}, 0, 100)
    search = Searcher(proving, [guarding], ranking, {}, settings, {"dense": grid}).run()
    return search, task, guard


def test_the_layer_and_strength_that_gain_most_are_found_on_few_samples(lm):
    def gains(layers, strength):
        return {(3,): 0.4, (4,): 0.2}.get(tuple(layers), 0.0) * (strength == 2.0)

    search, task, _ = searched(lm, gains, lambda layers, strength: 0.0)
    assert search.record.recommended.hook_points == (HOOKS[0].shifted(3).name,)
    assert search.record.recommended.strength == 2.0
    assert search.record.comparisons == 42
    assert len(search.record.trials) == 6
    assert task.ran[:3] == [(42, FIRST), (12, SECOND), (6, 400)]


def test_where_a_guard_speaks_against_the_best_the_next_of_the_arm_is_asked(lm):
    search, *_ = searched(
        lm,
        lambda layers, strength: 0.1 * strength if layers == [3] else 0.0,
        lambda layers, strength: -0.1 if strength > 1 else 0.0,
    )
    assert search.record.recommended.strength == 1.0
    assert not any(trial.harmed(0.03) for trial in search.record.trials if trial.confirmed)


def test_of_several_that_are_confirmed_the_one_that_does_best_is_recommended(lm):
    grid = {
        "dense": [Candidate("dense", {HOOKS[0]: torch.ones(2)}, direction="difference of means")]
    }
    settings = FitSettings(arms=("dense",), strengths=(1.0,))
    task = Scripted(lm, 400, lambda layers, strength: 0.3)
    proving = Proving(task, Halves.of(task.groups, 0))
    search = Searcher(proving, [], Ranking({}, 0, 100), {}, settings, grid).run()
    assert search.recommended is not None
    assert search.recommended.strength == 1.0
    assert search.record.recommended.where == "layer 0"


def test_a_ladder_leaves_short_fields_alone_and_drops_what_harms(lm):
    task = Scripted(lm, 400, lambda layers, strength: strength / 10)
    ladder = Ladder(task, np.ones(400, dtype=bool), seed=0)
    field = [
        Setting(Candidate("dense", {HOOKS[0]: torch.ones(2)}, direction="d"), strength).steering(
            lm, "generated"
        )
        for strength in (1.0, 3.0, 2.0, 4.0, 0.5)
    ]
    assert ladder.climb([field[:2]], most=2) == [[0, 1]]
    assert task.ran == []
    assert ladder.climb([field], most=2) == [[1, 3]]
    mild = ladder.climb([field], 1, lambda some, rung: [each.strength < 4 for each in some])
    assert mild == [[1]]


def test_where_all_that_gains_harms_nothing_is_recommended(lm):
    search, *_ = searched(lm, lambda layers, strength: 0.3, lambda layers, strength: -0.5)
    assert search.recommended is None
    assert search.record.trials == ()
    assert not search.chosen["dense"].vectors
    verdict = judge(search.record, None, (), FitSettings())
    assert verdict.kind == "no-effect"
    assert "harms a guard task" in verdict.text


def test_what_gains_less_and_harms_nothing_is_left_when_all_that_gains_more_harms(lm):
    search, *_ = searched(
        lm,
        lambda layers, strength: 0.1 if strength == 0.25 else 0.5,
        lambda layers, strength: -0.5 if strength > 0.25 else 0.0,
    )
    assert search.record.recommended.strength == 0.25


def test_a_part_of_the_samples_has_the_outcomes_of_the_whole(lm, task):
    run = cs.fit(lm, task, strategy="A")
    rows = np.arange(len(task.select)) % 3 == 0
    whole = ArmRunner(lm, task, "select").outcomes([run.steering])[0].part(rows)
    part = ArmRunner(lm, task, "select").outcomes([run.steering], rows=rows)[0]
    for name in ("before", "after", "same", "groups"):
        np.testing.assert_array_equal(getattr(part, name), getattr(whole, name))


def test_layers_are_told_in_words():
    assert in_words(["blocks.4.hook_resid_post"]) == "layer 4"
    assert in_words(["blocks.4.hook_mlp_out"]) == "layer 4 (mlp_out)"
    assert in_words([hook.name for hook in HOOKS]) == "3 layers, 0 to 2"
