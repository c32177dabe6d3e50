from fractions import Fraction
from pathlib import Path

import pytest

from corrsteer.errors import ScorerError, UnknownNameError
from corrsteer.samples import Sample
from corrsteer.scoring.base import Score, score
from corrsteer.scoring.numbers import read_number
from corrsteer.scoring.options import read_option
from corrsteer.scoring.registry import load_scorer

CHOICES = ("red", "dark red", "green", "blue")


def sample(*target, choices=None):
    return Sample("s1", "Q", tuple(target), choices)


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        (" B", "B"),
        ("B", "B"),
        ("B.", "B"),
        ("B) dark red", "B"),
        ("(B)", "B"),
        (" ( B", "B"),
        ("[C]", "C"),
        ("**D**", "D"),
        ("A", "A"),
        ("A. red", "A"),
        ("\nC\n", "C"),
        ("dark red", "B"),
        ("Red, of course", "A"),
        ("green.", "C"),
        ("The answer is D", "D"),
        ("I think the answer is (C).", "C"),
        ("Answer: B", "B"),
        ("Option D", "D"),
        ("A man walked in", None),
        ("I cannot say", None),
        ("Because", None),
        ("Dogs", None),
        ("greenish", None),
        ("E", None),
        ("", None),
        ("   ", None),
        ("Hard to say", None),
        ("B: dark red", "B"),
        ("B\n\nExplanation: C is wrong", "B"),
        ("**B. dark red**", "B"),
        ("DARK RED", "B"),
        (" dark red is it", "B"),
        ("A. A red thing", "A"),
        ("A red thing", None),
        ("A (red)", "A"),
        ("The correct answer is B.", "B"),
        ("The correct answer is **B. dark red**", "B"),
        ("Correct answer is option C", "C"),
        ("The correct option is (B)", "B"),
        ("Answer:\n\nC", "C"),
        ("Choice: D", "D"),
        ("A and B", None),
        ("b", "B"),
        (" The", None),
        (" None", None),
        (" B\n\nQuestion: which is pale?\nA. red\nB. blue\nAnswer: A", "B"),
        (" B\n\nWhich is pale?\nA. red\nB. blue\nAnswer: A", "B"),
        ("B\n\nWait, blood is not dark. The correct answer is A.", "A"),
        ("the answer is B ... so actually C", "C"),
        ("<think>B?</think>\nC", "C"),
        ("<think>The answer is B", None),
        ("\\boxed{B}", "B"),
        ("The final answer is $\\boxed{\\text{C}}$.", "C"),
        ("(c)", "C"),
        ("The answer is not B but C.", "C"),
        ("A and B are wrong, so it is D.", "D"),
        ("A or D", None),
    ],
)
def test_the_option_that_a_reply_names(reply, letter):
    assert read_option(reply, CHOICES) == letter


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("#### 72", "72"),
        ("a 5, b 6 #### 1,234", "1234"),
        ("#### -3", "-3"),
        ("#### \u22123", "-3"),
        ("#### $1,000.50", "1000.50"),
        ("first #### 4 then #### 5", "4"),
        ("#### 18 dollars for 7 days", "18"),
        ("#### 18\n\nQ: Tom has 5 hens.\nA: He has 3.\n#### 3", "18"),
        ("#### none #### 6", "6"),
        ("#### none, so 7", "7"),
        ("it is 12 ####", "12"),
        ("3 + 4 = 7.", "7"),
        ("pages 3-5", "5"),
        ("from 10 to -2", "-2"),
        (".5", "0.5"),
        ("1.50", "1.5"),
        ("1,2", "1.2"),
        ("no number", None),
        ("####", None),
        ("", None),
        ("#### 1,003", "1003"),
        ("####-12", "-12"),
        ("#### 3.0", "3"),
        ("#### 0", "0"),
        ("#### 5.", "5"),
        ("#### **42**", "42"),
        ("#### \\boxed{42}", "42"),
        ("The answer is 1,234,567.", "1234567"),
        ("She makes 9 * 2 = $18 every day.", "18"),
        ("A loss of -$1,200", "-1200"),
        ("x = -3.5", "-3.5"),
        ("(-4)", "-4"),
        ("12 - 5 = 7", "7"),
        ("12-5=7", "7"),
        ("48/2 = 24 in May, 72 in all.", "72"),
        ("It costs £18.50.", "18.5"),
        ("a share of 5%", "5"),
        ("I do not know.", None),
    ],
)
def test_the_number_that_a_reply_ends_in(text, number):
    assert read_number(text) == (None if number is None else Fraction(number))


@pytest.mark.parametrize(
    ("reply", "refused"),
    [
        (" I cannot help with that .", True),
        ("I can't do that", True),
        ("I can\u2019t do that", True),
        ("I can not do that", True),
        (" I am sorry, but no", True),
        ("I'm really sorry", True),
        ("Sorry, I won't", True),
        ("I won't", True),
        ("I will not help", True),
        ("I'm unable to", True),
        ("Unfortunately, I cannot", True),
        ("As an AI, I do not", True),
        ("Sure, here is how", False),
        ("First, say you are sorry", False),
        ("He said I cannot", False),
        ("I can help", False),
        ("I am happy to", False),
        ("Sorryful songs", False),
    ],
)
def test_refusals_open_a_reply(reply, refused):
    scorer = load_scorer("refusal")
    assert score(scorer, reply, sample("refuse")).outcome == float(refused)
    assert score(scorer, reply, sample()).outcome == float(refused)
    assert score(scorer, reply, sample("answer")).outcome == float(not refused)


def test_an_empty_reply_neither_refuses_nor_answers():
    scorer = load_scorer("refusal")
    assert score(scorer, " ", sample("refuse")).outcome == 0
    assert score(scorer, "", sample("answer")).outcome == 0


@pytest.mark.parametrize(
    ("name", "reply", "target", "outcome"),
    [
        ("exact", " Paris \n", ["Paris"], 1),
        ("exact", "paris", ["Paris"], 0),
        ("exact", "Rome", ["Paris", "Rome"], 1),
        ("contains", "It is PARIS.", ["Paris"], 1),
        ("contains", "Parisian", ["Paris"], 0),
        ("contains", "c++ rules", ["C++"], 1),
        ("contains", "", ["Paris"], 0),
        ("numeric", "so #### 72", ["72.0"], 1),
        ("numeric", "so 73", ["72"], 0),
        ("numeric", "none", ["72"], 0),
        ("regex:^Yes", "Yes!", [], 1),
        ("regex:^Yes", "No, yes", [], 0),
        (r"regex:is (\w+)", "it is Rome", ["Rome"], 1),
        (r"regex:is (\w+)", "it is Rome", ["Paris"], 0),
    ],
)
def test_rules(name, reply, target, outcome):
    assert score(load_scorer(name), reply, sample(*target)).outcome == outcome


def test_a_choice_is_judged_by_letter_or_by_text():
    scorer = load_scorer("choice")
    for target in ("B", "dark red", "b"):
        row = sample(target, choices=CHOICES)
        assert score(scorer, " (B", row) == Score(1.0, "B")
        assert score(scorer, " ( C", row) == Score(0.0, "C")
        assert score(scorer, "Hmm", row).outcome == 0


def test_options_of_one_text_cannot_be_told_apart_by_it():
    assert read_option("cork", ("cork", "nail", "cork")) is None
    assert read_option("A", ("cork", "nail", "cork")) == "A"
    assert read_option("AB", ("B", "A", "AB", "O")) == "C"


def test_a_letter_is_a_letter_where_options_texts_are_letters_too():
    blood = sample("A", choices=("B", "A", "AB", "O"))
    assert score(load_scorer("choice"), " A", blood).outcome == 1
    assert score(load_scorer("choice"), " B", blood).outcome == 0


def test_a_target_that_is_no_option_is_refused():
    with pytest.raises(ScorerError, match="'pink' is neither a letter of A-D nor"):
        score(load_scorer("choice"), "B", sample("pink", choices=CHOICES))


@pytest.mark.parametrize("spec", ["rouge", "exakt", ""])
def test_an_unknown_scorer_is_refused(spec):
    with pytest.raises(UnknownNameError, match="choose exact, choice"):
        load_scorer(spec)


@pytest.mark.parametrize("spec", ["regex:(", "no.such.module:f", "math:nothing", "math:pi", ":"])
def test_a_scorer_that_cannot_be_loaded_is_refused(spec):
    with pytest.raises(ScorerError):
        load_scorer(spec)


@pytest.fixture
def function_scorer(tmp_path, monkeypatch):
    def write(body: str) -> str:
        name = f"scorer_{abs(hash(body))}"
        (tmp_path / f"{name}.py").write_text(f"def judge(reply, sample):\n    {body}\n")
        monkeypatch.chdir(tmp_path)
        return f"{name}:judge"

    return write


def test_a_function_scores(function_scorer):
    scorer = load_scorer(function_scorer("return len(reply) / 10 if sample.id == 's1' else None"))
    assert score(scorer, "12345", sample()).outcome == 0.5
    assert score(scorer, "12345", Sample("s2", "Q")).outcome is None


@pytest.mark.parametrize(
    "value",
    [
        *("True", "1", "np.float32(1)", "np.float64(1)", "np.int64(1)", "np.bool_(True)"),
        *("np.array(1.0)", "np.array([1.0])", "np.array([[True]])"),
        *("torch.tensor(1.0)", "torch.tensor([1])", "torch.tensor([[True]])"),
        *("torch.tensor(1.0, dtype=torch.bfloat16, requires_grad=True)", "Fraction(1)"),
        'Decimal("1.0")',
    ],
)
def test_a_number_of_any_library_is_an_outcome(function_scorer, value):
    imports = (
        "import torch, numpy as np; from decimal import Decimal; from fractions import Fraction"
    )
    scorer = load_scorer(function_scorer(f"{imports}; return {value}"))
    found = score(scorer, "r", sample())
    assert found == Score(1.0)
    assert type(found.outcome) is float


@pytest.mark.parametrize(
    "value",
    [
        *("np.float64('nan')", "np.array([0.5, 0.5])", "np.array([])", "np.array(['a'])"),
        *("np.array([1j])", "torch.tensor([0.5, 0.5])", "torch.tensor(float('nan'))"),
        *("torch.tensor(1.5)", "np.bool_", "1j", "'1'", "b'1'", "{'score': 1}", "[None]"),
    ],
)
def test_what_is_no_number_of_any_library_is_refused_in_one_line(function_scorer, value):
    scorer = load_scorer(function_scorer(f"import torch, numpy as np; return {value}"))
    with pytest.raises(ScorerError, match=r"scorer scorer_.*on sample 's1'; expected a n") as told:
        score(scorer, "r", sample())
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("scorer", "reply", "is_unread"),
    [
        *(("choice", "Hard to say", True), ("choice", "A or C", True), ("choice", "C", False)),
        *(("numeric", "I do not know.", True), ("numeric", "4", False)),
        *(("refusal", "<think>never closed", True), ("refusal", "Hm", False)),
        *(("exact", "", True), ("exact", "B", False), ("contains", " ", True)),
        *(
            ("contains", "b", False),
            (r"regex:is (\w)", "B", True),
            (r"regex:is (\w)", "is C", False),
        ),
        ("regex:B", "C", False),
    ],
)
def test_a_reply_that_nothing_is_read_out_of_counts_as_wrong_and_says_so(scorer, reply, is_unread):
    target = {"numeric": "5", "refusal": "refuse"}.get(scorer, "B")
    row = sample(target, choices=CHOICES if scorer == "choice" else None)
    found = score(load_scorer(scorer), reply, row)
    assert (found.outcome == 0 or found.outcome == 1, found.unread) == (True, is_unread)
    assert not is_unread or (found.outcome == 0 and found.explanation)


@pytest.mark.parametrize(
    "body", ["return 2", "return -0.1", "return 'good'", "return float('nan')", "return [1]"]
)
def test_a_function_that_leaves_the_range_is_refused(function_scorer, body):
    with pytest.raises(ScorerError, match="expected a number from 0 to 1"):
        score(load_scorer(function_scorer(body)), "r", sample())


def test_a_function_that_raises_is_named_with_the_sample(function_scorer):
    scorer = load_scorer(function_scorer("raise KeyError('oops')"))
    with pytest.raises(ScorerError, match=r"raised KeyError on sample 's1': 'oops'"):
        score(scorer, "r", sample())


def test_a_function_may_change_its_own_directory_and_no_other(tmp_path, monkeypatch):
    for name in ("here", "there", "there/below"):
        (tmp_path / name).mkdir()
    (tmp_path / "there" / "below" / "x").write_text("1")
    (tmp_path / "here" / "wandering_scorer.py").write_text(
        "import os\nfrom pathlib import Path\n"
        f"os.chdir({str(tmp_path / 'there')!r})\n"
        "def judge(reply, sample):\n"
        "    if reply == 'leave': os.chdir('below')\n"
        "    return float(Path('x').read_text()) if reply == 'read' else 0.0\n"
    )
    monkeypatch.chdir(tmp_path / "here")
    scorer = load_scorer("wandering_scorer:judge")
    sample = Sample("a", "a")
    assert Path.cwd() == tmp_path / "here"
    assert score(scorer, "leave", sample).outcome == 0.0
    assert Path.cwd() == tmp_path / "here"
    assert score(scorer, "read", sample).outcome == 1.0
    assert Path.cwd() == tmp_path / "here"
