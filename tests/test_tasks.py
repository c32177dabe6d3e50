import json

import pytest

import corrsteer as cs
from corrsteer.errors import DataError, ScorerError, SettingsError, UnknownNameError
from corrsteer.tasks import known_tasks, mini


@pytest.fixture
def write(tmp_path):
    def write(*rows, name="t.jsonl"):
        path = tmp_path / name
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        path.write_text("\n".join(lines), encoding="utf-8")
        return path

    return write


GOOD = {"prompt": "2 + 2 =", "target": "4"}


def test_rows_become_samples(write):
    path = write(
        {"id": "a", "prompt": "Q", "target": ["x", "y"], "split": "fit", "topic": "t"},
        {"messages": [{"role": "user", "content": "hi"}], "target": 4, "split": "validation"},
        {"prompt": "C", "target": "B", "choices": ["one", "two"], "split": "test", "id": 7},
    )
    task = cs.load_task(path, scorer="exact")
    (fit,), (select,), (test,) = task.fit, task.select, task.test
    assert (fit.id, fit.prompt, fit.target, fit.metadata) == ("a", "Q", ("x", "y"), {"topic": "t"})
    assert (select.target, select.messages) == (("4",), ({"role": "user", "content": "hi"},))
    assert (test.id, test.choices) == ("7", ("one", "two"))
    assert task.max_new_tokens == 32


def test_splits_are_cut_by_the_seed(write):
    path = write(*(GOOD | {"id": i} for i in range(100)))
    task = cs.load_task(path, scorer="exact", seed=1)
    parts = [[s.id for s in split] for split in (task.fit, task.select, task.test)]
    assert [len(part) for part in parts] == [50, 20, 30]
    assert len(set().union(*parts)) == 100
    again = cs.load_task(path, scorer="exact", seed=1)
    other = cs.load_task(path, scorer="exact", seed=2)
    assert again.fit == task.fit
    assert other.fit != task.fit


def test_blank_lines_and_a_byte_order_mark_are_skipped(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\r\n\n   \n")
    task = cs.load_task(path, scorer="exact")
    assert len(task.fit) + len(task.select) + len(task.test) == 1


def test_choices_need_no_scorer_named(write):
    path = write({"prompt": "Q", "target": "A", "choices": ["x", "y"]})
    assert cs.load_task(path).scorer.name == "choice"
    with pytest.raises(DataError, match="which scorer"):
        cs.load_task(write(GOOD))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "list instead of an object"),
        ('"text"', "str instead of an object"),
        ("null", "NoneType instead of an object"),
        ("[" * 100_000, "nested too deep|not JSON"),
        ({"target": "4"}, "either `prompt` or `messages`"),
        (GOOD | {"messages": []}, "either `prompt` or `messages`"),
        ({"prompt": "", "target": "4"}, '`prompt` is ""'),
        ({"prompt": 5, "target": "4"}, "`prompt` is 5"),
        ({"prompt": None, "target": "4"}, "`prompt` is null"),
        ({"prompt": "Q"}, "no `target`"),
        ({"prompt": "Q", "target": None}, "no `target`"),
        ({"prompt": "Q", "target": []}, r"`target` is \[\]"),
        ({"prompt": "Q", "target": {"a": 1}}, "`target` is"),
        ({"prompt": "Q", "target": [True]}, r"`target` is \[true\]"),
        (GOOD | {"choices": ["one"]}, "1 choices; expected 2 to 26"),
        (GOOD | {"choices": "one two"}, "1 choices"),
        (GOOD | {"choices": [None, 1]}, "`choices` is"),
        (GOOD | {"id": [1]}, "`id` is"),
        (GOOD | {"id": "first"}, "id 'first' was used before"),
        (GOOD | {"split": "fit"}, "`split` is null|`split`"),
        ({"messages": "hi", "target": "4"}, '`messages` is "hi"'),
        ({"messages": [], "target": "4"}, r"`messages` is \[\]"),
        ({"messages": [{"role": "user"}], "target": "4"}, "a message is"),
        ({"messages": ["hi"], "target": "4"}, "a message is"),
    ],
)
def test_a_malformed_line_is_named_by_its_number(write, line, message):
    path = write(GOOD | {"id": "first"}, "", line)
    with pytest.raises(DataError, match=message) as refusal:
        cs.load_task(path, scorer="exact")
    text = str(refusal.value)
    assert "\n" not in text
    if "split" not in message:  # there the first line is the odd one out
        assert "line 3" in text


def test_a_line_that_is_not_utf8_is_named(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b'\n{"prompt": "\xff", "target": "4"}')
    with pytest.raises(DataError, match="line 2: not UTF-8"):
        cs.load_task(path, scorer="exact")


def test_an_unknown_split_is_refused(write):
    with pytest.raises(DataError, match='line 1: `split` is "holdout"; expected fit, select'):
        cs.load_task(write(GOOD | {"split": "holdout"}), scorer="exact")


def test_a_target_that_is_no_choice_is_refused_before_any_run(write):
    path = write({"prompt": "Q", "target": "Z", "choices": ["x", "y"]})
    with pytest.raises(DataError, match=r"line 1: .*'Z' is neither"):
        cs.load_task(path)


@pytest.mark.parametrize("content", ["", "\n\n", "  "])
def test_an_empty_file_is_refused(write, content):
    with pytest.raises(DataError, match="has no rows"):
        cs.load_task(write(content), scorer="exact")


def test_a_missing_or_foreign_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="cannot read"):
        cs.load_task(tmp_path / "none.jsonl", scorer="exact")
    (tmp_path / "t.csv").write_text("a,b")
    with pytest.raises(DataError, match=r"is no \.jsonl file"):
        cs.load_task(tmp_path / "t.csv")


def test_an_unknown_task_is_refused_with_the_nearest_name():
    with pytest.raises(UnknownNameError, match="did you mean 'mini-mmlu'"):
        cs.load_task("mini-mmul")
    with pytest.raises(ScorerError):
        cs.load_task("mini-mmlu", scorer="no.such:thing")
    with pytest.raises(SettingsError, match="max_new_tokens is 0"):
        cs.load_task("mini-mmlu", max_new_tokens=0)


@pytest.mark.parametrize("name", mini.NAMES)
def test_built_in_tasks_have_three_disjoint_splits(name):
    task = cs.load_task(name)
    prompts = [{s.prompt for s in split} for split in (task.fit, task.select, task.test)]
    assert all(prompts)
    assert not prompts[0] & prompts[1]
    assert not prompts[0] & prompts[2]
    assert not prompts[1] & prompts[2]
    assert all(guard in known_tasks() for guard in task.guards)
    if name.startswith("mini-"):
        assert len(task.test) >= 400


def test_options_replace_a_built_in_tasks_own():
    task = cs.load_task("mini-gsm8k", scorer="contains", max_new_tokens=3)
    assert (task.scorer.name, task.max_new_tokens) == ("contains", 3)
