"""Rows with replies that were rated already: what is taken, as what, and what is refused."""

import csv
import gzip
import json

import pytest

import corrsteer as cs
from corrsteer.errors import DataError, SettingsError
from corrsteer.samples import RatedReply, group_ids
from corrsteer.scoring.rated import RATED
from corrsteer.tasks.marks import outcomes_of

N = 20


def written(tmp_path, row, name="rows.jsonl"):
    path = tmp_path / name
    path.write_text("\n".join(json.dumps(row(i)) for i in range(N)))
    return path


def every(task):
    return [*task.fit, *task.select, *task.test]


def chat(i, **others):
    turns = [{"role": "user", "content": f"p {i}"}, {"role": "assistant", "content": f"r{i}"}]
    return {"messages": turns, **others}


SHAPES = {
    "own": lambda i: {"prompt": f"p {i}", "reply": f"r{i}", "score": i % 2},
    "reward": lambda i: {"prompt": f"p {i}", "response": f"r{i}", "reward": 2 * (i % 2) - 1},
    "label": lambda i: {"prompt": f"p {i}", "completion": f"r{i}", "label": i % 2 == 1},
    "thumbs": lambda i: {"question": f"p {i}", "output": f"r{i}", "feedback": ["👎", "👍"][i % 2]},
    "stars": lambda i: {"input": f"p {i}", "response": f"r{i}", "rating": 1 + 4 * (i % 2)},
    "chat": lambda i: chat(i, outcome=i % 2),
    "turns": lambda i: {
        "prompt": [{"role": "user", "content": f"p {i}"}],
        "completion": [{"role": "assistant", "content": f"r{i}"}],
        "label": i % 2 == 1,
    },
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_what_other_tools_write_is_read_as_prompt_reply_and_score(tmp_path, shape, caplog):
    with caplog.at_level("INFO", "corrsteer"):
        task = cs.load_task(written(tmp_path, shape))
    assert task.scorer is task.fit_scorer is RATED
    assert not task.generates
    found = {int(each.id): each for each in every(task)}
    assert {i: each.rated for i, each in found.items()} == {
        i: RatedReply(f"r{i}", float(i % 2)) for i in range(N)
    }
    assert all(each.text.removeprefix("user: ") == f"p {i}" for i, each in found.items())
    assert "20 replies, in" in caplog.text
    assert "were rated already, in" in caplog.text


def test_a_table_and_compressed_lines_are_read_alike(tmp_path):
    lines = written(tmp_path, lambda i: {"prompt": f"p {i}", "reply": "a, b\nc", "score": i % 2})
    with gzip.open(tmp_path / "rows.jsonl.gz", "wb") as file:
        file.write(lines.read_bytes())
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    expected = every(cs.load_task(lines))
    for name in ("rows.jsonl.gz", "rows.json", "rows.csv", "rows.parquet"):
        assert every(cs.load_task(tmp_path / name)) == expected, name


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.jsonl.gz", b"no gzip", "cannot read"),
        ("a.parquet", b"no table", "check that it is a Parquet file"),
        ("a.csv", b'prompt,reply\n"x', "not CSV"),
        ("a.csv", b"prompt,reply\nx,y,z\n", "line 2: other cells than the header has"),
        ("a.json", b"{}", "expected a list of objects"),
        ("a.csv", b"prompt,reply\n", "has no rows"),
    ],
)
def test_a_file_that_is_not_what_it_is_called_is_refused(tmp_path, name, content, told):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=told):
        cs.load_task(tmp_path / name)


def test_a_preference_is_two_rows_of_one_group(tmp_path):
    pairs = written(tmp_path, lambda i: {"prompt": f"p {i}", "chosen": "yes", "rejected": "no"})
    task = cs.load_task(pairs)
    assert len(every(task)) == 2 * N
    for split in (task.fit, task.select, task.test):
        groups = group_ids(split)
        assert all(groups.count(group) == 2 for group in groups)
        assert {each.rated.text: each.rated.outcome for each in split} == {"yes": 1.0, "no": 0.0}
    whole = written(
        tmp_path,
        lambda i: {
            name: [{"role": "user", "content": f"p {i}"}, {"role": "assistant", "content": name}]
            for name in ("chosen", "rejected")
        },
    )
    assert {each.rated.text for each in every(cs.load_task(whole))} == {"chosen", "rejected"}
    bare = written(tmp_path, lambda i: {"chosen": f"Human: {i} Assistant: a", "rejected": "b"})
    with pytest.raises(DataError, match="give it as `prompt`"):
        cs.load_task(bare)


def test_several_replies_to_a_prompt_are_no_repeats_but_one_group(tmp_path, caplog):
    rows = written(tmp_path, lambda i: {"prompt": f"p {i // 2}", "reply": f"{i}", "score": i % 2})
    task = cs.load_task(rows)
    assert (task.repeats.prompts, task.repeats.groups) == (0, N // 2)
    assert "duplicate" not in caplog.text


@pytest.mark.parametrize(
    ("marks", "above", "outcomes"),
    [
        ([True, False, None], None, (1.0, 0.0, None)),
        ([0.25, 1, 0], None, (0.25, 1.0, 0.0)),
        ([-1, 0, 1], None, (0.0, 0.5, 1.0)),
        ([1, 3, 5, 4.5], None, (0.0, 0.5, 1.0, 0.875)),
        (["Thumbs up", "bad", "0.5"], None, (1.0, 0.0, 0.5)),
        ([7, 8, 10], 7.5, (0.0, 1.0, 1.0)),
        (["3", "4", None], 3, (0.0, 1.0, None)),
    ],
)
def test_marks_become_outcomes_on_their_own_scale(marks, above, outcomes):
    assert outcomes_of([("f, line 1", m) for m in marks], above, "score").outcomes == outcomes


@pytest.mark.parametrize("marks", [[1, 2, 3, 4], [0, 5], [0, 10], [-2, 2], [1, 2], [0.5, 2]])
def test_marks_of_several_possible_scales_are_refused_with_what_to_write(marks):
    with pytest.raises(DataError, match=r"^f: `score` runs from .* as --good-above -?[0-9.]+$"):
        outcomes_of([("f, line 1", mark) for mark in marks], None, "score")


REFUSED = [
    (
        {"prompt": "p", "response": "a", "output": "b", "reward": 1},
        {},
        "give --reply-field response",
    ),
    ({"prompt": "p", "reply": "a", "rating": 1, "label": 1}, {}, "give --score-field rating"),
    ({"prompt": "p", "reply": "a", "score": "meh"}, {}, 'line 1: `score` is "meh"; expected'),
    ({"prompt": "p", "reply": 3, "score": 1}, {}, "line 1: the reply is 3; expected a text"),
    ({"prompt": "p", "text": "a", "score": 1}, {"reply_field": "txt"}, "no row has `txt`"),
    ({"prompt": "p", "reply": "a"}, {"reply_field": "reply"}, "which scorer"),
    ({"prompt": "p", "target": "a"}, {"scorer": "rated"}, "--scorer rated is for rows with"),
    (chat(0), {}, "the last message is the assistant's"),
]


@pytest.mark.parametrize(("row", "options", "told"), REFUSED)
def test_what_may_be_meant_otherwise_is_refused_with_what_to_write(tmp_path, row, options, told):
    with pytest.raises(DataError, match=told):
        cs.load_task(written(tmp_path, lambda i: row), **options)


def test_an_option_for_replies_is_refused_where_there_are_none(tmp_path):
    rows = written(tmp_path, lambda i: {"prompt": f"p {i}", "target": "a"})
    with pytest.raises(SettingsError, match="--good-above is for rows with a reply and a score"):
        cs.load_task(rows, scorer="exact", good_above=3)
    with pytest.raises(SettingsError, match="--score-field is for files of rows"):
        cs.load_task("mini-mmlu", score_field="mark")


def test_targets_and_a_scorer_judge_new_replies_and_scores_those_that_came(tmp_path):
    rows = written(
        tmp_path, lambda i: {"prompt": f"p {i}", "reply": "a", "score": i % 2, "target": "a"}
    )
    task = cs.load_task(rows, scorer="exact")
    assert task.generates
    assert (task.scorer.name, task.fit_scorer) == ("exact", RATED)
    anew = cs.load_task(rows, scorer="exact", reply_field="none")
    assert anew.fit[0].rated is None
    assert anew.fit[0].metadata["reply"] == "a"


def test_fields_of_other_tools_are_left_aside_beside_a_target_and_that_is_said(tmp_path, caplog):
    rows = written(
        tmp_path, lambda i: {"prompt": f"p {i}", "answer": "a", "label": 1, "target": "a"}
    )
    with caplog.at_level("INFO", "corrsteer"):
        task = cs.load_task(rows, scorer="exact")
    assert task.fit[0].rated is None
    assert "give --reply-field answer --score-field label" in caplog.text


def test_a_score_of_no_reply_is_warned_of(tmp_path, caplog):
    rows = written(tmp_path, lambda i: {"prompt": f"p {i}", "score": 1, "target": "a"})
    cs.load_task(rows, scorer="exact")
    assert "rows have `score` and no `reply`" in caplog.text


def test_a_function_that_gives_the_rows_score_whatever_the_reply_is_refused(tmp_path, monkeypatch):
    (tmp_path / "heedless.py").write_text(
        "def mark(reply, sample):\n    return sample.metadata['quality']\n"
        "def fair(reply, sample):\n    return float('42' in reply)\n"
    )
    monkeypatch.chdir(tmp_path)
    rows = written(tmp_path, lambda i: {"prompt": f"p {i}", "quality": i % 2, "answer": "a"})
    with pytest.raises(DataError, match="--reply-field NAME --score-field quality"):
        cs.load_task(rows, scorer="heedless:mark")
    assert cs.load_task(rows, scorer="heedless:fair").scorer.name == "heedless:fair"


def test_one_score_for_all_replies_to_each_prompt_is_told(tmp_path, caplog):
    def rows(score):
        return written(
            tmp_path, lambda i: {"prompt": f"p {i // 2}", "reply": f"{i}", "score": score(i)}
        )

    cs.load_task(rows(lambda i: i // 2 % 2))
    assert "in each of 10 groups of several replies all have one score" in caplog.text
    caplog.clear()
    cs.load_task(rows(lambda i: i % 2))
    assert "have one score" not in caplog.text
