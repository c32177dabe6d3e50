"""Arms that ask in another way instead of steering: their prompts, their record, their refusals."""

import json
from dataclasses import replace

import pytest

import corrsteer as cs
from corrsteer.errors import SettingsError
from corrsteer.method.prompting import posed
from corrsteer.method.train import train
from corrsteer.report import render
from corrsteer.samples import Sample
from corrsteer.scoring.base import score
from corrsteer.settings import FitSettings
from corrsteer.tasks.base import target_reply


@pytest.fixture
def solved(task):
    """The task with a right reply for every row."""

    def with_targets(samples):
        return tuple(replace(each, target=(f"t{each.id}",)) for each in samples)

    return replace(
        task,
        fit=with_targets(task.fit),
        test=with_targets(task.test),
        reference=target_reply,
        max_new_tokens=2,
    )


def settings(*arms, **changes):
    return FitSettings(arms=("S", *arms), controls=1, strengths=(1.0,), **changes)


def test_an_instruction_stands_before_texts_and_is_the_system_turn_of_chats(solved):
    told = posed(solved, settings("prompt", instruction="Be right."))["prompt"]
    assert told.samples[0].prompt == "Be right.\n\n" + solved.test[0].prompt
    assert [each.id for each in told.samples] == [each.id for each in solved.test]
    chat = replace(solved, test=(Sample("c", "", messages=({"role": "user", "content": "hi"},)),))
    (sample,) = posed(chat, settings("prompt", instruction="Be right."))["prompt"].samples
    assert [(m["role"], m["content"]) for m in sample.messages] == [
        ("system", "Be right."),
        ("user", "hi"),
    ]


def test_examples_are_the_last_fit_samples_with_their_right_replies(solved):
    told = posed(solved, settings("few-shot", shots=2))["few-shot"]
    first, second = solved.fit[-2:]
    expected = f"{first.prompt} t{first.id}\n\n{second.prompt} t{second.id}\n\n"
    assert told.samples[3].prompt == expected + solved.test[3].prompt
    assert told.how == "2 solved fit samples before each prompt"


def test_chats_get_examples_as_turns(solved):
    def chats(samples):
        message = {"role": "user", "content": "q"}
        return tuple(replace(each, prompt="", messages=(message,)) for each in samples)

    chat = replace(solved, fit=chats(solved.fit), test=chats(solved.test))
    sample = posed(chat, settings("few-shot", shots=1))["few-shot"].samples[0]
    assert [m["role"] for m in sample.messages] == ["user", "assistant", "user"]
    assert sample.messages[1]["content"] == f"t{chat.fit[-1].id}"


def test_what_has_no_examples_and_what_does_not_belong_together_is_refused(task, solved):
    with pytest.raises(SettingsError, match="no right replies to show"):
        posed(replace(task, reference=None), settings("few-shot"))
    with pytest.raises(SettingsError, match="shots is 99, but"):
        posed(solved, settings("few-shot", shots=99))
    with pytest.raises(SettingsError, match="belong together"):
        settings("prompt")
    with pytest.raises(SettingsError, match="belong together"):
        FitSettings(instruction="x")
    with pytest.raises(SettingsError, match="none of which steers"):
        FitSettings(arms=("few-shot",))


def test_they_stand_in_the_table_and_are_never_recommended(lm, solved, tmp_path):
    asked = settings("prompt", "few-shot", instruction="say n", shots=1)
    _, document = train(lm, solved, (), asked, tmp_path / "run")
    told = json.loads((tmp_path / "run" / "evaluation.json").read_text())["strategies"]
    assert list(told) == ["S", "prompt", "few-shot"]
    assert told["prompt"]["why"].startswith("no steering")
    assert told["prompt"]["strength"] is None
    assert "say n" in told["prompt"]["prompting"]
    assert told["few-shot"]["baseline"] == told["S"]["baseline"]
    replies = lm.generate([f"say n\n\n{each.prompt}" for each in solved.test], 2)
    outcomes = [
        score(solved.scorer, reply, sample).outcome
        for reply, sample in zip(replies, solved.test, strict=True)
    ]
    expected = pytest.approx(sum(outcomes) / len(outcomes))
    assert told["prompt"]["steered"]["accuracy"] == expected
    page = render(cs.load_run(tmp_path / "run"))
    assert "1 solved fit samples before each prompt" in page
    assert document.recommended is None or document.recommended.strategy == "S"
