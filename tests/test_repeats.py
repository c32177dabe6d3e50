"""Prompts and groups that stand in a task more than once, and what is told of them."""

import json
import logging
import random
import re

import pytest
from conftest import SCORER

import corrsteer as cs
from corrsteer.report.findings import Findings
from corrsteer.report.page import origin_rows
from corrsteer.samples import Sample
from corrsteer.tasks.near_repeats import near_repeats
from corrsteer.tasks.repeats import Repeats, told_repeats

WORDS = re.findall(
    r"\w+",
    "harbour lantern gravel orchard thistle compass barrel saddle copper meadow quarry anchor "
    "ribbon pepper candle furnace pigeon marble timber velvet walnut glacier kettle parsley",
)


def texts(count, length, seed=0):
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=length)) for _ in range(count)]


def splits(fit, select, test):
    parts = {"fit": fit, "select": select, "test": test}
    return {
        name: [Sample(f"{name}{number}", text) for number, text in enumerate(part)]
        for name, part in parts.items()
    }


def told(caplog, *parts, near=True):
    with caplog.at_level(logging.WARNING, "corrsteer"):
        found = told_repeats("own", splits(*parts), near)
    return found, [record.getMessage() for record in caplog.records]


def test_samples_that_are_by_themselves_are_not_told(caplog):
    one, two, three = texts(30, 12)[:10], texts(30, 12)[10:20], texts(30, 12)[20:]
    assert told(caplog, one, two, three) == (Repeats(30, 30), [])
    assert str(Repeats(30, 30)) == "30 in 30 groups"


def test_prompts_in_several_splits_are_told_by_the_split(caplog):
    found, lines = told(caplog, ["a", "b", "b"], ["c", "a"], ["a", "c", "d"], near=False)
    assert found == Repeats(
        8, 4, 3, {"select prompts in fit": 1, "test prompts in fit": 1, "test prompts in select": 2}
    )
    assert lines == [
        "own: duplicate prompts: 3 occur more than once",
        "own: 1 of 2 select prompts is also in fit",
        "own: 1 of 3 test prompts is also in fit",
        "own: 2 of 3 test prompts are also in select",
    ]


def test_a_group_in_several_given_splits_is_told(caplog):
    parts = splits(["a", "b"], ["c"], ["d", "e"])
    for name, index, group in (("fit", 0, "g"), ("test", 1, "g"), ("select", 0, "h")):
        parts[name][index] = Sample(f"{name}", parts[name][index].prompt, group=group)
    with caplog.at_level(logging.WARNING, "corrsteer"):
        found = told_repeats("own", parts, near=False)
    assert (found.groups, found.split_groups) == (4, 1)
    assert [record.getMessage() for record in caplog.records] == [
        'own: groups with samples in several splits: 1, as "g"'
    ]


@pytest.mark.parametrize(
    "other",
    [
        "WHERE is the  lantern, by the pier 3?",
        "where is the lantern by the pier 14",
        "“Where is the lantern” (by the pier 3)",
    ],
)
def test_case_space_punctuation_and_digits_make_no_other_text(caplog, other):
    found, lines = told(caplog, ["Where is the lantern by the pier 3?"], ["x"], [other, "y"])
    assert found.near == 1
    assert "near-duplicate prompts across splits: 1, as" in lines[0]
    assert other.split()[1] in lines[0]


def test_numbers_tell_short_texts_apart(caplog):
    fit, test = ["2 + 2 =", "pier 3 now"], ["2 + 3 =", "!", "pier 4 now", "Pier 3, now"]
    assert told(caplog, fit, ["?"], test)[0].near == 1


@pytest.mark.parametrize("length", [40, 200])
def test_a_word_that_was_changed_makes_no_other_text(length):
    first = texts(60, length)
    changed = [text.split() for text in first[:20]]
    for words in changed:
        words[length // 2] = "umbrella"
    others = [*(" ".join(words) for words in changed), *texts(20, length, seed=9)]
    found = near_repeats([*first, *others], [0] * 60 + [1] * 40)
    assert {index: other for index, other in found.items() if index < 80} == {
        60 + i: i for i in range(20)
    }
    assert len(found) == 20


def test_a_common_instruction_makes_no_near_repeat():
    opening = " ".join(texts(1, 60, seed=3))
    every = [f"{opening} {text}" for text in texts(50, 10, seed=4)]
    assert near_repeats(every, [0] * 25 + [1] * 25) == {}
    every[30] = every[3].replace("h", "H") + "!"
    assert near_repeats(every, [0] * 25 + [1] * 25) == {30: 3}


def test_a_script_without_spaces_is_compared_by_its_characters():
    text = "今天下午东码头因为大风关闭所有的船只都要停靠在西码头请旅客提前到达并带好证件"
    assert near_repeats([text, "明天开放", text.replace("西", "南")], [0, 0, 1]) == {2: 0}


@pytest.mark.parametrize("seed", range(3))
def test_near_repeats_are_found_as_by_comparing_all(seed):
    """Every pair at 0.9 or more is found, and none below 0.8, by Jaccard's share itself."""
    rng = random.Random(seed)
    every = texts(40, 60, seed)
    for text in every[:40]:
        words = text.split()
        for place in rng.sample(range(60), rng.randrange(4)):
            words[place] = rng.choice(WORDS)
        every.append(" ".join(words))
    found = near_repeats(every, [0] * 40 + [1] * 40)
    for index in range(40, 80):
        share = jaccard(every[index], every[index - 40])
        assert (index in found) or share < 0.9
        assert (index not in found) or share >= 0.8


def jaccard(one, other):
    sets = [
        {*zip(*(text.split()[place:] for place in range(3)), strict=False)} for text in (one, other)
    ]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def test_nothing_has_no_repeats():
    assert near_repeats([], []) == near_repeats(["", "!"], [0, 1]) == {}


def test_a_run_and_its_report_say_how_many_there_are(call, hub, tmp_path, task_file):
    rows = [json.loads(line) for line in task_file.read_text().splitlines()]
    rows = [{"prompt": row["prompt"], "group": index // 2} for index, row in enumerate(rows)] * 2
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    code, _, err = call(
        "train", f"--model={hub / 'model'}", f"--sae={hub / 'saes'}", f"--task={path}",
        f"--scorer={SCORER}", "--max-new-tokens=2", "--strategy=S", "--controls=0",
        "--permutations=0", "--no-eval", f"--out={tmp_path / 'run'}",
    )  # fmt: skip
    assert code == 0, err
    assert err.count("duplicate prompts: 60 occur") == 1
    assert "also in" not in err  # cut together
    run = cs.load_run(tmp_path / "run")
    assert run.counts.repeats == Repeats(120, 30, 60)
    assert ("samples", "120 in 30 groups, 60 duplicate prompts") in origin_rows(Findings(run))
