from dataclasses import replace

import pytest

from corrsteer.features import Feature
from corrsteer.runs.comparison import Comparison
from corrsteer.runs.evaluation import Evaluation
from corrsteer.runs.search import GuardAccuracy, SearchRecord, Trial
from corrsteer.runs.verdict import Verdict, judge, why
from corrsteer.settings import FitSettings
from corrsteer.stats.metrics import Accuracy, Delta, SideEffects

SETTINGS = FitSettings()
EFFECTS = SideEffects(0.0, (0.0, 0.2), 20, 0, 0, 80)
GAIN = Delta(0.2, (0.12, 0.27), 1e-5)
FEATURE = Feature("blocks.1.hook_resid_post", 1, 7, 2.0, 0.6, (0.5, 0.7), 0.001, 0.5, 0.6, 0.4)


def accuracy(share, n=100):
    return Accuracy(share, (share - 0.1, share + 0.1), n)


TRIAL = Trial("G", 0.5, (FEATURE.key,), accuracy(0.7), GAIN, 1e-5, EFFECTS, {}, GAIN)


def record(trial=TRIAL, recommended=True, n=60, least=0.1):
    return SearchRecord(12, accuracy(0.5), trial if recommended else None, (trial,), 60, n, least)


def evaluation(delta=GAIN, controls=(0.5, 0.55), guard=None):
    guards = {} if guard is None else {"calm": guard}
    return Evaluation(
        accuracy(0.5), accuracy(0.5 + delta.value), delta, EFFECTS, 0, controls, guards
    )


def guard(change, low, n=300):
    delta = Delta(change, (low, change + 0.01), 0.01)
    return Comparison(accuracy(0.9, n), accuracy(0.9 + change, n), delta, EFFECTS, 0)


@pytest.mark.parametrize(
    ("evaluated", "features", "kind"),
    [
        (evaluation(), (FEATURE,), "helps"),
        (evaluation(Delta(-0.2, (-0.3, -0.1), 1e-4)), (FEATURE,), "harms"),
        (evaluation(Delta(0.02, (-0.01, 0.05), 0.2)), (FEATURE,), "cannot-tell"),
        (evaluation(Delta(0.05, (0.001, 0.1), 0.06)), (FEATURE,), "cannot-tell"),
        (evaluation(guard=guard(-0.045, -0.065)), (FEATURE,), "harms-guard"),
        (evaluation(controls=(0.5, 0.71)), (FEATURE,), "not-attributable"),
        (evaluation(), (replace(FEATURE, p_adjusted=0.4),), "not-attributable"),
        (None, (FEATURE,), "not-evaluated"),
    ],
)
def test_the_kind_follows_the_test_split(evaluated, features, kind):
    assert judge(record(), evaluated, features, SETTINGS).kind == kind


def test_many_features_that_may_be_chance_are_one_reason():
    unsure = tuple(replace(FEATURE, latent=n, p_adjusted=0.4 + n / 1000) for n in range(200))
    found = judge(record(), evaluation(), (FEATURE, *unsure), SETTINGS)
    (told,) = (each for each in found.reasons if "by chance" in each)
    assert told.startswith("200 features may go with the outcome by chance (adjusted p 0.4 or more")
    assert told.endswith(": 1/0, 1/1, 1/2 and 197 more")


def test_what_may_be_chance_and_what_was_not_ruled_out_is_named():
    unsure = replace(FEATURE, latent=9, p_adjusted=0.4)
    found = judge(record(), evaluation(guard=guard(-0.01, -0.04, 40)), (FEATURE, unsure), SETTINGS)
    assert found.kind == "helps"
    assert "feature 1/9 may go with the outcome by chance (adjusted p 0.4)" in found.reasons
    assert "guard calm may lose up to 4.0 points (40 samples)" in found.reasons


def test_lack_of_power_is_not_called_lack_of_effect():
    unsure = replace(TRIAL, confirmed=Delta(0.1, (-0.05, 0.25), 0.3), p_adjusted=0.3)
    found = judge(record(unsure, recommended=False), None, (), SETTINGS)
    assert found.kind == "cannot-tell"
    assert "a gain below 10 points could not have been significant there" in found.reasons
    assert any("select samples or more would show a gain of 5 points" in r for r in found.reasons)
    few = judge(record(unsure, recommended=False, n=4, least=1.5), None, (), SETTINGS)
    assert few.kind == "cannot-tell"
    assert "so few samples cannot show any gain" in few.reasons


def test_no_effect_is_said_where_one_would_have_been_seen():
    nothing = Delta(0.0, (-0.01, 0.01), 1.0)
    still = replace(TRIAL, delta=nothing, confirmed=nothing, p_adjusted=1.0)
    found = judge(record(still, recommended=False, n=600, least=0.01), None, (), SETTINGS)
    assert found.kind == "no-effect"


def test_a_veto_is_told_with_its_loss():
    vetoed = replace(TRIAL, guards={"calm": GuardAccuracy(1.0, 0.4, 0.65)})
    found = judge(record(vetoed, recommended=False), None, (), SETTINGS)
    assert found.kind == "harms-guard"
    assert found.reasons == ("G x 0.5 loses 60.0 points (or up to 65.0) on calm",)
    told = why(vetoed, None, 0.05, 0.03)
    assert told == "loses 60.0 points (or up to 65.0) on calm"
    better = replace(TRIAL, guards={"calm": GuardAccuracy(0.5, 0.55, 0.055)})
    assert why(better, None, 0.05, 0.03) == "may lose 5.5 points on calm"
    assert why(TRIAL, TRIAL, 0.05, 0.03) == "recommended"


def test_sentences_of_before_have_a_kind():
    old = Verdict.read("Not specific: strategy A at strength 1 changes test accuracy by ...")
    assert old.kind == "not-attributable"
    assert Verdict.read("Something else.").kind == "not-evaluated"
    assert Verdict.read({"kind": "helps", "text": "x", "reasons": ["y"]}).reasons == ("y",)
