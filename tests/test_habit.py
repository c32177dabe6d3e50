"""A model that gives one answer whatever it is asked is told as such."""

from corrsteer.runs.evaluation import CommonestAnswer, Prediction


def prediction(number, answer, text):
    return Prediction(str(number), "p", ("A",), text, answer, 0.0, text, answer, 0.0)


def test_the_commonest_answer_is_what_was_read_or_else_the_text():
    answers = ["A"] * 19 + ["B"]
    found = CommonestAnswer.of([prediction(n, a, f"say {n}") for n, a in enumerate(answers)])
    assert found == CommonestAnswer("A", 0.95)
    assert 'Without steering 95% of the replies give one answer, "A":' in str(found)
    texts = ["Yes. ", "yes.", "No.", " Yes."]
    found = CommonestAnswer.of([prediction(n, None, text) for n, text in enumerate(texts)])
    assert found == CommonestAnswer("yes.", 0.75)
    assert str(found) == ""


def test_no_reply_has_no_commonest_answer():
    assert CommonestAnswer.of([]) is None
