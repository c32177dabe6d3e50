"""Everyday tasks: enough rows, groups whole, targets that can be told, and forms judged right."""

import pytest

import corrsteer as cs
from corrsteer.everyday.families import FAMILIES
from corrsteer.everyday.formats import FORMS, follows
from corrsteer.samples import Sample


@pytest.fixture(scope="module", params=FAMILIES)
def task(request):
    return cs.load_task(request.param)


def test_there_are_enough_rows_and_no_group_stands_in_two_splits(task):
    parts = task.fit, task.select, task.test
    assert sum(map(len, parts)) >= 800
    assert len({sample.text for part in parts for sample in part}) == sum(map(len, parts))
    groups = [{sample.group for sample in part} for part in parts]
    assert all(len(part) >= 6 for part in groups[2:])
    assert not groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2]


def test_every_blank_is_filled(task):
    for sample in (*task.fit, *task.select, *task.test):
        assert "{}" not in sample.text
        assert "  " not in sample.text


def test_another_seed_cuts_other_splits_of_the_same_rows(task):
    other = cs.load_task(task.name, seed=1)
    assert {s.id for s in other.test} != {s.id for s in task.test}
    every = ({s.id for s in (*each.fit, *each.select, *each.test)} for each in (task, other))
    assert len(set(map(frozenset, every))) == 1


def test_labels_are_balanced_enough_to_tell_a_habit_from_knowledge():
    for name in ("everyday-sentiment", "everyday-tone", "everyday-evidence", "everyday-secret"):
        task = cs.load_task(name)
        targets = [sample.target[0] for sample in (*task.fit, *task.select, *task.test)]
        first = targets.count(targets[0]) / len(targets)
        assert 0.4 < first < 0.6


@pytest.mark.parametrize(
    ("form", "good", "bad"),
    [
        ("word", ["Honey", "honey.", "Well-known!"], ["The word is honey.", "two words", ""]),
        ("json", ['{"a": 1}', ' {"fact": "They fly."}\n'], ['Here: {"a": 1}', "[1]", "{'a': 1}"]),
        (
            "list",
            ["red, big, old", "a hill, the sea, a town."],
            ["1. red", "red, big", "a, b, c, d"],
        ),
        ("question", ["Do owls fly?"], ["Here is one: Do owls fly?", "Owls fly.", "Yes. Why?"]),
    ],
)
def test_a_form_is_told_by_the_reply_alone(form, good, bad):
    sample = Sample("1", "p", (form,))
    assert form in FORMS
    assert [follows(reply, sample) for reply in (*good, *bad)] == [1.0] * len(good) + [0.0] * len(
        bad
    )
