"""What holds for any input: statistics, pooling, round trips and splits, by Hypothesis."""

import contextlib
import itertools
import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import corrsteer as cs
from corrsteer.errors import DataError
from corrsteer.hook_points import HookPoint
from corrsteer.method.pooling import RunningPool
from corrsteer.runs.run import Counts
from corrsteer.runs.steering import Steering
from corrsteer.stats.batch_moments import _dense, moments_of
from corrsteer.stats.correlation import StreamingCorrelation

settings.register_profile("quick", max_examples=40, deadline=None, database=None)
settings.register_profile("ci", settings.get_profile("quick"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "quick")

VALUES = st.one_of(st.just(0.0), st.floats(-100, 100, width=32, allow_subnormal=False))


@st.composite
def activations(draw):
    """Activations [samples, latents], from empty to dense, and outcomes."""
    n, d_sae = draw(st.integers(2, 12)), draw(st.integers(1, 4))
    z = draw(arrays.arrays(np.float32, (n, d_sae), elements=VALUES))
    z *= draw(st.sampled_from([1.0, 0.0])) + draw(st.sampled_from([0.0, 1.0])) * (z > 50)
    graded = draw(st.booleans())
    outcomes = st.floats(0, 1, allow_subnormal=False) if graded else st.sampled_from([0.0, 1.0])
    y = draw(arrays.arrays(np.float64, n, elements=outcomes))
    return torch.from_numpy(z.astype(np.float32)), torch.from_numpy(y)


def close(found, expected, scale=1.0):
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9 * scale)


@given(activations(), st.lists(st.integers(1, 11)), st.integers(0, 12))
def test_statistics_do_not_depend_on_how_samples_come(data, cuts, joint):
    z, y = data
    places = sorted({0, len(y), *(cut for cut in cuts if cut < len(y))})
    left, right = StreamingCorrelation(z.shape[1]), StreamingCorrelation(z.shape[1])
    for first, last in itertools.pairwise(places):
        (left if first < joint else right).update(z[first:last], y[first:last])
    found = left.merge(right)
    z, y = z.double().numpy(), y.numpy()
    assert found.n == len(y)
    close(found.mean_z + found.first_z, z.mean(0), 100)
    close(found.m2_z, ((z - z.mean(0)) ** 2).sum(0), 1e5)
    close(found.c_zy, ((z - z.mean(0)) * (y - y.mean())[:, None]).sum(0), 1e3)
    close(found.m2_y, ((y - y.mean()) ** 2).sum())
    close(found.sum_positive, z[y > 0].sum(0), 1e3)
    close(found.sum_zero, z[y == 0].sum(0), 1e3)
    np.testing.assert_array_equal(found.active, (z > 0).sum(0))
    np.testing.assert_array_equal(found.histogram.sum((1, 2)), (z > 0).sum(0))
    r = found.correlation()
    assert (r.isnan() | (r.abs() <= 1)).all()


@given(activations())
def test_sparse_and_dense_blocks_agree(data):
    z, y = data
    found, expected = moments_of(z, y), _dense(z.double(), y, None)
    for name in ("m2_z", "c_zy", "sum_positive", "sum_zero", "m2_positive", "m2_zero"):
        close(getattr(found, name), getattr(expected, name), 1e5)
    close(found.mean_z + found.first_z, expected.mean_z + expected.first_z, 100)
    for name in ("n", "n_positive", "n_zero"):
        assert getattr(found, name) == getattr(expected, name)
    assert torch.equal(found.active, expected.active)
    assert torch.equal(found.active_positive, expected.active_positive)


@given(activations())
def test_statistics_come_back_from_their_state_exactly(data):
    z, y = data
    before = StreamingCorrelation(z.shape[1]).update(z, y)
    after = StreamingCorrelation.from_state(before.state())
    for name, tensor in before.state().items():
        assert torch.equal(tensor, after.state()[name])


@given(
    arrays.arrays(np.float32, (5, 3, 4), elements=VALUES),
    arrays.arrays(np.bool_, (5, 3)),
    st.sampled_from(["max", "mean", "first"]),
)
def test_pooling_is_that_of_all_positions_at_once(z, there, kind):
    pool = RunningPool(kind, 3, 4)
    for step, here in zip(z, there, strict=True):
        rows = np.flatnonzero(here)
        pool.update(torch.from_numpy(rows), torch.from_numpy(step[rows])[None])
    for sample, found in enumerate(pool.result().numpy()):
        seen = z[there[:, sample], sample]
        seen = seen.astype(np.float64) if len(seen) else np.zeros((1, 4))
        expected = seen[0] if kind == "first" else getattr(seen, kind)(0)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
HOOKS = st.builds(HookPoint, st.integers(0, 99_999), st.sampled_from(["resid_pre", "resid_post"]))
OWN = {"schema", "model", "revision", "scope", "strength", "features"}


@given(
    st.dictionaries(HOOKS, arrays.arrays(np.float32, 3, elements=VALUES), max_size=4),
    TEXTS,
    st.none() | TEXTS.filter(bool),
    st.sampled_from(["generated", "all"]),
    st.floats(-1e4, 1e4),
    st.dictionaries(TEXTS.filter(lambda name: name not in OWN), TEXTS, max_size=3),
)
def test_a_steering_comes_back_from_its_file(vectors, model, revision, positions, strength, about):
    vectors = {hook: torch.from_numpy(vector) for hook, vector in vectors.items()}
    before = Steering(vectors, (), model, revision, positions, strength, about)
    with tempfile.TemporaryDirectory() as folder:
        after = Steering.load(before.save(folder))
    assert replace(after, vectors={}) == replace(before, vectors={})
    assert list(after.vectors) == sorted(vectors, key=lambda hook: hook.order)
    assert all(torch.equal(after.vectors[hook], vectors[hook]) for hook in vectors)


@pytest.fixture(scope="module")
def fitted(lm, task_file):
    from conftest import SCORER

    task = cs.load_task(task_file, scorer=SCORER, max_new_tokens=2)
    return cs.fit(lm, task, strategy="S", permutations=0)


@settings(max_examples=10)
@given(
    TEXTS,
    st.fixed_dictionaries(
        {
            "n_fit": st.integers(0),
            "seconds": st.dictionaries(TEXTS, st.floats(0, 1e9), max_size=3),
            "shard": TEXTS | st.none(),
            "merged": st.lists(TEXTS, max_size=3).map(tuple),
        }
    ),
)
def test_a_run_comes_back_from_its_folder(fitted, text, counts):
    before = replace(
        fitted, provenance=replace(fitted.provenance, task=f"a{text}"), counts=Counts(**counts)
    )
    with tempfile.TemporaryDirectory() as folder:
        after = cs.load_run(before.save(Path(folder) / "run"))
    for name in ("provenance", "settings", "features", "top_features", "counts"):
        assert getattr(after, name) == getattr(before, name)
    for hook, each in before.statistics.items():
        states = each.state(), after.statistics[hook].state()
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@given(st.lists(TEXTS.filter(bool), min_size=1, max_size=30), st.integers(0, 2**32 - 1))
def test_splits_hold_every_row_once_and_are_the_seeds(prompts, seed):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.jsonl"
        rows = [{"prompt": prompt} for prompt in prompts]
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        task = cs.load_task(path, scorer="regex:a", seed=seed)
        again = cs.load_task(path, scorer="regex:a", seed=seed)
    splits = [task.fit, task.select, task.test]
    assert splits == [again.fit, again.select, again.test]
    ids = [sample.id for split in splits for sample in split]
    assert sorted(ids, key=int) == [str(index) for index in range(len(prompts))]
    by_id = {sample.id: sample.prompt for split in splits for sample in split}
    assert all(by_id[str(index)] == prompt for index, prompt in enumerate(prompts))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_task_or_refused(content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.jsonl"
        path.write_bytes(content)
        with contextlib.suppress(DataError):
            assert cs.load_task(path, scorer="regex:a")
