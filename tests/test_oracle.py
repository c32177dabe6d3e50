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
from corrsteer.method.pooling import RunningPool
from corrsteer.scoring.base import Score

CASES = Path(__file__).parents[2] / "shared" / "oracle" / "cases"
HUB = Path(os.environ.get("CORRSTEER_ORACLE_HUB", ""))

pytestmark = pytest.mark.skipif(
    not (CASES.is_dir() and "CORRSTEER_ORACLE_HUB" in os.environ),
    reason="needs the recorded cases, and their hub at CORRSTEER_ORACLE_HUB",
)

NEAR = 1e-4
"""Largest difference in r, and the lead at which a feature counts as chosen for sure."""
CROSSING = {"llama_harmbench_global": (3e-4, 5), "llama_harmbench_mean": (8e-4, 6)}
"""Largest difference, and features of a layer beyond NEAR, where an activation within rounding of
its threshold is there in one computation and not in the other. Llama Scope was read in bfloat16,
so in 108 samples of 32 tokens a few are: measured 1.8e-4 in 5 of 512 features, 4.9e-4 in 6."""
CASES_RUN = (
    "mmlu_global_eager",
    "mmlu_foreach_eager",
    "harmbench_global_eager",
    "bbq_global_disambig",
    "llama_mmlu_global",
    "llama_mmlu_raw",
    "llama_mmlu_caa",
    "llama_mmlu_scale20",
    *CROSSING,
)


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


def recorded_model(flags, attention):
    """The model as the case had it: one block earlier, and what it was given for attention."""
    llama, raw = "model" in flags, flags.get("raw", False)
    lm = cs.load_model("llama8" if llama else "gemma2b", sae="raw" if raw else None, hook_shift=-1)
    if llama and not raw:
        lm.saes = [reference_handle(handle, HUB) for handle in lm.saes]
    if not llama:
        lm.model.set_attn_implementation("eager")
        for module in lm.model.modules():
            if attention == "sdpa" and hasattr(module, "attn_logit_softcapping"):
                module.attn_logit_softcapping = None  # as sdpa dropped it; today's refuses
    return lm


@pytest.fixture(scope="module", params=CASES_RUN)
def fitted(request):
    """The recorded case with its arrays, and our run of the same."""
    name = request.param
    case = json.loads((CASES / f"{name}.json").read_text())
    arrays = np.load(CASES / f"{name}.npz")
    flags = case["flags"]
    with pytest.MonkeyPatch.context() as patch:
        offline_hub.use(patch, HUB)
        lm = recorded_model(flags, case["attn_implementation"])
        variant = f"-{flags['filter_value']}" if "filter_value" in flags else ""
        task = cs.load_task(flags["task"] + variant, scorer="exact")
        if flags["task"] == "harmbench":
            task = replace(task, scorer=Recorded(case))
        pool = flags.get("pool", "max")
        if pool == "mean":
            # theirs averages bfloat16 activations, and rounds the mean to bfloat16; ours does not
            whole = RunningPool.result
            patch.setattr(RunningPool, "result", lambda self: whole(self).bfloat16().float())
        run = cs.fit(
            lm,
            task,
            strategy="P" if flags["layer"] == "foreach" else "A",
            method="contrast" if flags.get("caa") else "corr",
            strength=flags.get("scale", 1.0),
            pool=pool,
            samples=10_000,
            permutations=0,
        )
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
        largest, crossings = CROSSING.get(case["case"], (NEAR, 0))
        assert (difference > NEAR).sum() <= crossings
        assert difference.max() < largest
        # a latent that never varies has no correlation; theirs says 0
        assert np.abs(theirs[~defined]).max(initial=0) < 1e-6


def test_the_same_features_are_chosen(fitted):
    case, arrays, run, _, _ = fitted
    for layer in map(int, case["accumulators"]):
        ours = run.top_features[f"blocks.{layer - 1}.hook_resid_post"]
        theirs = chosen(case)[layer]
        r = arrays[f"L{layer}_corr"]
        if case["flags"].get("caa"):
            listed = case["result"]["results"][str(layer)]["top_positive"][:5]
            assert [f.latent for f in ours[:5]] == [row["feature_index"] for row in listed]
        elif np.subtract(*np.sort(r)[-1:-3:-1]) <= NEAR:
            continue
        assert ours[0].latent == theirs["feature_index"]
        coefficient = ours[0].coefficient * case["flags"].get("scale", 1.0)
        assert coefficient == pytest.approx(theirs["coefficient"], rel=1e-3)
        assert ours[0].correlation == pytest.approx(r[ours[0].latent], abs=NEAR)


def test_the_same_layers_are_kept(fitted):
    case, _, run, _, _ = fitted
    assert [feature.layer for feature in run.features] == case["result"]["steers"]


def test_predictions_agree(fitted):
    case, _, run, lm, task = fitted
    result = cs.evaluate(lm, task, run.steering)
    theirs = [row["predicted"] for row in case["evaluations"][-1]["results"]]
    ours = [row.steered_text.strip() for row in result.predictions]
    baseline = [row.baseline_text.strip() for row in result.predictions]
    assert baseline == [row["predicted"] for row in case["baseline"]["results"]]
    assert len(ours) == len(theirs)
    assert ours == theirs
