"""Differences of means: streamed over batches, merged, stored, and what is refused."""

import numpy as np
import pytest
import torch
from test_decoding import residuals
from test_fit import whole_data

import corrsteer as cs
from corrsteer.errors import ArtifactError, InsufficientDataError, NonFiniteError
from corrsteer.files import write_whole
from corrsteer.lm.sae_placement import choose_handles, load_coders
from corrsteer.method.collect import collect
from corrsteer.method.reselect import merge, select
from corrsteer.method.shards import Shard, collect_shard
from corrsteer.runs.statistics_file import STATISTICS_FILE, read_statistics, statistics_bytes
from corrsteer.settings import FitSettings
from corrsteer.stats.outcome_sums import OutcomeSums


def test_the_contrast_is_the_difference_of_means_under_any_batching():
    x = torch.randn(40, 6, dtype=torch.float64) + 1e6
    y = (torch.arange(40) % 3 == 0).double()
    whole, parts = OutcomeSums(6).update(x, y), OutcomeSums(6)
    for rows in torch.split(torch.arange(40), [1, 7, 20, 12]):
        parts.merge(OutcomeSums(6).update(x[rows], y[rows]))
    expected = x[y > 0].mean(0) - x[y == 0].mean(0)
    for sums in (whole, parts):
        torch.testing.assert_close(sums.contrast(), expected, atol=1e-8, rtol=0)
        assert (sums.n_positive, sums.n_zero) == (14, 26)
    back = OutcomeSums.from_state(parts.state())
    assert torch.equal(back.contrast(), parts.contrast())


def test_one_outcome_alone_has_no_difference_and_nan_is_refused():
    sums = OutcomeSums(2).update(torch.ones(3, 2), torch.ones(3))
    with pytest.raises(InsufficientDataError, match="3 fit outcomes are above 0 and 0 equal 0"):
        sums.contrast()
    with pytest.raises(NonFiniteError, match="residuals hold NaN"):
        sums.update(torch.full((1, 2), torch.nan), torch.ones(1))
    assert sums.n_positive == 3
    with pytest.raises(ArtifactError, match="length 3 cannot be merged into 2"):
        sums.merge(OutcomeSums(3))


@pytest.mark.parametrize(
    "changes",
    [
        {"positive": torch.zeros(3, dtype=torch.float64)},
        {"zero": torch.zeros(2)},
        {"counts": torch.tensor([1, -1])},
        {"zero": torch.full((2,), torch.nan, dtype=torch.float64)},
    ],
)
def test_sums_of_no_samples_are_refused(changes):
    with pytest.raises(ArtifactError):
        OutcomeSums.from_state(OutcomeSums(2).state() | changes)


@pytest.mark.parametrize("pool", ["max", "mean"])
def test_residuals_are_pooled_by_mean_whatever_the_pool(lm, task, pool):
    coders = load_coders(choose_handles(lm, None), lm)
    found = collect(lm, task, task.fit, coders, FitSettings(pool=pool, batch_size=7)).means
    z, y = whole_data(lm, task, coders, "mean")
    hidden = {hook: [] for hook in coders}
    for sample in task.fit:
        prompt = lm.prompt_ids(sample)
        out = lm.model.generate(
            torch.tensor([prompt]), max_new_tokens=task.max_new_tokens, do_sample=False
        )[0].tolist()
        reply = [token for token in out[len(prompt) :] if token not in lm.decoder.eos_ids]
        seen = residuals(lm, prompt + reply)
        for hook in coders:
            at = seen[hook][len(prompt) - 1 : len(prompt) - 1 + len(reply)].float()
            hidden[hook].append(at.mean(0) if len(at) else torch.zeros(lm.d_model))
    for hook, means in found.items():
        rows = torch.stack(hidden[hook]).double().numpy()
        np.testing.assert_allclose(
            means.residual.contrast(), rows[y > 0].mean(0) - rows[y == 0].mean(0), atol=1e-5
        )
        np.testing.assert_allclose(
            means.latents.contrast(), z[hook][y > 0].mean(0) - z[hook][y == 0].mean(0), atol=1e-5
        )


def test_shards_add_up_and_runs_keep_them(lm, task, tmp_path):
    settings = FitSettings(strategy="A", batch_size=5)
    whole = cs.fit(lm, task, strategy="A", batch_size=5)
    for number in (1, 2):
        shard = collect_shard(lm, task, Shard(number, 2), settings)
        shard.save(tmp_path / str(number))
    parts = {str(number): cs.load_run(tmp_path / str(number)) for number in (1, 2)}
    together = merge(parts)
    for hook, means in whole.means.items():
        for part in ("residual", "latents"):
            own, added = getattr(means, part), getattr(together.means[hook], part)
            torch.testing.assert_close(added.contrast(), own.contrast(), atol=1e-6, rtol=0)
    whole.save(tmp_path / "whole")
    back = cs.load_run(tmp_path / "whole")
    stored = (tmp_path / "whole" / STATISTICS_FILE).read_bytes()
    assert statistics_bytes(back.statistics, back.means) == stored
    assert select(back, strategy="S").means == back.means


def test_a_run_from_before_has_none_and_merges_without(lm, task, tmp_path):
    run = cs.fit(lm, task, strategy="A")
    run.means = {}
    run.save(tmp_path / "early")
    early = cs.load_run(tmp_path / "early")
    assert early.means == {}
    assert {*read_statistics(tmp_path / "early" / STATISTICS_FILE).statistics} == {*run.statistics}
    assert merge({"early": early, "again": cs.fit(lm, task, strategy="A")}).means == {}


def test_residuals_of_other_samples_are_refused(lm, task, tmp_path):
    run = cs.fit(lm, task, strategy="A")
    hook = next(iter(run.means))
    path = tmp_path / STATISTICS_FILE
    run.means[hook].residual.n_zero += 1
    write_whole(path, statistics_bytes(run.statistics, run.means))
    with pytest.raises(ArtifactError, match="residuals of other samples"):
        read_statistics(path)
    write_whole(path, statistics_bytes(run.statistics, {hook: run.means[hook].like()}))
    with pytest.raises(ArtifactError, match="residuals of"):
        read_statistics(path)
