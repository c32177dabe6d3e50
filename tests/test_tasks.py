import json
import math

import pytest

import corrsteer as cs
from corrsteer.errors import DataError, ScorerError, SettingsError, UnknownNameError
from corrsteer.samples import Sample, group_ids
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


def test_what_a_table_fills_up_with_is_absent(write):
    """As pandas, and a union of schemas, write rows that lack fields that others have."""
    nothing = {
        "choices": None,
        "messages": None,
        "group": math.nan,
        "split": None,
        "note": math.nan,
    }
    path = write(
        nothing | {"prompt": "boats", "target": 3.0, "id": 4.0, "year": 1999.0},
        nothing | {"prompt": "huts", "target": [2.0, 0.5, "four"], "id": None, "share": 0.25},
        {"prompt": None, "messages": [{"role": "user", "content": "?", "name": None}], "target": 1},
        {"prompt": "trees", "target": 2.0**60, "id": math.nan, "group": 12.0},
    )
    task = cs.load_task(path, scorer="exact")
    by_id = {sample.id: sample for sample in (*task.fit, *task.select, *task.test)}
    assert [by_id[name].target for name in ("4", "1")] == [("3",), ("2", "0.5", "four")]
    assert (by_id["4"].metadata, by_id["1"].metadata) == ({"year": 1999}, {"share": 0.25})
    assert by_id["4"].choices is by_id["4"].messages is by_id["4"].group is None
    assert by_id["2"].messages == ({"role": "user", "content": "?"},)
    assert (by_id["3"].group, by_id["3"].target) == ("12", (str(2.0**60),))


def test_a_row_without_an_id_takes_none_that_another_has(write):
    path = write(GOOD | {"id": 1.0}, GOOD | {"id": None}, GOOD | {"id": "2"}, GOOD)
    task = cs.load_task(path, scorer="exact")
    names = {sample.id for sample in (*task.fit, *task.select, *task.test)}
    assert names == {"1", "row 1", "2", "3"}


@pytest.mark.parametrize("seed", range(4))
def test_what_belongs_together_is_cut_together(write, seed):
    """Rows of a group, and rows of one prompt, which link their groups."""
    rows = [{"prompt": f"q {i}", "group": i // 4 if i < 80 else None} for i in range(100)]
    rows += [{"prompt": f"q {i}"} for i in range(90, 100)] + [{"prompt": "q 0", "group": "other"}]
    rows += [{"prompt": "q 200", "group": "other"}]
    task = cs.load_task(write(*rows), scorer="regex:a", seed=seed)
    splits = (task.fit, task.select, task.test)
    assert [abs(len(part) - n) <= 4 for part, n in zip(splits, (56, 22, 34), strict=True)] == [
        True
    ] * 3
    homes: dict[int, set[int]] = {}
    samples = [(number, sample) for number, part in enumerate(splits) for sample in part]
    for (number, _), group in zip(samples, group_ids([each for _, each in samples]), strict=True):
        homes.setdefault(group, set()).add(number)
    assert len(homes) == 20 + 20  # `other` is that of the rows 0 to 3
    assert {len(found) for found in homes.values()} == {1}


def test_splits_are_cut_by_the_seed(write):
    path = write(*({"prompt": f"{i} + 2 =", "target": "4", "id": i} for i in range(100)))
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
        ({"prompt": None, "target": "4"}, "either `prompt` or `messages`"),
        ({"prompt": "Q"}, "no `target`"),
        ({"prompt": "Q", "target": None}, "no `target`"),
        ({"prompt": "Q", "target": math.nan}, "no `target`"),
        ({"prompt": "Q", "target": math.inf}, "`target` is Infinity"),
        ({"prompt": "Q", "target": ["a", None]}, r'`target` is \["a", null\]'),
        ({"prompt": "Q", "target": []}, r"`target` is \[\]"),
        ({"prompt": "Q", "target": {"a": 1}}, "`target` is"),
        ({"prompt": "Q", "target": [True]}, r"`target` is \[true\]"),
        (GOOD | {"choices": ["one"]}, "1 choices; expected 2 to 26"),
        (GOOD | {"choices": "one two"}, "1 choices"),
        (GOOD | {"choices": [None, 1]}, "`choices` is"),
        (GOOD | {"id": [1]}, "`id` is"),
        (GOOD | {"id": True}, "`id` is true"),
        (GOOD | {"group": 0.5}, "`group` is 0.5"),
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


ASK = {"role": "user", "content": "Which tide?"}
CALL = {"type": "function", "function": {"name": "tide", "arguments": {"port": "west", "n": 2}}}
ASKED = {"role": "assistant", "content": "", "tool_calls": [CALL]}
TOLD = {"role": "tool", "content": "low", "name": "tide", "tool_call_id": "a1"}


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ([ASK | {"name": "Ida"}], [ASK | {"name": "Ida"}]),
        ([ASK, ASKED, TOLD], [ASK, ASKED, TOLD]),
        ([ASK, ASKED | {"content": None, "refusal": None}, TOLD], [ASK, ASKED, TOLD]),
        ([ASK, {"role": "assistant", "tool_calls": [CALL]}, TOLD], [ASK, ASKED, TOLD]),
        (
            [
                ASK,
                ASKED | {"tool_calls": [{"function": {"name": "f", "arguments": '{"a": null}'}}]},
                TOLD,
            ],
            [
                ASK,
                ASKED | {"tool_calls": [{"function": {"name": "f", "arguments": {"a": None}}}]},
                TOLD,
            ],
        ),
        (
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "Which "},
                        {"type": "text", "text": "tide?", "image_url": None},
                    ],
                }
            ],
            [ASK],
        ),
        (
            [ASK, {"role": "assistant", "content": "Low.", "reasoning_content": "mud"}, ASK],
            [ASK, {"role": "assistant", "content": "Low.", "reasoning_content": "mud"}, ASK],
        ),
    ],
)
def test_nothing_of_a_chat_is_dropped(write, given, read):
    task = cs.load_task(write({"messages": given, "split": "test"}), scorer="regex:a")
    assert list(task.test[0].messages) == read


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([ASK, {"role": "assistant", "content": "Low."}], "remove that message, or .* `reply`"),
        ([ASK, ASKED], "the last message is the assistant's"),
        ([{"role": "human", "content": "Tide?"}], '"human"; expected system, .* or tool'),
        ([{"from": "human", "value": "Tide?"}], "expected role and content"),
        ([{"role": "user", "content": None}], "expected role and content"),
        ([{"role": "user", "content": []}], "expected role and content"),
        ([{"role": "user", "content": [{"type": "image", "url": "x"}]}], "a part of a message is"),
        ([{"role": "user", "content": ["Tide?"]}], "a part of a message is"),
        ([ASK | {"name": 3}], "`name` of a message is 3"),
        ([ASK | {"tool_calls": [CALL]}], "`tool_calls` of the user"),
        ([ASK, ASKED | {"tool_calls": "tide()"}, TOLD], '`tool_calls` is "tide'),
        ([ASK, ASKED | {"tool_calls": [{"name": "tide"}]}, TOLD], "a tool call is"),
        (
            [ASK, ASKED | {"tool_calls": [{"function": {"name": "f", "arguments": "west"}}]}, TOLD],
            "a tool call is",
        ),
    ],
)
def test_a_chat_that_cannot_be_given_whole_is_refused(write, messages, message):
    path = write(GOOD, {"messages": messages, "target": "4"})
    with pytest.raises(DataError, match=f"line 2: .*{message}"):
        cs.load_task(path, scorer="exact")


def test_a_chat_reads_with_its_tool_calls():
    sample = Sample("a", "", messages=(ASK, ASKED, TOLD))
    assert sample.text == 'user: Which tide?\nassistant: tide({"port": "west", "n": 2})\ntool: low'


@pytest.mark.parametrize("content", ["", "\n\n", "  "])
def test_an_empty_file_is_refused(write, content):
    with pytest.raises(DataError, match="has no rows"):
        cs.load_task(write(content), scorer="exact")


def test_a_missing_or_foreign_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="cannot read"):
        cs.load_task(tmp_path / "none.jsonl", scorer="exact")
    (tmp_path / "t.txt").write_text("a,b")
    with pytest.raises(DataError, match=r"is no \.jsonl file"):
        cs.load_task(tmp_path / "t.txt")


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
