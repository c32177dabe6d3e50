"""Where the paper's code departs from its text, what ours does instead.

The numbers are those of the record of that code (commit 1ebf252 of
https://github.com/seonglae/CorrSteer); where both do the same, tests/test_oracle.py compares them.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

import corrsteer as cs
from corrsteer.lm.decoding import greedy
from corrsteer.lm.sae_placement import choose_handles, load_coders
from corrsteer.method.collect import collect
from corrsteer.settings import FitSettings


def collected(lm, task, samples, **settings):
    coders = load_coders(choose_handles(lm, None), lm)
    return collect(lm, task, samples, coders, FitSettings(**settings))


def test_as_many_samples_as_asked_for(lm, task):
    """18: theirs goes on to the end of the batch."""
    run = cs.fit(lm, task, strategy="S", samples=5, batch_size=4)
    assert {statistics.n for statistics in run.statistics.values()} == {5}


def test_s_steers_one_layer(lm, task):
    """7: theirs steers every layer under `--layer=global`."""
    assert len(cs.fit(lm, task, strategy="S").steering.vectors) == 1


def test_a_keeps_every_layer_whatever_validation_says(lm, task):
    """8: theirs always validates under `--layer=foreach`."""
    assert len(cs.fit(lm, task, strategy="A").steering.vectors) == len(lm.saes)


def test_all_positions_are_those_of_the_prompt_and_not_of_the_padding(lm, task):
    """6: theirs pools the first positions of the padded prompt."""
    alone, padded = (
        collected(lm, task, task.fit[:8], positions="all", batch_size=size) for size in (1, 8)
    )
    for hook, statistics in alone.statistics.items():
        sums = padded.statistics[hook].sum_positive, statistics.sum_positive
        torch.testing.assert_close(*sums, rtol=1e-5, atol=1e-5)
    generated = collected(lm, task, task.fit[:8])
    assert any(
        not torch.equal(alone.statistics[hook].sum_positive, statistics.sum_positive)
        for hook, statistics in generated.statistics.items()
    )


def test_a_reply_that_ends_at_once_has_no_position(lm, task, monkeypatch):
    """Theirs pools the last prompt position of such a reply where a task has replies of a token."""
    samples = task.fit[:8]
    before = collected(lm, task, samples)
    replies = greedy(lm.decoder, [lm.prompt_ids(sample) for sample in samples], 1)
    ends = frozenset(token for reply in replies for token in reply)
    monkeypatch.setitem(vars(lm), "decoder", replace(lm.decoder, eos_ids=ends))
    for hook, statistics in collected(lm, task, samples).statistics.items():
        assert statistics.n == before.statistics[hook].n == 8
        assert before.statistics[hook].active.any()
        assert not statistics.active.any()


def test_raw_dimensions_are_validated_like_latents(hub, task):
    """13: theirs crashes under `--layer=foreach --raw`."""
    lm = cs.load_model(str(hub / "model"), sae="raw")
    run = cs.fit(lm, task, strategy="P")
    assert run.search.comparisons >= len(lm.saes)


def test_solved_examples_are_shown_while_collecting_too():
    """15: theirs shows them in evaluation only."""
    shown = cs.load_task("mini-mmlu", few=2)
    opening = shown.test[0].prompt[: shown.test[0].prompt.rindex("Subject:")]
    assert opening.count("Answer:") == 2
    assert all(sample.prompt.startswith(opening) for sample in (*shown.fit, *shown.select))


def test_frequencies_among_the_right_are_shares_of_the_right(lm, task):
    """19: theirs divides both by the number of all samples."""
    run = cs.fit(lm, task, strategy="A")
    statistics = next(iter(run.statistics.values()))
    n, right = statistics.n, statistics.n_positive
    assert 0 < right < n
    everywhere = (statistics.active == n).nonzero()[:, 0]
    assert len(everywhere)
    assert np.allclose(statistics.frequency("positive")[everywhere], 1)
    assert np.allclose(statistics.frequency("rest")[everywhere], 1)


def test_variance_of_a_latent_far_from_zero_is_exact():
    """22: theirs takes E[z^2] - E[z]^2, which loses every digit there."""
    z = 1e6 + torch.randn(200, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = (torch.arange(200) % 2).double()
    found = cs.StreamingCorrelation(3).update(z, y).correlation()
    expected = [np.corrcoef(z[:, i], y)[0, 1] for i in range(3)]
    np.testing.assert_allclose(found, expected, atol=1e-10)


@pytest.mark.parametrize("name", ["xstest", "mmlu-pro"])
def test_every_task_is_known(name):
    """12: theirs crashes on xstest for a missing comma."""
    from corrsteer.tasks import known_tasks

    assert name in known_tasks()
