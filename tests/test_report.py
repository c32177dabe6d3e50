import dataclasses
import json
import re
import shlex
import shutil
import subprocess
from html.parser import HTMLParser
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch

from corrsteer import report
from corrsteer.errors import ArtifactError
from corrsteer.hook_points import HookPoint
from corrsteer.json_text import visible
from corrsteer.method.evaluation import predictions
from corrsteer.method.ranking import Ranking, rank
from corrsteer.report import findings
from corrsteer.report.command import beyond_options, reproduce
from corrsteer.report.findings import Findings
from corrsteer.report.page import environment
from corrsteer.report.text import (
    cut,
    interval,
    p_value,
    percent,
    points,
    side_by_side,
    web_url,
)
from corrsteer.runs.activation_log import Entries, LogWriter
from corrsteer.runs.comparison import Comparison, Responses, compare
from corrsteer.runs.document import run_document
from corrsteer.runs.evaluation import Evaluation
from corrsteer.runs.folder import load_run
from corrsteer.runs.records import Recommendation
from corrsteer.runs.run import Counts, Provenance, Run
from corrsteer.runs.search import GuardAccuracy, SearchRecord, Trial
from corrsteer.runs.steering import Steering
from corrsteer.samples import Sample
from corrsteer.scoring.base import Score
from corrsteer.settings import FitSettings
from corrsteer.stats.correlation import StreamingCorrelation
from corrsteer.stats.metrics import Accuracy, Delta, accuracy
from corrsteer.studies.sample_efficiency import sample_efficiency

STRENGTHS = (0.25, 0.5, 0.75, 1.0, 2.0, 4.0)
GAIN = {"S": 0.06, "A": 0.24, "P": 0.32, "G": 0.36}
"""Share of wrong samples that each strategy puts right at its best strength."""
BEST_AT = 0.5
REFUSAL = "I am sorry, but I cannot help you to {} the {}, since it might hurt somebody."
ANSWER = "Sure, here is how you {} the {}: first take a look at it, then go on step by step."


class Synthetic:
    """Runs of made-up replies, through the real statistics, comparisons and document."""

    def __init__(self, n=240, seed=0, layers=6, graded=False, unscored=0.0, texts=None):
        self.rng = np.random.default_rng(seed)
        self.n, self.layers, self.graded, self.unscored = n, layers, graded, unscored
        self.texts = texts or {}
        verbs, objects = ("open", "break", "find", "paint"), ("old lock", "blue gate", "small box")
        self.samples = [
            Sample(
                f"s{i}",
                f"Request: {verbs[i % 4]} the {objects[i % 3]} #{i}\nResponse:",
                ("refuse",),
            )
            for i in range(n)
        ]
        self.baseline = self.arm(self.rng.random(n) < 0.46)

    def arm(self, right) -> Responses:
        texts = [self.reply(i, bool(each)) for i, each in enumerate(right)]
        return Responses(tuple(texts), tuple(map(self.judge, range(self.n), right)))

    def reply(self, index, right):
        words = re.match(r"Request: (\w+) the (.+) #", self.samples[index].prompt).groups()
        return self.texts.get(index, (REFUSAL if right else ANSWER).format(*words))

    def judge(self, index, right) -> Score:
        if index / self.n < self.unscored:
            return Score(None)
        outcome = float(right) * (0.25 + 0.5 * (index % 2) if self.graded else 1.0)
        return Score(outcome, "refuse" if right else "answer")

    def steered(self, gain) -> Responses:
        """Puts that share of wrong replies right, and a tenth as many right ones wrong."""
        right = self.baseline.outcomes > 0
        draw = self.rng.random(self.n)
        right = np.where(right, draw > abs(gain) / 8 + max(-gain, 0), draw < gain)
        texts = list(self.arm(right).texts)
        for index in range(0, self.n, 17):
            texts[index] = self.texts.get(index, texts[index] + " Please ask again.")
        scores = tuple(map(self.judge, range(self.n), right))
        return Responses(tuple(texts), scores)

    def gain(self, strategy, strength):
        """Rises up to the best strength, then falls below zero."""
        distance = abs(np.log2(strength / BEST_AT))
        return GAIN[strategy] * (1 - 0.45 * distance)

    def statistics(self) -> dict[HookPoint, StreamingCorrelation]:
        found = {}
        for layer in range(self.layers):
            y = torch.from_numpy(self.rng.random(300) < 0.5).float()
            z = torch.from_numpy(self.rng.normal(size=(300, 48))).float()
            for latent in range(6):
                peak = np.exp(-((layer - self.layers * 0.6) ** 2) / self.layers)
                z[:, latent] += y * (1.6 - 0.2 * latent) * peak
            found[HookPoint(layer, "resid_post")] = StreamingCorrelation(48).update(z.relu(), y)
        return found

    def steering(self, ranking: Ranking, strategy, strength=1.0) -> Steering:
        best = ranking.best_per_layer()
        features = {"S": ranking.best(), "A": best, "P": best[2:5], "G": best[3:6]}[strategy]
        vectors = {HookPoint.parse(f.hook_point): torch.full((8,), f.coefficient) for f in features}
        return Steering(vectors, features, "mini", None, strength=strength)

    def run(self, settings=None, recommended=True, evaluated=True, guards=True) -> Run:
        settings = settings or FitSettings(test_limit=self.n)
        ranking = rank(statistics := self.statistics())
        trials = [
            self.trial(s, self.steering(ranking, s, x), self.compared(self.gain(s, x)))
            for s in GAIN
            for x in STRENGTHS
        ]
        chosen = next(t for t in trials if (t.strategy, t.strength) == ("G", BEST_AT))
        best = self.steering(ranking, "G", BEST_AT)
        steering = best if recommended else Steering({}, (), "mini", None)
        run = Run(
            provenance=Provenance(
                "mini",
                None,
                "mini",
                {h.name: f"layer_{h.layer}" for h in statistics},
                0,
                "mini-harmbench",
                "refusal",
                24,
                ("probe-harmless",) if guards else (),
                {"corrsteer": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0"},
            ),
            settings=settings,
            statistics={hook.name: each for hook, each in statistics.items()},
            features=steering.features,
            top_features={hook.name: features for hook, features in ranking.by_layer.items()},
            steering=steering,
            candidates={s: self.steering(ranking, s) for s in GAIN},
            search=SearchRecord(
                comparisons=41,
                baseline=accuracy(self.baseline.outcomes[self.baseline.outcomes >= 0]),
                recommended=chosen if recommended else None,
                trials=tuple(trials),
            ),
            counts=Counts(
                n_fit=300,
                n_select=self.n,
                seconds={"load": 1.2, "collect": 20.4, "select": 0.1, "validate": 44.0},
            ),
        )
        if evaluated:
            self.evaluate(run, guards)
        return run

    def trial(self, strategy, steering, comparison) -> Trial:
        return Trial(
            strategy,
            steering.strength,
            tuple(feature.key for feature in steering.features),
            comparison.steered,
            comparison.delta,
            0.004 / steering.strength,
            comparison.side_effects,
        )

    def evaluate(self, run: Run, guards: bool) -> None:
        steered = self.steered(GAIN["G"]) if run.features else self.baseline
        run.candidates["P"] = Steering({}, (), "mini", None)
        strategies = {name: self.compared(self.gain(name, 1.0)) for name in run.candidates}
        strategies["P"] = compare(self.baseline, self.baseline)
        evaluation = Evaluation(
            **shallow(compare(self.baseline, steered)),
            controls=tuple(0.4 + 0.12 * self.rng.random(run.settings.controls)),
            guards={"probe-harmless": self.compared(-0.02)} if guards else {},
            predictions=predictions(self.samples, self.baseline, steered),
        )
        run.predictions = evaluation.predictions
        run.evaluation = run_document(run, "runs/x", evaluation, strategies)

    def compared(self, gain) -> Comparison:
        return compare(self.baseline, self.steered(gain))


def shallow(value):
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


@pytest.fixture(scope="module")
def run():
    return Synthetic().run()


def test_replies_that_nothing_was_read_out_of_are_told():
    run = Synthetic(n=60).run()
    told = run.evaluation
    assert "could be read out of" not in report.render(run)
    for before, after, text in (
        (3, 12, "3 of the baseline and 12 of the steered arm"),
        (1200, 0, "1,200 of the baseline;"),
        (None, None, None),
    ):
        task = dataclasses.replace(told.task, unread_test=before)
        outcome = dataclasses.replace(told.outcome, unread=after)
        run.evaluation = dataclasses.replace(told, task=task, outcome=outcome)
        page = report.render(run)
        assert ("could be read out of" in page) == (text is not None)
        assert text is None or text in page


@pytest.fixture(scope="module")
def html(run):
    return report.render(run)


class Page(HTMLParser):
    """What a page holds: ids, addresses, tags left open, and the text of each section."""

    VOID = ("meta", "link", "br", "img", "use", "path", "rect", "hr")

    def __init__(self, html: str):
        super().__init__()
        self.open, self.ids, self.addresses, self.tags, self.sections = [], [], [], set(), {}
        self.section = None
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.add(tag)
        self.ids += [found["id"]] if "id" in found else []
        names = ("href", "src", "srcset", "xlink:href", "action", "data", "poster")
        self.addresses += [found[name] for name in names if found.get(name)]
        if tag == "section":
            self.section = found["id"]
            self.sections[self.section] = ""
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag
        if tag == "section":
            self.section = None

    def handle_data(self, data):
        if self.section:
            self.sections[self.section] += data

    def text(self, section):
        return " ".join(self.sections[section].split())


SECTIONS = [
    "accuracy", "side-effects", "strength", "guards", "features", "layers", "samples", "examples",
    "made",
]  # fmt: skip


def test_every_section_is_there(run, html):
    page = Page(html)
    assert list(page.sections) == SECTIONS
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert run.evaluation.verdict.text.partition(": ")[2] in html
    assert html.count("<svg") == 8
    arms = page.text("accuracy")
    for part in ("baseline", "S × 1", "G × 0.5 recommended", "10 random controls"):  # noqa: RUF001
        assert part in arms
    assert interval(run.evaluation.outcome.delta.ci, points) in arms
    assert "nothing to add, so the same as the baseline" in arms
    counts = run.evaluation.outcome.side_effects
    assert f"{counts.improved} improved, {counts.worsened} worsened" in page.text("side-effects")
    assert "Recommended is G at strength 0.5" in page.text("strength")
    assert "probe-harmless" in page.text("guards")
    assert str(run.features[0].latent) in page.text("features")
    assert f"{counts.improved} improved, 25 of them shown" in page.text("examples")
    assert f"{counts.worsened} worsened" in page.text("examples")
    assert "corrsteer train --model mini --task mini-harmbench" in page.text("made")


def test_flows_are_those_of_the_predictions(run):
    flows = Findings(run).flows
    counts = run.evaluation.outcome.side_effects
    assert (flows.improved, flows.worsened) == (counts.improved, counts.worsened)
    assert flows.right_other + flows.wrong_other == counts.changed_equal
    assert flows.right_same + flows.wrong_same == counts.unchanged


def test_better_trials_that_are_not_recommended_were_vetoed(run):
    best, chosen = run.search.trials[-1], run.search.recommended
    best = dataclasses.replace(best, steered=Accuracy(0.99, (0.98, 1.0), 240), p_adjusted=1e-9)
    best = dataclasses.replace(best, delta=Delta(0.5, (0.4, 0.6), 1e-9))
    best = dataclasses.replace(best, guards={"calm": GuardAccuracy(1.0, 0.5)})
    unsure = dataclasses.replace(best, p_adjusted=0.06)
    search = dataclasses.replace(run.search, trials=(chosen, unsure, best))
    searched = dataclasses.replace(run, search=search)
    assert Findings(searched).vetoed == (best,)
    unguarded = dataclasses.replace(run.provenance, guards=())
    assert Findings(dataclasses.replace(searched, provenance=unguarded)).vetoed == ()


def test_nothing_is_loaded_from_outside_and_nothing_runs(html):
    page = Page(html)
    assert page.tags.isdisjoint({"script", "link", "img", "iframe", "object", "embed", "form"})
    assert all(address.startswith("#") for address in page.addresses)
    assert {address[1:] for address in page.addresses} <= set(page.ids)
    assert "http" not in html.replace("http-equiv", "")
    assert "@import" not in html
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)", html))
    assert "default-src 'none'" in html


def test_the_same_run_gives_the_same_page(run, html, tmp_path):
    folder = run.save(tmp_path / "run")
    assert report.write(load_run(folder), folder) == folder / "report.html"
    assert (folder / "report.html").read_text(encoding="utf-8") == html


def test_the_same_run_gives_the_same_figures_whatever_matplotlibs_settings(run, tmp_path):
    first = report.write_figures(run, tmp_path / "a")
    with matplotlib.rc_context({"font.size": 40, "axes.facecolor": "red"}):
        before = dict(matplotlib.rcParams)
        second = report.write_figures(run, tmp_path / "b")
        assert dict(matplotlib.rcParams) == before
    assert [path.name for path in first] == [
        f"{name}.{suffix}"
        for name in ("accuracy", "side-effects", "strength", "layers")
        for suffix in ("svg", "png")
    ]
    for path, again in zip(first, second, strict=True):
        assert path.read_bytes() == again.read_bytes()
    assert b"<dc:" not in first[0].read_bytes()
    assert first[1].read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted(p.name for p in first)


HOSTILE = [
    "<script>alert(1)</script><img src=x onerror=alert(2)>",
    "</style></section></p>{{ 7 * 7 }}{% raw %}&amp;",
    "\x1b[31mred\x00\x07 \u202eevil\u2066 \ud800 \ufffe\u2028 zero\u200bwidth",
    "ab " * 33_000,
    "\u05d0\u05d1\u05d2 \u0627\u0644 Zalgo Z" + "\u0301" * 200,
    "",
]


def test_hostile_text_is_shown_as_text():
    made = Synthetic(n=60, texts=dict(enumerate(HOSTILE)))
    run = made.run()
    hostile = [
        dataclasses.replace(
            row,
            id=f"<b>{index}",
            prompt=text,
            target=(text,),
            baseline_outcome=0.0,
            steered_outcome=1.0,
            baseline_answer=text,
            steered_text=text[::-1],
        )
        for index, (row, text) in enumerate(zip(run.predictions, HOSTILE, strict=False))
    ]
    run.predictions = (*hostile, *run.predictions[len(hostile) :])
    page = Page(html := report.render(run))
    assert list(page.sections) == SECTIONS
    assert page.open == []
    assert page.tags.isdisjoint({"script", "img", "b>0"})
    shown = page.text("examples")
    assert "<script>alert(1)</script><img src=x onerror=alert(2)>" in shown
    assert "{{ 7 * 7 }}{% raw %}&amp;" in shown
    assert "␛[31mred␀␇ ‹U+202E›evil‹U+2066›" in shown  # noqa: RUF001
    assert "98,400 characters left out" in shown
    assert "[empty reply]" in shown
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", html)
    assert len(html.encode()) < 1_000_000


def test_only_web_addresses_become_links(run):
    urls = ["https://example.org/f?a=1&b=<2>\"'", "javascript:alert(1)", "https://e.org/ x"]
    features = [
        dataclasses.replace(feature, url=url)
        for feature, url in zip(run.features, urls, strict=True)
    ]
    parts: Any = environment().get_template("parts.html.j2").module
    assert Page(parts.features(features, "name")).addresses == urls[:1]


def test_no_recommendation_says_so():
    page = Page(html := report.render(Synthetic(n=60).run(recommended=False)))
    assert "No reliable effect" in html
    assert "No setting is recommended." in page.text("accuracy")
    assert "Nothing is steered" in page.text("side-effects")
    assert "None is significantly above the baseline" in page.text("strength")
    assert "Nothing is steered" in page.text("guards")
    assert "The run steers by no features." in page.text("features")
    assert "Nothing is steered" in page.text("examples")


def test_a_run_without_evaluation_says_so():
    page = Page(html := report.render(Synthetic(n=60).run(evaluated=False)))
    assert "not evaluated on the test split yet" in html
    for section in ("accuracy", "side-effects", "guards", "examples"):
        assert page.text(section).endswith("Not evaluated on the test split yet.")
    assert page.text("made").count("--no-eval") == 1
    assert html.count("<svg") == 4


def test_a_steering_alone_says_what_it_does_not_know(run, tmp_path):
    run.steering.save(tmp_path)
    page = Page(html := report.render(bare := load_run(tmp_path)))
    assert "The run has no log of activations" in page.text("samples")
    assert "this is a steering alone" in html
    assert "No strength was tried" in page.text("strength")
    assert str(run.features[0].latent) in page.text("features")
    assert "what it was fitted on is not recorded" in page.text("made")
    assert report.write_figures(bare, tmp_path / "figures") == []


def test_graded_outcomes_and_ones_that_cannot_be_judged():
    run = Synthetic(n=80, graded=True, unscored=0.1).run(guards=False)
    page = Page(report.render(run))
    assert "72 test samples" in page.text("accuracy")
    assert "8 more could not be judged" in page.text("accuracy")
    assert "Outcomes are graded" in page.text("side-effects")
    assert "had no guard tasks" in page.text("guards")
    assert "0.25" in page.text("examples")
    assert "80, 8 not judged" in page.text("made")


def test_a_strategy_that_was_asked_for_is_reported_without_a_recommendation(run):
    settings = FitSettings(strategy="A")
    asked = dataclasses.replace(
        run, settings=settings, search=dataclasses.replace(run.search, recommended=None)
    )
    assert Findings(asked).setting == Recommendation("A", 0.5)
    assert Findings(asked).recommended is None


def test_many_layers_and_long_texts_stay_small():
    texts = {index: f"{index} " + "word " * 20_000 for index in range(0, 60, 3)}
    html = report.render(Synthetic(n=60, layers=40, texts=texts).run())
    assert len(html.encode()) < 3_000_000


def test_a_foreign_evaluation_is_refused_in_one_line(run, tmp_path):
    file = run.save(tmp_path / "run") / "evaluation.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "delta": {"value": "much"}}))
    with pytest.raises(ArtifactError, match=r"evaluation\.json is not what .*delta") as refusal:
        load_run(tmp_path / "run")
    assert "\n" not in str(refusal.value)


SETTINGS = [
    FitSettings(),
    FitSettings(strategy="P", layers=(1, 2), samples=50, pool="mean", steer_pool="mean"),
    FitSettings(positions="all", coefficient="contrast", strength=-0.5, strengths=(0.1, 1e-05)),
    FitSettings(method="mi", sign="both", min_frequency=0.1, log=False, permutations=0),
    FitSettings(controls=0, val_limit=7, test_limit=9, seed=7, batch_size=3),
]


@pytest.fixture
def logged(run):
    """The run with a log, of which a latent goes with the outcome from early on."""
    rng = np.random.default_rng(0)
    outcomes = (rng.random(90) < 0.5).astype(float)
    pooled = {name: torch.from_numpy(rng.normal(size=(90, 48))).relu() for name in run.statistics}
    for layer, z in enumerate(pooled.values()):
        z[:, layer] += torch.from_numpy(outcomes) * layer
    writer = LogWriter(dict.fromkeys(pooled, 48))
    writer.add(Entries.of([f"f{i}" for i in range(90)], outcomes.tolist(), pooled))
    return dataclasses.replace(run, log=writer.close())


def test_what_fewer_samples_would_have_chosen_is_shown(logged, tmp_path):
    page = Page(html := report.render(logged))
    assert page.open == []
    assert html.count("<svg") == 10
    found = sample_efficiency(logged)
    text = page.text("samples")
    assert [each.samples for each in found] == [25, 50, 90]
    for each in found:
        strongest = max(abs(feature.correlation) for feature in each.features)
        assert f"{each.samples}{strongest:.3f} [" in text
        same = "yes" if each.same_best else "no"
        assert f"]{each.threshold:.3f}{100 * each.agreement:.0f} %{same}" in text
    assert "From 25 samples on, the best feature of all layers is the final one." in text
    names = [path.name for path in report.write_figures(logged, tmp_path)]
    assert names[-2:] == ["samples.svg", "samples.png"]


def test_fewer_samples_count_from_where_the_best_feature_stays(logged):
    found = Findings(logged)
    unsettled = [dataclasses.replace(each, same_best=False) for each in found.snapshots]
    for same, settled in (((1, 0, 1), 90), ((0, 1, 1), 50), ((1, 1, 1), 25)):
        found.__dict__["snapshots"] = tuple(
            dataclasses.replace(each, same_best=bool(yes))
            for each, yes in zip(unsettled, same, strict=True)
        )
        assert found.settled == settled


def test_a_log_that_takes_long_is_not_asked(logged, monkeypatch):
    monkeypatch.setattr(findings, "MOST_LOGGED", logged.log.entries() - 1)
    page = Page(report.render(logged))
    assert "corrsteer study samples" in page.text("samples")
    without = dataclasses.replace(logged, settings=FitSettings(permutations=0))
    assert "no log" in Page(report.render(without)).text("samples")


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_command_line_given_makes_the_run_again(run, settings, tmp_path, monkeypatch):
    from corrsteer.cli import cli
    from corrsteer.cli.declare import made as made_of
    from corrsteer.cli.options import TrainOptions

    monkeypatch.chdir(tmp_path)
    (tmp_path / "my tasks").mkdir()
    (tmp_path / "my tasks" / "a 'b'.jsonl").touch()
    provenance = dataclasses.replace(
        run.provenance, task="my tasks/a 'b'.jsonl", scorer="regex:^ $x", sae_source="raw",
        hook_shift=-1, guards=(),
    )  # fmt: skip
    made = dataclasses.replace(run, provenance=provenance, settings=settings)
    words = shlex.split(reproduce(made))
    assert words[:2] == ["corrsteer", "train"]
    whole = cli.make_context("corrsteer", [], resilient_parsing=True)
    context = cli.commands["train"].make_context("train", words[2:], parent=whole)
    options = made_of(TrainOptions, context.params)
    assert options.settings == settings
    assert options.task == "my tasks/a 'b'.jsonl"
    assert options.setup.scorer == "regex:^ $x"
    assert (options.model.raw, options.model.hook_shift, options.guard) == (True, -1, "none")
    assert (options.model.sae, options.setup.max_new_tokens) == (None, 24)


def test_settings_that_have_no_option_are_named(run):
    made = dataclasses.replace(run, settings=FitSettings(near_ties=5, alpha=0.01))
    assert "near-ties" not in reproduce(made)
    assert beyond_options(made) == {"near_ties": 5, "alpha": 0.01}


def test_visible_shows_what_would_act():
    assert visible("a\tb\nc\r\nd") == "a\tb\nc\nd"
    assert visible("\r\x7f\x9b\u202e\udfff") == "␍‹U+007F›‹U+009B›‹U+202E›\ufffd"  # noqa: RUF001
    family = "\U0001f468\u200d\U0001f469"  # joined by a zero width joiner, which only shows
    assert visible(family) == family


def test_side_by_side_marks_the_words_that_differ():
    ours, theirs = side_by_side("the old blue gate.", "the new blue gate!")
    assert [(s.kind, s.text) for s in ours] == [
        ("same", "the "),
        ("changed", "old"),
        ("same", " "),
        ("same", "blue gate"),
        ("changed", "."),
    ]
    assert [s.text for s in theirs if s.kind == "changed"] == ["new", "!"]


def test_side_by_side_opens_at_the_first_difference_of_long_replies():
    same = "word " * 400
    ours, theirs = side_by_side(same + "left", same + "right")
    assert [s.kind for s in ours] == ["omitted", "same", "changed"]
    assert (ours[0].text, theirs[-1].text) == ("1,880 characters left out", "right")


def test_cut_leaves_out_the_middle():
    head, omitted, tail = cut("a" * 500 + "b" * 500, 300)
    assert (head.text, tail.text) == ("a" * 200, "b" * 100)
    assert omitted.text == "700 characters left out"
    assert [s.text for s in cut("short")] == ["short"]
    assert cut("") == ()


def test_numbers_as_a_report_writes_them():
    assert (percent(0.4), percent(None)) == ("40.0\u00a0%", "–")  # noqa: RUF001
    assert (points(0.26), points(-0.021), points(-1e-9)) == ("+26.0", "−2.1", "0.0")  # noqa: RUF001
    assert p_value(1 / 1001) == "0.001"
    assert (p_value(0.04), p_value(1.0), p_value(None)) == ("0.040", "1.000", "–")  # noqa: RUF001
    assert p_value(2e-9) == "2.0 × 10<sup>−9</sup>"  # noqa: RUF001
    assert p_value(0.0) == "&lt; 10<sup>−300</sup>"  # noqa: RUF001
    assert interval((-0.0001, 0.5)) == "[0.000, 0.500]"
    assert interval((0.1, 0.5), percent) == "[10.0, 50.0]"


@pytest.mark.parametrize(
    ("url", "fine"),
    [
        ("https://www.neuronpedia.org/gemma-2-2b/3", True),
        ("http://localhost:8000/x", True),
        ("javascript:alert(1)", False),
        ("data:text/html,x", False),
        ("//example.org", False),
        ("https:", False),
        ("https://[", False),
        ("https://a/\u202ex", False),
        (None, False),
    ],
)
def test_web_url(url, fine):
    assert web_url(url) == (url if fine else None)


CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_a_browser_shows_it_without_complaint_or_overflow(html, tmp_path):
    """The page logs nothing; copies that may run a script tell by how much they overflow."""
    widths = (320, 390, 1280)
    told = (
        "<script>const page = document.documentElement;"
        "parent.postMessage(page.scrollWidth - page.clientWidth, '*')</script>"
    )
    copy = re.sub(r"<meta http-equiv[^>]*>", "", html).replace("</body>", told + "</body>")
    (tmp_path / "report.html").write_text(html, encoding="utf-8")
    (tmp_path / "copy.html").write_text(copy, encoding="utf-8")
    frames = [f"<iframe src=copy.html width={width} height=900></iframe>" for width in widths]
    (tmp_path / "frames.html").write_text(
        "<!DOCTYPE html><title>over by</title>"
        "<script>onmessage = e => document.title += ' ' + e.data</script>"
        f"<iframe src=report.html></iframe>{''.join(frames)}"
    )
    options = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
        "--disable-background-networking --disable-component-update --enable-logging=stderr "
        f"--virtual-time-budget=3000 --user-data-dir={tmp_path / 'profile'} --dump-dom"
    )
    command = [CHROMIUM, *options.split(), (tmp_path / "frames.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "<title>over by 0 0 0</title>" in done.stdout
    assert "CONSOLE" not in done.stderr
