from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import SCORER
from test_decoding import residuals

import corrsteer as cs
from corrsteer.errors import CorrSteerError, InsufficientDataError, UnknownNameError
from corrsteer.lm.sae_placement import DeviceMemory, choose_handles, load_coders, settled
from corrsteer.lm.saes import LensSAE, VisitingSAE
from corrsteer.method.arms import ArmRunner
from corrsteer.method.collect import collect
from corrsteer.method.controls import random_controls
from corrsteer.method.fit import rows_of
from corrsteer.runs.steering import combine
from corrsteer.scoring.base import score
from corrsteer.scoring.registry import load_scorer
from corrsteer.settings import FitSettings
from corrsteer.stats.metrics import delta


def whole_data(lm, task, coders, pool):
    """Pooled activations and outcomes, computed one sample at a time without streaming."""
    z = {hook: [] for hook in coders}
    y = []
    for sample in task.fit:
        prompt = lm.prompt_ids(sample)
        out = lm.model.generate(
            torch.tensor([prompt]), max_new_tokens=task.max_new_tokens, do_sample=False
        )[0].tolist()
        reply = [t for t in out[len(prompt) :] if t not in lm.decoder.eos_ids]
        seen = residuals(lm, prompt + reply)
        for hook, coder in coders.items():
            at = seen[hook][len(prompt) - 1 : len(prompt) - 1 + len(reply)]
            with torch.no_grad():
                acts = coder.encode(at)
            pooled = acts.amax(0) if pool == "max" else acts.mean(0)
            z[hook].append(pooled if len(reply) else torch.zeros(coder.d_sae))
        y.append(score(task.scorer, lm.decode(reply), sample).outcome)
    return {h: torch.stack(rows).double().numpy() for h, rows in z.items()}, np.array(y)


@pytest.mark.parametrize("pool", ["max", "mean"])
def test_collected_statistics_equal_a_whole_data_computation(lm, task, pool):
    settings = FitSettings(pool=pool, steer_pool="mean", batch_size=7)
    coders = load_coders(choose_handles(lm, None), lm)
    collection = collect(lm, task, task.fit, coders, settings)
    z, y = whole_data(lm, task, coders, pool)
    z_steer, _ = whole_data(lm, task, coders, "mean")
    assert collection.n == len(y) == 30
    for hook, statistics in collection.statistics.items():
        with np.errstate(invalid="ignore", divide="ignore"):
            expected = np.corrcoef(z[hook].T, y)[-1, :-1]
        got = statistics.correlation().numpy()
        np.testing.assert_array_equal(np.isnan(got), np.ptp(z[hook], axis=0) == 0)
        np.testing.assert_allclose(got, np.where(np.isnan(got), np.nan, expected), atol=1e-4)
        np.testing.assert_allclose(
            statistics.coefficient().numpy(), z_steer[hook][y > 0].mean(0), atol=1e-4
        )


def test_batch_size_changes_nothing_beyond_rounding(lm, task):
    coders = load_coders(choose_handles(lm, None), lm)
    runs = [
        collect(lm, task, task.fit, coders, FitSettings(batch_size=size)).statistics
        for size in (1, 30)
    ]
    for hook in coders:
        one, other = (statistics[hook].correlation() for statistics in runs)
        torch.testing.assert_close(one, other, atol=1e-4, rtol=0, equal_nan=True)


def test_the_same_seed_and_batch_size_give_the_same_bits(lm, task):
    first, second = (cs.fit(lm, task, strategy="A", batch_size=8) for _ in range(2))
    for hook, statistics in first.statistics.items():
        other = second.statistics[hook].state()
        assert all(torch.equal(t, other[name]) for name, t in statistics.state().items())
    assert first.features == second.features


def test_samples_that_cannot_be_judged_leave_the_statistics_and_are_counted(lm, task):
    class Half:
        name, needs_target = "half", False

        def __call__(self, reply, sample):
            if int(sample.id[1:]) % 2:
                return cs.Score(None)
            return load_scorer(SCORER)(reply, sample)

    run = cs.fit(lm, replace(task, scorer=Half()), strategy="S")
    odd = sum(int(sample.id[1:]) % 2 for sample in task.fit)
    assert run.counts.unscored_fit == odd
    assert run.statistics["blocks.0.hook_resid_post"].n == 30 - odd
    evaluation = cs.evaluate(lm, replace(task, scorer=Half()), run.steering)
    assert evaluation.baseline.n + evaluation.unscored == len(task.test)


@pytest.mark.parametrize("strategy", ["S", "A", "P", "G"])
def test_every_strategy_makes_a_steering(lm, task, strategy):
    run = cs.fit(lm, task, strategy=strategy, strengths=(0.5, 1.0))
    layers = [feature.layer for feature in run.features]
    if strategy == "S":
        assert len(layers) == 1
    elif strategy == "A":
        assert layers == [0, 1, 2]
    else:
        assert set(run.features) <= {f for fs in run.top_features.values() for f in fs}
    assert run.steering.strength in (0.5, 1.0)
    trial = run.search.trials[0]
    assert trial.strategy == strategy


def test_arms_on_samples_that_belong_together_have_the_intervals_of_their_groups(lm, task):
    run = cs.fit(lm, task, strategy="A")
    grouped = tuple(replace(s, group=str(i // 2)) for i, s in enumerate(task.select))
    paired_up = replace(task, select=grouped)
    alone, together = (
        ArmRunner(lm, each, "select").compare([run.steering])[0] for each in (task, paired_up)
    )
    assert together.delta.value == alone.delta.value
    width = [found.delta.ci[1] - found.delta.ci[0] for found in (alone, together)]
    assert width[1] > width[0]
    runner = ArmRunner(lm, paired_up, "select")
    steered = runner.steered([run.steering])[0]
    before, after = runner.baseline.outcomes, steered.outcomes
    assert together.delta == delta(before, after, np.arange(len(before)) // 2)


def test_p_keeps_what_raises_accuracy_alone(lm, task):
    run_a, run_p = (cs.fit(lm, task, strategy=strategy) for strategy in "AP")
    runner = ArmRunner(lm, task, "select")
    rows = rows_of(set(run_a.features), lm.saes)
    alone = runner.compare([combine([feature], rows, lm) for feature in run_a.features])
    raising = [
        f for f, comparison in zip(run_a.features, alone, strict=True) if comparison.delta.value > 0
    ]
    assert list(run_p.features) == raising


def test_a_recommendation_is_significant_on_select_or_absent(lm, task):
    run = cs.fit(lm, task)
    recommended = run.search.recommended
    if recommended is None:
        assert run.features == ()
        assert run.steering.vectors == {}
    else:
        assert recommended.p_adjusted < 0.05
        assert recommended.delta.value > 0
    assert set(run.candidates) == {"S", "A", "P", "G", "dense", "denoised"}


def test_a_setting_that_lowers_accuracy_is_never_recommended(lm, task):
    """Under a scorer that only the baseline's own replies satisfy, nothing can help."""
    replies = lm.generate([sample.prompt for sample in task.select], task.max_new_tokens)
    own = {s.id: reply for s, reply in zip(task.select, replies, strict=True)}

    class Own:
        name, needs_target = "own", False

        def __call__(self, reply, sample):
            if sample.id in own:
                return cs.Score(float(reply == own[sample.id]))
            return load_scorer(SCORER)(reply, sample)

    run = cs.fit(lm, replace(task, scorer=Own()))
    assert run.search.recommended is None
    assert run.features == ()


def test_layers_are_chosen_and_unknown_ones_refused(lm, task):
    run = cs.fit(lm, task, strategy="A", layers=[0, 2])
    assert list(run.statistics) == ["blocks.0.hook_resid_post", "blocks.2.hook_resid_post"]
    with pytest.raises(UnknownNameError, match=r"layer 9 is not in 0\.\.2"):
        cs.fit(lm, task, layers=[9])


def test_raw_residual_dimensions_work_like_latents(hub, task):
    raw = cs.load_model(str(hub / "model"), sae="raw")
    run = cs.fit(raw, task, strategy="S")
    (feature,) = run.features
    vector = next(iter(run.steering.vectors.values()))
    assert vector.count_nonzero() == 1
    assert vector[feature.latent] == pytest.approx(feature.coefficient)


def test_hook_shift_reads_and_steers_elsewhere(hub, task):
    shifted = cs.load_model(str(hub / "model"), sae=str(hub / "saes"), hook_shift=-1)
    run = cs.fit(shifted, task, strategy="A")
    assert list(run.statistics) == ["blocks.0.hook_resid_post", "blocks.1.hook_resid_post"]
    assert [feature.layer for feature in run.features] == [1, 2]


def test_equal_outcomes_are_refused(lm, task_file):
    task = cs.load_task(task_file, scorer="regex:.*")
    with pytest.raises(InsufficientDataError, match="all 30 fit outcomes equal 1"):
        cs.fit(lm, task)


def test_an_unknown_setting_is_refused(lm, task):
    with pytest.raises(CorrSteerError, match="unknown setting 'samplse'; choose from strategy"):
        cs.fit(lm, task, samplse=3)  # type: ignore[call-arg]


def test_evaluation_of_no_steering_is_the_baseline(lm, task):
    evaluation = cs.evaluate(lm, task)
    assert evaluation.steered == evaluation.baseline
    assert evaluation.side_effects.ser is None
    assert evaluation.side_effects.unchanged == len(task.test)


def test_run_folder_round_trips(lm, task, tmp_path):
    run = cs.fit(lm, task, strategy="A")
    run.save(tmp_path / "run")
    back = cs.load_run(tmp_path / "run")
    assert back.features == run.features
    assert back.settings == run.settings
    assert back.provenance == run.provenance
    assert back.top_features == run.top_features
    for hook, statistics in run.statistics.items():
        assert torch.equal(
            back.statistics[hook].correlation().nan_to_num(9),
            statistics.correlation().nan_to_num(9),
        )
    for at, vector in run.steering.vectors.items():
        assert torch.equal(back.steering.vectors[at], vector)


def test_controls_match_norm_and_hook_points(lm, task):
    run = cs.fit(lm, task, strategy="A")
    controls = random_controls(run.steering, run.statistics, lm.saes, 5, seed=1)
    assert len(controls) == 5
    for control in controls:
        assert list(control.vectors) == list(run.steering.vectors)
        for hook, vector in control.vectors.items():
            own = run.steering.vectors[hook]
            torch.testing.assert_close(vector.norm(), own.norm())
            assert not torch.allclose(vector, own)
    again = random_controls(run.steering, run.statistics, lm.saes, 5, seed=1)
    hook = next(iter(run.steering.vectors))
    assert torch.equal(again[4].vectors[hook], controls[4].vectors[hook])


def test_saes_that_do_not_fit_visit_the_model_and_give_the_same(lm, task, monkeypatch, caplog):
    handles = choose_handles(lm, None)
    beside = load_coders(handles, lm)
    left = iter([100, 60, 50, 50])  # before the first SAE, after it, before the others
    monkeypatch.setattr(
        "corrsteer.lm.sae_placement.memory_of", lambda device: DeviceMemory(next(left), 100)
    )
    with caplog.at_level("INFO", logger="corrsteer"):
        visiting = load_coders(handles, lm)
    assert [type(coder).__name__ for coder in visiting.values()] == [
        "LensSAE",
        "VisitingSAE",
        "VisitingSAE",
    ]
    assert "2 of 3 SAEs do not fit beside the model" in caplog.text
    monkeypatch.undo()
    found = [collect(lm, task, task.fit, coders, FitSettings()) for coders in (beside, visiting)]
    for hook, statistics in found[0].statistics.items():
        for name, tensor in statistics.state().items():
            assert torch.equal(found[1].statistics[hook].state()[name], tensor)
    for coder in list(visiting.values())[1:]:
        assert isinstance(coder, VisitingSAE)
        assert {weight.device.type for weight in coder._visitor.weights().values()} == {"meta"}


def test_saes_that_were_sent_settle_where_there_is_room(lm, task, monkeypatch):
    handles = choose_handles(lm, None)
    expected = collect(lm, task, task.fit, load_coders(handles, lm), FitSettings())
    coders = {handle.hook_point: handle.load(lm.device) for handle in handles}
    second = coders[handles[1].hook_point]
    assert isinstance(second, LensSAE)
    size = sum(weight.nbytes for weight in second.weights().values())
    left = iter([2 * size, size // 2, 2 * size])
    monkeypatch.setattr(
        "corrsteer.lm.sae_placement.memory_of", lambda device: DeviceMemory(next(left), 1)
    )
    found = settled(coders, lm)
    assert [type(coder).__name__ for coder in found.values()] == [
        "LensSAE",
        "VisitingSAE",
        "LensSAE",
    ]
    monkeypatch.undo()
    again = collect(lm, task, task.fit, found, FitSettings())
    for hook, statistics in expected.statistics.items():
        for name, tensor in statistics.state().items():
            assert torch.equal(again.statistics[hook].state()[name], tensor)
