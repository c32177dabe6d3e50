"""Chats as the tiny model's tokenizer writes them, by templates of a few kinds."""

import json
import sys
import threading

import pytest
from conftest import SCORER

import corrsteer as cs
from corrsteer.errors import ModelError, SettingsError
from corrsteer.lm import chat_template
from corrsteer.report.command import reproduce
from corrsteer.samples import Sample
from corrsteer.tasks.chats import template_option, written_option

PLAIN = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
FULL = (
    "{% for m in messages %}{{ m.role }}{% if m.name %}({{ m.name }}){% endif %}: {{ m.content }}"
    "{% for call in m.tool_calls %}[{{ call.function.name }} {{ call.function.arguments | tojson }}"
    "]{% endfor %}{{ '\\n' }}{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
    "{% if mood is defined %} {{ mood }}{% endif %}"
)
ASK = {"role": "user", "content": "which way?"}
CALLED = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"type": "function", "function": {"name": "wind", "arguments": {"at": 3}}}],
}
TOLD = {"role": "tool", "content": "north"}


@pytest.fixture
def render(lm, monkeypatch):
    def render(template, *messages, **options):
        monkeypatch.setattr(lm.tokenizer, "chat_template", template, raising=False)
        sample = Sample("a", "", messages=messages, template_options=options)
        return chat_template.rendered(lm.tokenizer, "tiny", sample)

    return render


def test_a_chat_is_written_whole(render):
    assert render(FULL, ASK | {"name": "Ida"}, CALLED, TOLD) == (
        'user(Ida): which way?\nassistant: [wind {"at": 3}]\ntool: north\nassistant:'
    )


def test_options_reach_the_template(render):
    assert render(FULL, ASK, mood="calm").endswith("assistant: calm")
    assert render(FULL, ASK, mood=False).endswith("assistant: False")


@pytest.mark.parametrize("name", ["moood", "tokenize", "add_generation_prompt", "messages"])
def test_an_option_that_the_template_does_not_read_is_refused(render, name):
    with pytest.raises(ModelError, match=f"--template-option {name}: .* reads no such option"):
        render(FULL, ASK, **{name: True})


ONLY_USER = "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "messages", "what"),
    [
        (PLAIN, (ASK | {"name": "Ida"},), "`name` of the user's message"),
        (PLAIN, (ASK, CALLED, TOLD), "`tool_calls` of the assistant's message"),
        (ONLY_USER, ({"role": "system", "content": "be brief"}, ASK), "role 'system'"),
        (ONLY_USER, (ASK, {"role": "developer", "content": "be brief"}, ASK), "role 'developer'"),
        (FULL.replace("{{ m.content }}", "{{ m.content if m.role != 'tool' }}"),
         (ASK, CALLED, TOLD), "role 'tool'"),
    ],
)  # fmt: skip
def test_what_a_template_leaves_out_is_refused(render, template, messages, what):
    with pytest.raises(ModelError, match=f"sample 'a': .*leaves out .*{what}"):
        render(template, *messages)


def test_a_template_that_refuses_a_role_is_quoted(render):
    template = "{% if messages[0].role == 'system' %}{{ raise_exception('no\nsystem') }}{% endif %}"
    with pytest.raises(ModelError, match=r"the chat template of tiny refuses .*: no system"):
        render(template, {"role": "system", "content": "be brief"}, ASK)


ENDLESS = {
    "loops": "{% for a in range(9999) %}{% for b in range(9999) %}.{% endfor %}{% endfor %}",
    "empty loops": "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
    "texts": "{% for a in 'x' * 9999 %}{% for b in 'x' * 9999 %}{% endfor %}{% endfor %}",
    "macros": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}"
    "{{ f(60) }}",
}


@pytest.mark.parametrize("template", ENDLESS.values(), ids=ENDLESS)
def test_a_template_that_does_not_end_is_stopped(render, monkeypatch, template):
    monkeypatch.setattr(chat_template, "MOST_STEPS", 20_000)
    before = sys.gettrace()
    with pytest.raises(ModelError, match="does not end within 20,000 steps"):
        render(template, ASK)
    assert sys.gettrace() is before


def test_a_template_is_stopped_in_any_thread(render, monkeypatch):
    monkeypatch.setattr(chat_template, "MOST_STEPS", 20_000)
    caught = []

    def work():
        try:
            render(ENDLESS["empty loops"], ASK)
        except ModelError as error:
            caught.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert "does not end" in caught[0]


def test_a_long_chat_ends(render):
    turns = [ASK, {"role": "assistant", "content": "west"}] * 1000
    assert render(FULL, *turns, ASK).count("\n") == 2001


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("enable_thinking=false", ("enable_thinking", False)),
        ("effort=low", ("effort", "low")),
        ('effort="low"', ("effort", "low")),
        ("date=", ("date", "")),
        ("rule=a=b", ("rule", "a=b")),
        ('tools=[{"name": "f"}]', ("tools", [{"name": "f"}])),
        ("budget=12", ("budget", 12)),
    ],
)
def test_an_option_is_read_as_json_or_as_a_text(text, option):
    assert template_option(text) == option
    assert template_option(written_option(*option)) == option


@pytest.mark.parametrize("text", ["enable_thinking", "=false", "enable thinking=1", ""])
def test_an_option_without_name_or_value_is_refused(text):
    with pytest.raises(SettingsError, match="expected NAME=VALUE, as enable_thinking=false"):
        template_option(text)


def test_a_task_is_asked_for_with_options_of_the_template():
    task = cs.load_task("probe-copy", chat={"mood": "calm"})
    assert task.options.chat
    assert task.options.template_options == task.test[0].template_options == {"mood": "calm"}
    assert task.test[0].messages is not None
    assert cs.load_task("probe-copy", chat={}).options.chat


@pytest.fixture(scope="module")
def place(hub, tmp_path_factory):
    """A model with a chat template and a file of chats."""
    root = tmp_path_factory.mktemp("chats")
    for path in (hub / "model").iterdir():
        (root / "model").mkdir(exist_ok=True)
        (root / "model" / path.name).symlink_to(path)
    (root / "model" / "chat_template.jinja").write_text(
        "{{ mood }} {% for m in messages %}{{ m.content }}{% endfor %}"
    )
    rows = [
        {"messages": [{"role": "user", "content": f"say {i} {chr(97 + i)}:"}]} for i in range(26)
    ]
    (root / "chats.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return root


def test_a_run_records_its_options_and_takes_them_up_again(call, hub, place):
    own = [f"--model={place / 'model'}", f"--sae={hub / 'saes'}", f"--task={place / 'chats.jsonl'}"]
    own += [f"--scorer={SCORER}", "--max-new-tokens=2", "--strategy=S", "--controls=0"]
    own += ["--permutations=0", "--guard=none", f"--out={place / 'run'}", "--json"]
    code, out, err = call("train", *own, "--template-option", "mood=calm and slow")
    assert code == 0, err
    run = cs.load_run(place / "run")
    assert run.provenance.task_options.template_options == {"mood": "calm and slow"}
    assert "--chat --template-option 'mood=\"calm and slow\"'" in reproduce(run)
    accuracies = []
    for extra in ([], ["--template-option=mood=sour"]):
        code, out, err = call("eval", place / "run", *extra, "--json")
        assert code == 0, err
        accuracies.append(json.loads(out)["baseline"]["accuracy"])
    assert accuracies[0] == run.evaluation.outcome.baseline.accuracy
    code, _, err = call("train", *own, "--resume", "--template-option", "mood=sour")
    assert code == 2
    assert "the chat template's option mood is 'calm and slow' there, 'sour' here" in err
