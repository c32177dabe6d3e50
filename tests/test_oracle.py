"""Against what the paper's own code computed, number by number, on a small offline hub.

The recorded cases lie beside the project, and so does the program that builds the hub; both are
looked for, and the tests skip without them:

    python ../shared/oracle/make_hub.py HUB          # minutes
    CORRSTEER_ORACLE_HUB=HUB python -m pytest tests/test_oracle.py
"""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import offline_hub
import pytest

import corrsteer as cs
from corrsteer.pooling import RunningPool
from corrsteer.scoring import Score

CASES = Path(__file__).parents[2] / "shared" / "oracle" / "cases"
HUB = Path(os.environ.get("CORRSTEER_ORACLE_HUB", ""))

pytestmark = pytest.mark.skipif(
    not (CASES.is_dir() and "CORRSTEER_ORACLE_HUB" in os.environ),
    reason="needs the recorded cases, and their hub at CORRSTEER_ORACLE_HUB",
)

GEMMA = ("mmlu_global_eager", "harmbench_global_eager", "mmlu_foreach_eager")
LLAMA = ("llama_mmlu_global", "llama_harmbench_global", "llama_harmbench_mean")
NEAR = 1e-4
"""Largest difference in r, and the lead at which a feature counts as chosen for sure."""
FAR = 1e-3
CROSSINGS = 0.02
"""Share of features that may lie between NEAR and FAR: an activation within rounding of its
threshold is there in one computation and not in the other (Llama Scope was read in bfloat16)."""


class Recorded:
    """Scores a reply as the recorded run did the same text (its refusal rule is not ours)."""

    name = "recorded"
    needs_target = False

    def __init__(self, case: dict):
        self.outcomes = {row["text"].strip(): row["reward"] for row in case["collect"]}

    def __call__(self, reply, sample):
        return Score(self.outcomes.get(reply.strip(), 0.0))


class ReferenceSAE:
    """A Llama Scope SAE as the paper's libraries loaded it: bfloat16, the threshold unscaled."""

    def __init__(self, sae, threshold: float):
        self._sae = sae
        self._sae.threshold.data.fill_(threshold)
        self.d_sae = sae.cfg.d_sae

    def encode(self, x):
        return self._sae.encode(x).float()


def reference_handle(handle, hub: Path):
    from sae_lens import SAE

    sae = SAE.from_pretrained("llama_scope_lxr_8x", f"l{handle.layer}r_8x", dtype="bfloat16")
    config = next(hub.glob(f"hub/*LXR-8x/*/*/*-L{handle.layer}R-8x/hyperparams.json"))
    threshold = json.loads(config.read_text())["jump_relu_threshold"]
    rows = sae.W_dec.detach().float()
    return replace(
        handle,
        load=lambda device: ReferenceSAE(sae, threshold),
        decoder_rows=lambda latents: rows[list(latents)],
    )


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    offline_hub.use(monkeypatch, HUB)


@pytest.fixture(scope="module", params=[*GEMMA, *LLAMA])
def fitted(request):
    """The recorded case with its arrays, and our run of the same."""
    name = request.param
    case = json.loads((CASES / f"{name}.json").read_text())
    arrays = np.load(CASES / f"{name}.npz")
    with pytest.MonkeyPatch.context() as patch:
        offline_hub.use(patch, HUB)
        lm = cs.load_model("llama8" if name in LLAMA else "gemma2b", hook_shift=-1)
        if name in LLAMA:
            lm.saes = [reference_handle(handle, HUB) for handle in lm.saes]
        else:
            lm.model.set_attn_implementation("eager")
        task = cs.load_task("mmlu" if "mmlu" in name else "harmbench", scorer="exact")
        if "mmlu" not in name:
            task = replace(task, scorer=Recorded(case))
        pool = case["flags"].get("pool", "max")
        if pool == "mean":
            # theirs averages bfloat16 activations, and rounds the mean to bfloat16; ours does not
            whole = RunningPool.result
            patch.setattr(RunningPool, "result", lambda self: whole(self).bfloat16().float())
        strategy = "P" if case["flags"]["layer"] == "foreach" else "A"
        run = cs.fit(lm, task, strategy=strategy, pool=pool, samples=10_000)
        yield case, arrays, run, lm, task


def chosen(case):
    """Layer -> the recorded feature, also of layers that validation dropped."""
    if case["validation"]:
        return {row["layer"]: row for row in case["validation"] if row["what"] == "feature"}
    return {int(k): found["top_positive"][0] for k, found in case["result"]["results"].items()}


def statistics_by_layer(run):
    """Our statistics under the layer of the SAE, which reads one block earlier."""
    return {int(hook.split(".")[1]) + 1: statistics for hook, statistics in run.statistics.items()}


def test_correlations_agree(fitted):
    case, arrays, run, _, _ = fitted
    found = statistics_by_layer(run)
    assert sorted(found) == sorted(map(int, case["accumulators"]))
    for layer, statistics in found.items():
        assert statistics.n == case["accumulators"][str(layer)]["n"]
        ours, theirs = statistics.correlation().numpy(), arrays[f"L{layer}_corr"]
        defined = np.isfinite(ours)
        difference = np.abs(ours - theirs)[defined]
        assert defined.sum() > 50
        assert (difference > NEAR).mean() <= CROSSINGS
        assert difference.max() < FAR
        # a latent that never varies has no correlation; theirs says 0
        assert np.abs(theirs[~defined]).max(initial=0) < 1e-6


def test_the_same_features_are_chosen(fitted):
    case, arrays, run, _, _ = fitted
    for layer in map(int, case["accumulators"]):
        best, second = np.sort(np.nan_to_num(arrays[f"L{layer}_corr"]))[-1:-3:-1]
        ours = run.top_features[f"blocks.{layer - 1}.hook_resid_post"][0]
        theirs = chosen(case)[layer]
        if best - second > NEAR:
            assert ours.latent == theirs["feature_index"]
            assert ours.coefficient == pytest.approx(theirs["coefficient"], rel=1e-3)
            assert ours.correlation == pytest.approx(best, abs=NEAR)


def test_the_same_layers_are_kept(fitted):
    case, _, run, _, _ = fitted
    assert [feature.layer for feature in run.features] == case["result"]["steers"]


def test_predictions_agree(fitted):
    case, _, run, lm, task = fitted
    result = cs.evaluate(lm, task, run.steering)
    theirs = [row["predicted"] for row in case["evaluations"][-1]["results"]]
    ours = [row["steered_text"].strip() for row in result.predictions]
    baseline = [row["baseline_text"].strip() for row in result.predictions]
    assert baseline == [row["predicted"] for row in case["baseline"]["results"]]
    assert len(ours) == len(theirs)
    differing = sum(a != b for a, b in zip(ours, theirs, strict=True))
    assert differing <= 0.01 * len(ours)
