import dataclasses
from typing import get_type_hints

import pytest

import corrsteer as cs
from corrsteer.errors import SettingsError
from corrsteer.method import fit as module
from corrsteer.settings import FitKeywords, FitSettings


def test_keywords_are_the_fields():
    assert get_type_hints(FitKeywords) == get_type_hints(FitSettings)
    assert list(FitKeywords.__annotations__) == [f.name for f in dataclasses.fields(FitSettings)]


def test_a_fit_guards_what_the_task_guards_unless_told_otherwise(lm, monkeypatch):
    given = []

    class StopError(Exception):
        pass

    def noted(lm, task, guards, settings, **more):
        given.append([guard.name for guard in guards])
        raise StopError

    monkeypatch.setattr(module, "fit_with", noted)
    task = cs.load_task("mini-harmbench")
    for more in ({}, {"guards": ()}):
        with pytest.raises(StopError):
            cs.fit(lm, task, **more)
    assert given == [list(task.guards), []]
    assert task.guards


@pytest.mark.parametrize("pool", ["pool", "steer_pool"])
def test_the_first_position_is_of_the_reply(pool):
    assert FitSettings.of(**{pool: "first"})
    with pytest.raises(SettingsError, match="pool first is the last prompt position"):
        FitSettings.of(**{pool: "first"}, positions="all")
