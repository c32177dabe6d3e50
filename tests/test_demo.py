"""The demo without its page: runs on show, sessions, and replies that stream side by side."""

import copy
import dataclasses
import errno
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import yaml

from corrsteer import load_run, load_task, steer
from corrsteer.cli import main
from corrsteer.demo import (
    ArmReply,
    Exhibit,
    Frame,
    Session,
    Shelf,
    Wish,
    fragments,
    load_for,
    open_exhibits,
)
from corrsteer.demo.address import check_access, listen, url
from corrsteer.demo.session import SharedModel
from corrsteer.demo.space import write_space
from corrsteer.errors import ArtifactError, CorrSteerError, DataError, ModelError, SettingsError
from corrsteer.lm.decoding import greedy, stream
from corrsteer.method.train import train
from corrsteer.runs.content import Content
from corrsteer.runs.steering import Steering
from corrsteer.samples import Sample
from corrsteer.settings import FitSettings
from corrsteer.tasks import TaskOptions

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>${alert(3)}{{value}}"


@pytest.fixture(scope="module")
def folder(lm, tmp_path_factory):
    """A run of the tiny model that steers at every layer."""
    root = tmp_path_factory.mktemp("demo")
    rows = [json.dumps({"prompt": f"say {i}", "target": "x"}) for i in range(60)]
    (root / "letters.jsonl").write_text("\n".join(rows))
    task = load_task(
        str(root / "letters.jsonl"), scorer=r"regex:^\s*[n-zN-Z0-4]", max_new_tokens=12
    )
    settings = FitSettings(strategy="A", controls=0, strength=2.0)
    train(lm, task, (), settings, root / "run")
    return root / "run"


@pytest.fixture
def exhibit(folder):
    (found,) = open_exhibits([folder])
    return found


@pytest.fixture
def shelf(exhibit, lm):
    return Shelf([exhibit], lambda run: lm)


def renamed(exhibit, name, **provenance):
    """The same run under another name, perhaps of another model."""
    run = dataclasses.replace(
        exhibit.run, provenance=dataclasses.replace(exhibit.run.provenance, **provenance)
    )
    return Exhibit.of(run, name)


def names(exhibit):
    return tuple(switch.hook_point.name for switch in exhibit.switches)


def wish(exhibit, prompt="say 3", **changes):
    own = {"layers": names(exhibit), "strength": exhibit.run.steering.strength}
    return Wish(prompt, exhibit.name, **(own | changes))


def last(session, shelf, wish):
    return list(session.replies(shelf, wish, settle=0))[-1]


def texts(frame):
    return [reply.text for reply in frame.replies]


def alone(lm, prompt, steering=None):
    """The reply of the model when nobody else uses it."""
    with steer(lm, steering or Steering({})):
        return lm.generate([prompt], max_new_tokens=12)[0]


def test_a_run_is_shown_by_its_layers_and_its_flipped_samples(exhibit, folder):
    run = load_run(folder)
    assert exhibit.name == "run"
    assert [switch.features for switch in exhibit.switches] == [(f,) for f in run.features]
    assert [switch.label for switch in exhibit.switches] == [
        f"Layer {f.layer}" for f in run.features
    ]
    changes = [example.row.change for example in exhibit.examples]
    directions = [example.direction for example in exhibit.examples]
    assert len(changes) > 0
    assert all(
        (change > 0) == (d == "improved") for change, d in zip(changes, directions, strict=True)
    )


def test_both_directions_are_offered_with_the_improved_first(exhibit):
    rows = exhibit.run.predictions
    flipped = [
        dataclasses.replace(
            rows[0], baseline_outcome=float(i % 2), steered_outcome=1.0 - i % 2, id=str(i)
        )
        for i in range(60)
    ]
    shown = Exhibit.of(dataclasses.replace(exhibit.run, predictions=tuple(flipped)), "x").examples
    assert [e.direction for e in shown] == ["improved"] * 12 + ["worsened"] * 12


def test_runs_of_the_same_folder_name_are_told_apart(folder, tmp_path):
    (tmp_path / "run").symlink_to(folder)
    shown = open_exhibits([folder, tmp_path / "run", folder])
    assert [exhibit.name for exhibit in shown] == [str(folder), str(tmp_path / "run")]


def test_a_run_that_was_not_evaluated_is_refused(folder):
    with pytest.raises(ArtifactError, match=r"x was not evaluated.*train"):
        Exhibit.of(dataclasses.replace(load_run(folder), evaluation=None), "x")


def test_a_run_that_steers_by_nothing_is_refused(folder):
    with pytest.raises(ArtifactError, match=r"x steers by no features.*--strategy A"):
        Exhibit.of(dataclasses.replace(load_run(folder), steering=Steering({})), "x")


def test_only_the_layers_that_are_on_steer(exhibit):
    first, *_ = names(exhibit)
    steering = exhibit.steering([first], 1.5)
    assert [hook.name for hook in steering.vectors] == [first]
    assert {feature.hook_point for feature in steering.features} == {first}
    assert steering.strength == 1.5
    assert exhibit.steering([], 1.5).vectors == {}


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_a_stream_ends_in_the_replies_of_python(lm, shelf, exhibit, layers):
    on = names(exhibit)[:layers]
    frame = last(Session(), shelf, wish(exhibit, layers=on))
    assert texts(frame) == [alone(lm, "say 3"), alone(lm, "say 3", exhibit.steering(on, 2.0))]
    assert frame.state == "done"


def test_switching_layers_and_strength_change_the_steered_reply_alone(shelf, exhibit):
    session = Session()
    whole, fewer, weaker = (
        last(session, shelf, wish(exhibit, **changes))
        for changes in ({}, {"layers": names(exhibit)[:1]}, {"strength": 0.2})
    )
    assert len({whole.replies[1].text, fewer.replies[1].text, weaker.replies[1].text}) > 1
    assert len({frame.replies[0].text for frame in (whole, fewer, weaker)}) == 1
    assert fewer.replies[1].setting == "1 of 3 layers, strength 2"


def test_both_replies_grow_together_token_by_token(lm, shelf, exhibit):
    frames = list(Session().replies(shelf, wish(exhibit), settle=0))
    running = [texts(frame) for frame in frames if frame.state == "running"]
    assert running[0] == ["", ""]
    for column in zip(*running, strict=True):
        assert [len(text) for text in column] == sorted(len(text) for text in column)
        assert all(column[-1].startswith(text) for text in column)
    assert sum(0 < len(each[0]) < len(running[-1][0]) for each in running) > 3


def test_a_character_is_not_shown_before_it_is_whole(lm, monkeypatch):
    shown = ["a", "a\ufffd", "aé"]
    monkeypatch.setattr(lm, "decode", lambda ids: shown[min(len(ids), 3) - 1], raising=False)
    assert list(SharedModel(lm).reply(Sample("prompt", "say"), 3)) == ["a", "a", "aé", "aé"]


def test_a_baseline_is_not_run_again_for_the_same_prompt(lm, shelf, exhibit, monkeypatch):
    session, asked = Session(), []
    before = last(session, shelf, wish(exhibit))
    monkeypatch.setattr(
        "corrsteer.demo.session.stream", lambda *given: asked.append(given) or stream(*given)
    )
    after = last(session, shelf, wish(exhibit, strength=0.5))
    assert after.replies[0].text == before.replies[0].text
    assert len(asked) == 1  # the steered one


def test_concurrent_replies_do_not_steer_each_other(lm, exhibit):
    """Two people on one model, token by token by turns and as fast as threads go."""
    model, own = SharedModel(lm), exhibit.steering(names(exhibit), 2.0)
    other = exhibit.steering(names(exhibit)[:1], -3.0)
    asked = [("say 3", own), ("say 3", None), ("say 3", other), ("a longer thing to say", own)] * 6
    expected = [alone(lm, prompt, steering) for prompt, steering in asked]
    assert len(set(expected)) > 2
    start = threading.Barrier(len(asked))

    def reply(request):
        start.wait(timeout=60)
        return list(model.reply(Sample("prompt", request[0]), 12, request[1]))[-1]

    with ThreadPoolExecutor(len(asked)) as pool:
        assert list(pool.map(reply, asked)) == expected
    streams = [
        model.reply(Sample("prompt", prompt), 12, steering) for prompt, steering in asked[:4]
    ]
    ends = [""] * 4
    while any(steps := [next(stream, None) for stream in streams]):
        ends = [end if step is None else step for end, step in zip(ends, steps, strict=True)]
    assert ends == expected[:4]


def test_a_reply_left_half_way_leaves_nothing_on_the_model(lm, exhibit):
    before = alone(lm, "say 3")
    stream = SharedModel(lm).reply(
        Sample("prompt", "say 3"), 12, exhibit.steering(names(exhibit), 2.0)
    )
    next(stream)
    assert alone(lm, "say 3") == before
    stream.close()  # type: ignore[attr-defined]
    assert alone(lm, "say 3") == before


def test_two_sessions_share_no_settings(shelf, exhibit):
    prototype = Session()
    ours, theirs = copy.deepcopy(prototype), copy.deepcopy(prototype)
    running = ours.replies(shelf, wish(exhibit), settle=0)
    next(running)
    other = last(theirs, shelf, wish(exhibit, "another", layers=()))
    rest = list(running)
    assert rest[-1].state == "done"
    assert other.replies[0].text == other.replies[1].text
    assert [key[1] for key in ours.baselines] == ["say 3"]
    assert [key[1] for key in theirs.baselines] == ["another"]


def test_a_newer_request_ends_the_one_before(shelf, exhibit):
    session = Session()
    older = session.replies(shelf, wish(exhibit), settle=0)
    next(older)
    newer = session.replies(shelf, wish(exhibit, "another"), settle=0)
    next(newer)
    assert list(older) == []
    assert list(newer)[-1].state == "done"


def test_a_request_waits_for_a_newer_one_before_it_costs_anything(shelf, exhibit, monkeypatch):
    session = Session()

    def newer_one_comes(seconds):
        session.ticket += 1

    monkeypatch.setattr("corrsteer.demo.session.time.sleep", newer_one_comes)
    monkeypatch.setattr(shelf, "model", lambda exhibit: pytest.fail("a model was asked for"))
    assert list(session.replies(shelf, wish(exhibit))) == []


def test_stopping_keeps_what_was_said(shelf, exhibit):
    session = Session()
    stream = session.replies(shelf, wish(exhibit), settle=0)
    next(stream), next(stream)
    session.stop()
    (end,) = list(stream)
    assert end.state == "stopped"
    assert texts(end)[0] != ""
    assert last(session, shelf, wish(exhibit)).state == "done"


def test_runs_of_one_model_share_it_and_its_baseline(lm, exhibit):
    loaded = []
    shelf = Shelf(
        [exhibit, renamed(exhibit, "other")], lambda run: loaded.append(run.provenance.model) or lm
    )
    frame = last(Session(), shelf, wish(exhibit, layers=(), beside="other"))
    assert len(loaded) == 1
    assert [(r.arm, r.source, r.baseline) for r in frame.replies] == [
        ("baseline", exhibit.model, 0),
        ("steered", "run", 0),
        ("steered", "other", 0),
    ]
    assert frame.replies[1].text == frame.replies[0].text != frame.replies[2].text


def test_runs_of_other_models_have_their_own_baseline_loaded_when_needed(lm, exhibit):
    loaded = []
    shelf = Shelf(
        [exhibit, renamed(exhibit, "other", model="elsewhere")],
        lambda run: loaded.append(run.provenance.model) or lm,
    )
    last(Session(), shelf, wish(exhibit))
    assert loaded == [exhibit.model]
    frame = last(Session(), shelf, wish(exhibit, beside="other"))
    assert loaded == [exhibit.model, "elsewhere"]
    assert [reply.arm for reply in frame.replies] == ["baseline", "steered"] * 2
    assert [reply.baseline for reply in frame.replies] == [0, 0, 2, 2]


def test_a_model_is_loaded_once_however_many_ask(lm, exhibit):
    loaded = []
    shelf = Shelf([exhibit], lambda run: loaded.append(run.provenance.model) or lm)
    with ThreadPoolExecutor(8) as pool:
        models = list(pool.map(shelf.model, [exhibit] * 16))
    assert len(loaded) == 1
    assert len(set(map(id, models))) == 1


def test_a_run_on_chats_asks_through_the_chat_template(lm, exhibit, monkeypatch):
    monkeypatch.setattr(lm.tokenizer, "chat_template", "{{ messages[0].content }}#", raising=False)
    rows = tuple(
        dataclasses.replace(row, prompt=f"user: {row.prompt}") for row in exhibit.run.predictions
    )
    chats = dataclasses.replace(exhibit.run.provenance, task_options=TaskOptions(chat=True))
    run = dataclasses.replace(exhibit.run, provenance=chats, predictions=rows)
    chat = Exhibit.of(run, "chat")
    assert [e.prompt for e in chat.examples] == [e.prompt for e in exhibit.examples]
    shelf = Shelf([exhibit, chat], lambda run: lm)
    frame = last(Session(), shelf, wish(exhibit, "say 3", beside="chat"))
    assert [reply.arm for reply in frame.replies] == ["baseline", "steered"] * 2
    ids = lm.tokenizer("say 3#", add_special_tokens=False)["input_ids"]
    expected = lm.decode(greedy(lm.decoder, [ids], 12)[0])
    assert frame.replies[2].text == expected != frame.replies[0].text


def test_a_model_is_loaded_without_saes_and_begins_prompts_as_the_run_did(exhibit, hub, tmp_path):
    shutil.copytree(hub, tmp_path / "hub")
    tokenizer = tmp_path / "hub" / "model" / "tokenizer.json"
    tokenizer.write_text(json.dumps(json.loads(tokenizer.read_text()) | {"post_processor": None}))
    sample = Sample("a", "a")
    moved = {"model": str(tmp_path / "hub" / "model"), "content": Content()}
    plain = load_for(renamed(exhibit, "run", **moved).run)
    begun = load_for(renamed(exhibit, "run", **moved, prepend_bos=True).run)
    assert {handle.source for handle in begun.saes} == {"raw"}
    assert begun.prompt_ids(sample) == [1, *plain.prompt_ids(sample)]


def test_replies_end_before_their_next_token_once_the_demo_does(lm, exhibit):
    shelf = Shelf([exhibit], lambda run: lm)
    running = [Session().replies(shelf, wish(exhibit), settle=0) for _ in range(8)]
    for replies in running:
        next(replies)
        next(replies)
    shelf.ended.set()
    handle = lm.model.register_forward_pre_hook(lambda *_: pytest.fail("another forward pass"))
    try:
        for replies in running:
            with pytest.raises(ModelError, match="the demo has ended"):
                next(replies)
    finally:
        handle.remove()


@pytest.mark.parametrize("prompt", ["", " \n"])
def test_an_empty_prompt_is_refused(shelf, exhibit, prompt):
    with pytest.raises(DataError, match="the prompt is empty"):
        last(Session(), shelf, wish(exhibit, prompt))


def test_a_prompt_too_long_for_the_model_is_refused(shelf, exhibit):
    with pytest.raises(ModelError, match=r"505 tokens; .* at most 500 before a reply of 12"):
        last(Session(), shelf, wish(exhibit, "a" * 504))


@pytest.mark.parametrize(
    "changes", [{"strength": float("nan")}, {"strength": 1e9}, {"beside": "elsewhere"}]
)
def test_what_cannot_be_asked_for_is_refused(shelf, exhibit, changes):
    with pytest.raises(CorrSteerError, match=r"choose"):
        last(Session(), shelf, wish(exhibit, **changes))


def finished(*given):
    replies = [ArmReply("baseline", "mini", "not steered", 0, given[0], True)]
    replies += [ArmReply("steered", "run", "all 3 layers", 0, text, True) for text in given[1:]]
    return Frame(tuple(replies), "done")


def test_what_changed_is_marked_once_the_replies_are_there():
    frame = finished("take the blue gate", "take the red gate")
    html = fragments.replies(frame)
    assert "take the <del>blue</del> gate" in html
    assert "take the <ins>red</ins> gate" in html
    assert "baseline that are gone: 1; new ones: 1." in fragments.note(frame)
    running = fragments.replies(dataclasses.replace(frame, state="running"))
    assert "<del>" not in running
    assert 'aria-busy="true"' in running


def test_equal_replies_are_said_to_be_equal():
    assert "The steered reply is the baseline" in fragments.note(finished("a b", "a b"))
    two = fragments.note(finished("a b", "a b", "a c"))
    assert two.count("Under run") == 2


def test_text_of_a_model_is_never_markup(exhibit):
    frame = finished(HOSTILE, HOSTILE + " \u202e more")
    for html in (fragments.replies(frame), fragments.failure(HOSTILE)):
        assert "<script" not in html
        assert "<img" not in html
        assert "&lt;script&gt;" in html
    assert "\u202e" not in fragments.replies(frame)
    named = renamed(exhibit, HOSTILE, model=HOSTILE, task=HOSTILE)
    for html in (fragments.heading(named), fragments.cards(named, ())):
        assert "<script" not in html
        assert "<img" not in html


def test_cards_tell_which_layers_are_on_and_link_to_the_web_alone(exhibit):
    features = [
        dataclasses.replace(feature, url=url)
        for feature, url in zip(
            exhibit.run.features,
            ["https://www.neuronpedia.org/a/b/1", "javascript:alert(1)", None],
            strict=True,
        )
    ]
    run = dataclasses.replace(exhibit.run, features=tuple(features))
    html = fragments.cards(Exhibit.of(run, "run"), names(exhibit)[:1])
    assert html.count('class="cs-card on"') == 1
    assert html.count('class="cs-card off"') == 2
    assert html.count("<a ") == 1
    assert "javascript:" not in html
    assert f"latent {features[1].latent}" in html


def test_the_first_password_rule_is_that_others_need_one():
    check_access("127.0.0.1", None)
    check_access("0.0.0.0", "long enough")
    for host in ("0.0.0.0", "::", "192.168.1.4", "example.org"):
        with pytest.raises(SettingsError, match=r"needs a password.*--password-env"):
            check_access(host, None)
    with pytest.raises(SettingsError, match="has 5 characters; choose 8 or more") as refused:
        check_access("0.0.0.0", "short")
    assert "short" not in str(refused.value).removeprefix("the password has 5 characters")


def test_a_taken_port_is_refused_and_zero_finds_a_free_one():
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        assert url(first) == f"http://127.0.0.1:{port}/"
        with pytest.raises(SettingsError, match=rf"port {port} of 127.0.0.1 is taken.*--port"):
            listen("127.0.0.1", port)
    with pytest.raises(SettingsError, match="cannot listen on port"):
        listen("203.0.113.7", 0)
    assert isinstance(first, socket.socket)


@pytest.fixture
def refused(capsys, monkeypatch):
    """The one line in which a command is refused, gradio being there or not."""

    def refused(*arguments, gradio=True):
        found = object() if gradio else None
        monkeypatch.setattr("corrsteer.cli.demo.find_spec", lambda name: found)
        with pytest.raises(SystemExit) as leaving:
            main(["demo", *map(str, arguments)])
        out, err = capsys.readouterr()
        assert leaving.value.code == 2, err
        assert out == ""
        (line,) = err.strip().splitlines()
        return line

    return refused


def test_wrong_input_is_one_clear_line(refused, folder, tmp_path, monkeypatch):
    assert "no run at" in refused(tmp_path / "nothing")
    assert "pip install 'corrsteer[demo]'" in refused(folder, gradio=False)
    assert "needs a password" in refused(folder, "--host", "0.0.0.0")
    assert "SECRET is not set" in refused(folder, "--password-env", "SECRET")
    assert "exclude each other" in refused(folder, "--password", "--password-env", "SECRET")
    assert "--password asks at a terminal" in refused(folder, "--password")
    with listen("127.0.0.1", 0) as taken:
        assert "is taken" in refused(folder, "--port", taken.getsockname()[1])
    monkeypatch.setenv("SECRET", "hunter2")
    line = refused(folder, "--password-env", "SECRET", "--host", "0.0.0.0")
    assert "7 characters" in line
    assert "hunter2" not in line


def test_a_run_without_evaluation_is_refused_on_the_command_line(refused, folder, tmp_path):
    load = load_run(folder)
    bare = dataclasses.replace(load, evaluation=None, predictions=())
    bare.save(tmp_path / "bare")
    assert "was not evaluated" in refused(tmp_path / "bare")


@pytest.fixture
def on_mini(exhibit):
    """The run, as if it were of the built-in model."""
    return renamed(exhibit, "run", model="mini", task='a "task"\n<b>').run


def test_a_space_is_a_whole_folder(on_mini, tmp_path):
    folder = write_space(on_mini, tmp_path / "space")
    app, readme, needed = (
        (folder / name).read_text() for name in ("app.py", "README.md", "requirements.txt")
    )
    compile(app, "app.py", "exec")
    head = yaml.safe_load(readme.split("---")[1])
    assert head["title"] == 'CorrSteer: a "task" <b>'
    assert '# `a "task" <b>` on `mini`, steered' in readme.splitlines()
    assert head["python_version"] == "3.12"
    assert (head["sdk"], head["app_file"]) == ("gradio", "app.py")
    assert (folder / "corrsteer" / "mini" / "model" / "config.json").exists()
    assert not (folder / "corrsteer" / "mini" / "saes").exists()
    assert not list(folder.rglob("__pycache__"))
    names = {re.split(r"[<>=\[ ]", line)[0] for line in needed.splitlines()}
    assert {"torch", "transformers", "pydantic"} <= names
    assert not names & {"pytest", "sentence-transformers", "gradio"}


def test_a_space_holds_no_more_of_the_data_than_it_shows(on_mini, exhibit, tmp_path):
    write_space(on_mini, tmp_path)
    run = load_run(tmp_path / "run")
    assert run.statistics == {}
    assert run.log is None
    assert run.evaluation.run == "run"  # not where it lay on this machine
    assert len(run.predictions) == len(exhibit.examples) < len(exhibit.run.predictions)
    assert Exhibit.of(run, "run").examples == exhibit.examples
    assert run.steering.features == exhibit.run.steering.features


def test_a_space_of_another_model_names_it_and_leaves_the_built_in_one_out(exhibit, tmp_path):
    folder = write_space(renamed(exhibit, "run", model="gemma2b").run, tmp_path / "space")
    assert "models:\n  - google/gemma-2-2b-it" in (folder / "README.md").read_text()
    assert not (folder / "corrsteer" / "mini" / "model").exists()
    assert (folder / "corrsteer" / "mini" / "corpus.py").exists()


def test_a_space_that_cannot_work_is_refused(exhibit, on_mini, tmp_path):
    with pytest.raises(ArtifactError, match=r"which a Space cannot reach.*hub"):
        write_space(exhibit.run, tmp_path / "space")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ArtifactError, match="holds other files"):
        write_space(on_mini, tmp_path)
    with pytest.raises(ArtifactError, match="was not evaluated"):
        write_space(dataclasses.replace(on_mini, evaluation=None), tmp_path / "space")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("name", ["a/b\nlicense: evil", "a\n  - b", "a" * 2_000_000, "\x1b[31m"])
def test_a_model_that_is_no_name_of_the_hub_is_refused_a_space(exhibit, tmp_path, name):
    with pytest.raises(ArtifactError, match="which a Space cannot reach") as refusal:
        write_space(renamed(exhibit, "run", model=name).run, tmp_path / "space")
    assert len(str(refusal.value)) < 500
    assert list(tmp_path.iterdir()) == []


def test_a_task_of_any_name_is_text_in_a_space(exhibit, tmp_path):
    task = "a\n---\nlicense: evil\n# <img src=x>`\x1b[31m\u202e{{ 7 * 7 }}"
    run = renamed(exhibit, "run", model="mini", task=task).run
    readme = (write_space(run, tmp_path / "space") / "README.md").read_text()
    head = yaml.safe_load(readme.split("\n---\n")[0])
    assert head["title"].startswith("CorrSteer: a --- license: evil # <img src=x>`")
    assert "license" not in head
    assert not {"\x1b", "\u202e"} & {*readme}
    assert [line for line in readme.splitlines() if line.startswith("#")] == [
        next(line for line in readme.splitlines() if line.startswith("# `a --- license"))
    ]


def test_a_space_is_written_whole_or_not_at_all(on_mini, tmp_path, monkeypatch):
    def full_disk(*paths, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copytree", full_disk)
    with pytest.raises(ArtifactError, match="free some space"):
        write_space(on_mini, tmp_path / "space")
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_exports_a_space(on_mini, tmp_path, capsys):
    run, out = tmp_path / "run", tmp_path / "my space"
    on_mini.save(run)
    main(["export", str(run), "--to", "space", "--out", str(out)])
    text = capsys.readouterr().out
    assert text.startswith(f"{out} (strength {on_mini.steering.strength:g})\n")
    assert f"hf upload YOU/NAME '{out}' --repo-type space" in text
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md",
        "app.py",
        "corrsteer",
        "requirements.txt",
        "run",
    ]
    for options, words in (
        (["--to=space", "--strength=2"], "leave out --strength"),
        (["--to=spaces"], "did you mean 'space'"),
        (["--to=space", f"--out={out}"], "holds other files"),
    ):
        with pytest.raises(SystemExit) as left:
            main(["export", str(run), f"--out={tmp_path / 'new'}", *options])
        assert left.value.code == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def answer(process, address):
    """What a process serves there, once it does."""
    while process.poll() is None:
        try:
            with urllib.request.urlopen(address) as response:
                return response.read().decode()
        except urllib.error.URLError:
            time.sleep(0.5)
    return pytest.fail(f"ended with {process.returncode}")


def test_a_space_is_served_by_its_own_copy_alone(on_mini, tmp_path):
    pytest.importorskip("gradio")
    vectors = {hook: torch.ones(128) for hook in on_mini.steering.vectors}  # the width of `mini`
    steering = dataclasses.replace(on_mini.steering, vectors=vectors, model="mini", metadata={})
    run = dataclasses.replace(on_mini, steering=steering)
    folder = write_space(run, tmp_path / "space")
    with listen("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "GRADIO_SERVER_PORT": str(port),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    process = subprocess.Popen(
        [sys.executable, "app.py"], cwd=folder, env=environment, stdout=subprocess.DEVNULL
    )
    try:
        assert "CorrSteer demo" in answer(process, f"http://127.0.0.1:{port}/")
        assert "Layers that steer" in answer(process, f"http://127.0.0.1:{port}/config")
    finally:
        process.terminate()
        process.wait(timeout=30)


def test_a_run_with_options_of_the_template_asks_with_them(lm, exhibit, monkeypatch):
    template = "{{ messages[0].content }}{{ mood }}"
    monkeypatch.setattr(lm.tokenizer, "chat_template", template, raising=False)
    runs = [
        dataclasses.replace(
            exhibit.run,
            provenance=dataclasses.replace(
                exhibit.run.provenance,
                task_options=TaskOptions(chat=True, template_options={"mood": mood}),
            ),
        )
        for mood in ("!", "?")
    ]
    shown = [Exhibit.of(run, f"run {index}") for index, run in enumerate(runs)]
    assert [lm.decode(lm.prompt_ids(each.sample("say 3"))) for each in shown] == [
        "say 3!",
        "say 3?",
    ]
    frame = last(Session(), Shelf(shown, lambda run: lm), wish(shown[0], "say 3", beside="run 1"))
    assert [reply.arm for reply in frame.replies] == ["baseline", "steered"] * 2
