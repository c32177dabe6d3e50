"""Against what the paper's own code computed, number by number (`oracle/README.md`).

`make test` compares the quick cases, `make oracle` (CORRSTEER_ORACLE=all) every one.
"""

import json
import os
from dataclasses import replace

import numpy as np
import offline_hub
import pytest
from oracle import hub

import corrsteer as cs
from corrsteer.method.pooling import RunningPool

CASES = hub.HERE / "cases"
QUICK = ("mmlu_global", "mmlu_raw")
ALL = (*QUICK, "mmlu_foreach", "mmlu_caa")
RUN = ALL if os.environ.get("CORRSTEER_ORACLE") == "all" else QUICK

NEAR = 1e-4
"""Largest difference in r, and the lead at which a feature counts as chosen for sure."""


class ReferenceSAE:
    """A Llama Scope SAE as the paper's libraries loaded it: bfloat16, the threshold unscaled."""

    def __init__(self, sae):
        self._sae = sae
        self._sae.threshold.data.fill_(hub.THRESHOLD)
        self.d_sae = sae.cfg.d_sae

    def encode(self, x):
        return self._sae.encode(x).float()


def reference_handle(handle):
    from sae_lens import SAE

    sae = SAE.from_pretrained("llama_scope_lxr_8x", f"l{handle.layer}r_8x", dtype="bfloat16")
    rows = sae.W_dec.detach().float()
    return replace(
        handle,
        load=lambda device, residual: ReferenceSAE(sae),
        decoder_rows=lambda latents: rows[list(latents)],
    )


def reference_model(raw: bool):
    """The model as the case had it: read and steered one block earlier."""
    lm = cs.load_model("llama8", sae="raw" if raw else None, hook_shift=-1)
    if not raw:
        lm.saes = [reference_handle(handle) for handle in lm.saes]
    return lm


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("oracle")
    hub.lay_out(folder)
    return folder


@pytest.fixture(scope="module", params=RUN)
def fitted(request, home):
    """The recorded case with its arrays, and our run of the same."""
    case = json.loads((CASES / f"{request.param}.json").read_text())
    arrays = np.load(CASES / f"{request.param}.npz")
    flags = case["flags"]
    with pytest.MonkeyPatch.context() as patch:
        offline_hub.use(patch, home)
        lm = reference_model(flags.get("raw", False))
        task = cs.load_task(flags["task"], scorer="exact")
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
            pool=pool,
            samples=10_000,
            permutations=0,
            least_select=0,
        )
        yield case, arrays, run, lm, task


def chosen(case):
    """Layer -> the recorded feature, also of layers that validation dropped."""
    if case["validated"]:
        return {row["layer"]: row for row in case["validated"]}
    return {int(layer): rows[0] for layer, rows in case["top"].items()}


def statistics_by_layer(run):
    """Our statistics under the layer of the SAE, which reads one block earlier."""
    return {int(hook.split(".")[1]) + 1: statistics for hook, statistics in run.statistics.items()}


def test_correlations_agree(fitted):
    case, arrays, run, _, _ = fitted
    found = statistics_by_layer(run)
    assert sorted(found) == list(range(1, hub.LAYERS))
    for layer, statistics in found.items():
        assert statistics.n == case["n"]
        ours, theirs = statistics.correlation().numpy(), arrays[f"L{layer}_corr"]
        defined = np.isfinite(ours)
        assert defined.sum() > 50
        assert np.abs(ours - theirs)[defined].max() < NEAR
        # a latent that never varies has no correlation; theirs says 0
        assert np.abs(theirs[~defined]).max(initial=0) < 1e-6


def test_the_same_features_are_chosen(fitted):
    case, arrays, run, _, _ = fitted
    for layer, theirs in chosen(case).items():
        ours = run.top_features[f"blocks.{layer - 1}.hook_resid_post"]
        r = arrays[f"L{layer}_corr"]
        if case["flags"].get("caa"):
            listed = [row["feature_index"] for row in case["top"][str(layer)]]
            assert [f.latent for f in ours[:5]] == listed
        else:
            assert np.subtract(*np.sort(r)[-1:-3:-1]) > NEAR
        assert ours[0].latent == theirs["feature_index"]
        assert ours[0].coefficient == pytest.approx(theirs["coefficient"], rel=1e-3)
        assert ours[0].correlation == pytest.approx(r[ours[0].latent], abs=NEAR)


def test_the_same_layers_are_kept(fitted):
    case, _, run, _, _ = fitted
    assert [feature.layer for feature in run.features] == case["steers"]


def test_predictions_agree(fitted):
    case, _, run, lm, task = fitted
    result = cs.evaluate(lm, task, run.steering)
    assert [row.baseline_text.strip() for row in result.predictions] == case["baseline"]
    assert [row.steered_text.strip() for row in result.predictions] == case["steered"]


def test_every_case_is_compared_and_says_something():
    """Each recorded case is listed, and steering changes some of its predictions."""
    assert sorted(path.stem for path in CASES.glob("*.json")) == sorted(ALL)
    for name in ALL:
        case = json.loads((CASES / f"{name}.json").read_text())
        assert case["baseline"] != case["steered"]
