"""How objects show where they are the last line of a cell."""

import dataclasses

from corrsteer import evaluate, load_task
from corrsteer.features import Feature, feature_rows
from corrsteer.hook_points import HookPoint
from corrsteer.notebook import overview
from corrsteer.runs.document import run_document
from corrsteer.runs.run import Provenance, Run
from corrsteer.runs.steering import combine
from corrsteer.settings import FitSettings

HOSTILE = "<script>alert(1)</script>"
FEATURE = Feature("blocks.1.hook_resid_post", 1, 3, 2.0, 0.5, (0.4, 0.6), 0.01, 0.5, 0.6, 0.4)


def made(lm, **changes):
    feature = dataclasses.replace(FEATURE, **changes)
    hook = HookPoint.parse(feature.hook_point)
    handle = next(handle for handle in lm.saes if handle.hook_point == hook)
    rows = handle.decoder_rows([feature.latent])
    return combine([feature], {feature.key: rows[0]}, lm)


def test_a_model_is_shown_in_one_line(lm):
    assert repr(lm).startswith(f"LanguageModel({lm.id!r}, class=Gemma2ForCausalLM, layers=3")
    assert "\n" not in repr(lm)
    assert "<td>float32</td>" in lm._repr_html_()


def test_a_steering_shows_its_features(lm):
    html = made(lm)._repr_html_()
    assert "<th>layer</th>" in html
    assert "0.500 [0.40, 0.60]" in html


def test_a_run_shows_its_verdict_or_that_there_is_none(lm):
    steering = made(lm)
    provenance = Provenance("mini", None, None, {}, 0, "t", "exact", 3, (), {})
    run = Run(provenance, FitSettings(), {}, steering.features, {}, steering)
    assert "not evaluated" in run._repr_html_()
    run.evaluation = run_document(run, None, None)
    assert run.evaluation.verdict.text in run._repr_html_()


def test_an_evaluation_and_its_task_are_shown(lm):
    task = load_task("mini-mmlu", scorer=r"regex:^\s*[n-zN-Z0-4]", max_new_tokens=3)
    assert "mini-mmlu" in task._repr_html_()
    found = evaluate(lm, task, made(lm), limit=8)
    assert f"{100 * found.baseline.accuracy:.1f} % [" in found._repr_html_()


def test_everything_shown_is_text():
    feature = dataclasses.replace(FEATURE, url='https://x/"><script>alert(1)</script>')
    html = overview(HOSTILE, {HOSTILE: HOSTILE}, [HOSTILE], feature_rows([feature]))
    assert "<script" not in html
    assert html.count("&lt;script&gt;") == 5
    scripted = dataclasses.replace(FEATURE, url="javascript:alert(1)")
    assert "javascript" not in overview("x", {}, ["r"], feature_rows([scripted]))
