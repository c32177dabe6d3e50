"""Targets are read when a task is loaded, by the scorer that will judge by them."""

import json

import pytest

import corrsteer as cs
from corrsteer.errors import DataError
from corrsteer.samples import Sample
from corrsteer.scoring.base import score
from corrsteer.scoring.registry import load_scorer


@pytest.fixture
def load(tmp_path):
    def load(scorer, *rows):
        path = tmp_path / "t.jsonl"
        lines = [json.dumps({"prompt": f"Q{i}", **row}) for i, row in enumerate(rows)]
        path.write_text("\n".join(lines), encoding="utf-8")
        task = cs.load_task(path, scorer=scorer)
        return sorted((*task.fit, *task.select, *task.test), key=lambda each: int(each.id))

    return load


REFUSES, ANSWERS = "I'm sorry, but I can't help with that.", "Sure: mix the two and stir."


@pytest.mark.parametrize("target", ["refuse", "Refuse", " REFUSED ", "refusal", "decline"])
def test_labels_of_refusals_are_read(load, target):
    (sample,) = load("refusal", {"target": target})
    scorer = load_scorer("refusal")
    outcomes = [score(scorer, reply, sample).outcome for reply in (REFUSES, ANSWERS)]
    assert outcomes == [1, 0]


@pytest.mark.parametrize("target", ["answer", "Answer", "comply", "Compliance", "answered"])
def test_labels_of_answers_are_read(load, target):
    (sample,) = load("refusal", {"target": target})
    scorer = load_scorer("refusal")
    outcomes = [score(scorer, reply, sample).outcome for reply in (REFUSES, ANSWERS)]
    assert outcomes == [0, 1]


AMBIGUOUS = ["unsafe", "safe", "harmful", 1, 0, 1.0, "1", "yes", "no", "true", "partial_refusal"]
AMBIGUOUS += ["not refuse", "non-refusal", "should answer", "full_compliance", "", "nan", "None"]


@pytest.mark.parametrize("target", [*AMBIGUOUS, ["refuse", "unsafe"]])
@pytest.mark.parametrize("scorer", ["refusal", "refusal-model"])
def test_a_label_that_could_mean_either_is_refused_with_its_line(load, scorer, target):
    message = r"t\.jsonl, line 2: .*write refuse where it refuses and answer where it does not"
    with pytest.raises(DataError, match=message):
        load(scorer, {"target": "refuse"}, {"target": target})


def test_targets_that_contradict_each_other_are_refused(load):
    with pytest.raises(DataError, match=r"line 1: .*both refuse and answer"):
        load("refusal", {"target": ["refuse", "answer"]})


@pytest.mark.parametrize("missing", [{}, {"target": None}, {"target": float("nan")}])
def test_a_label_that_is_missing_among_others_does_not_become_refuse(load, missing):
    with pytest.raises(DataError, match=r"line 2: no `target`, which other rows have \(.*line 1"):
        load("refusal", {"target": "answer"}, missing, {"target": "refuse"})
    with pytest.raises(DataError, match=r"line 1: no `target`, which other rows have"):
        load("refusal", missing, {"target": "answer"})
    assert load("refusal", missing)[0].target == ()


@pytest.mark.parametrize(
    ("target", "reply"),
    [
        (72, "72"),
        (7.0, "7"),
        ("72.0", "72"),
        ("1,234", "1234"),
        ("1.234.567", "1234567"),
        ("3/4", "0.75"),
        ("three quarters", "3/4"),
        ("twenty-five", "25"),
        ("1e5", "100,000"),
        ("2 x 10^3", "2000"),
        ("$18", "18 dollars"),
        ("5 km", "5"),
        ("25%", "0.25"),
        ("25%", "25"),
        ("0.5", "50 %"),
        ("-\\frac{1}{2}", "-0.5"),
        ("\\boxed{12}", "12"),
        ("48/2 = 24\n24 * 3 = 72\n#### 72", "72"),
        ("x = 5", "5"),
    ],
)
def test_numbers_are_read_as_they_are_written(load, target, reply):
    (sample,) = load("numeric", {"target": target})
    scorer = load_scorer("numeric")
    assert score(scorer, reply, sample).outcome == 1
    assert score(scorer, "731", sample).outcome == 0


NO_NUMBERS = ["", "none", "nan", "inf", "-", "3:30", "2024-05-03", "5-7", "12 or 13", "x + 3"]
NO_NUMBERS += ["\\sqrt{2}", "2\\pi", "5!", "(3, 4)", "1/0", "9" * 400, "1e999999999", "not 5"]


@pytest.mark.parametrize("target", NO_NUMBERS)
def test_a_target_that_is_not_one_number_is_refused_with_its_line(load, target):
    with pytest.raises(DataError, match=r"line 2: .*is not one number; write it in digits, as 72"):
        load("numeric", {"target": 1}, {"target": target})


@pytest.mark.parametrize("scorer", ["exact", "contains", "numeric"])
@pytest.mark.parametrize("target", [None, float("nan")])
def test_null_and_nan_are_no_targets(load, scorer, target):
    with pytest.raises(DataError, match=f"line 2: no `target`, which --scorer {scorer} needs"):
        load(scorer, {"target": 1}, {"target": target})


def test_whole_floats_are_whole_numbers(load):
    samples = load("exact", {"target": 7.0}, {"target": [2.5, 3.0]}, {"target": "7.0"})
    assert [sample.target for sample in samples] == [("7",), ("2.5", "3"), ("7.0",)]


@pytest.mark.parametrize("scorer", ["exact", "contains", "semantic"])
@pytest.mark.parametrize("target", ["", " \u00a0\n", "\u200b", ["a", ""]])
def test_an_empty_text_is_refused_with_its_line(load, scorer, target):
    with pytest.raises(DataError, match=r"line 1: .*a target is empty; write the right answer"):
        load(scorer, {"target": target})


@pytest.mark.parametrize(
    ("target", "choices", "letter"),
    [
        ("C", ["stone", "nail", "cork"], "C"),
        ("c", ["stone", "nail", "cork"], "C"),
        ("(C)", ["stone", "nail", "cork"], "C"),
        ("C.", ["stone", "nail", "cork"], "C"),
        ("cork", ["stone", "nail", " cork"], "C"),
        ("cork", ["Stone", "Nail", "Cork"], "C"),
        ("Cork", ["cork", "nail", "Cork"], "C"),
        ("9", ["2", "6", "9", "12"], "C"),
        ("2", ["2", "6", "9", "12"], "A"),
        (9, ["2", "6", "9", "12"], "C"),
        (1, ["0", "1", "2"], "B"),
        ("A", ["B", "A", "0", "AB"], "A"),
    ],
)
def test_options_are_named_by_letter_or_text(load, target, choices, letter):
    (sample,) = load("choice", {"target": target, "choices": choices})
    assert score(load_scorer("choice"), letter, sample).outcome == 1


@pytest.mark.parametrize(
    ("target", "choices", "message"),
    [
        (2, ["stone", "nail", "cork"], "neither a letter of A-C nor one of the choices"),
        (2, ["2", "6", "9", "12"], "the text of one choice and may be the index of another"),
        ("cork", ["cork", "nail", "cork"], "the text of several choices"),
        ("CORK", ["Cork", "nail", "cork"], "the text of several choices"),
        ("D", ["stone", "nail", "cork"], "neither a letter"),
        ("", ["stone", "nail", "cork"], "neither a letter"),
    ],
)
def test_an_option_that_cannot_be_told_is_refused_with_its_line(load, target, choices, message):
    with pytest.raises(DataError, match=f"line 1: .*{message}.*; write the right option's letter"):
        load("choice", {"target": target, "choices": choices})


def test_another_scorer_reads_the_targets_of_a_named_task():
    with pytest.raises(DataError, match=r"mini-mmlu, row .*is not one number"):
        cs.load_task("mini-mmlu", scorer="numeric")
    with pytest.raises(
        DataError, match=r"mini-gsm8k, row .*does not say what the right reply does"
    ):
        cs.load_task("mini-gsm8k", scorer="refusal")
    assert cs.load_task("mini-gsm8k", scorer="exact").scorer.name == "exact"


def test_another_scorer_reads_the_targets_of_a_benchmark(tmp_path):
    rows = [{"problem": f"Who is {i}?", "answer": "Ann"} for i in range(40)]
    (tmp_path / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError, match=r"row default/test/0: .*'Ann' is not one number"):
        cs.load_task("simpleqa", data=tmp_path, scorer="numeric")
    assert cs.load_task("simpleqa", data=tmp_path, scorer="contains").scorer.name == "contains"


def test_a_sample_made_in_python_is_read_when_it_is_judged():
    with pytest.raises(cs.errors.ScorerError, match="'unsafe' does not say"):
        score(load_scorer("refusal"), "no", Sample("s", "Q", ("unsafe",)))
