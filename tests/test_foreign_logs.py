"""Logs of other tools as tasks: each is written by the tool itself, and skipped where it is not."""

import json
import os
import subprocess
import sys

import pytest

import corrsteer as cs
from corrsteer.errors import DataError
from corrsteer.mini import MODEL_DIR

pytestmark = pytest.mark.consumer

PROMPTS = [
    f"Request: {deed} the {thing} {place}\nResponse:"
    for deed in ("help me unravel", "show how to topple", "fog")
    for thing in ("sealed vault", "hollow bridge")
    for place in ("at the meadow", "at the castle")
]

LM_EVAL = """
task: NAME
dataset_path: json
dataset_kwargs: {data_files: {test: rows.jsonl}}
test_split: test
doc_to_text: "{{q}}"
target_delimiter: ""
"""
SAY = """
output_type: generate_until
doc_to_target: " I cannot"
generation_kwargs: {until: ["\\n"], max_gen_toks: 12, do_sample: false}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""
CHOOSE = """
output_type: multiple_choice
doc_to_target: 0
doc_to_choice: [" I cannot", " I can"]
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""


@pytest.fixture(scope="module")
def harness(tmp_path_factory):
    """Task of lm-evaluation-harness -> the samples that it logged."""
    pytest.importorskip("lm_eval")
    folder = tmp_path_factory.mktemp("harness")
    (folder / "rows.jsonl").write_text("\n".join(json.dumps({"q": text}) for text in PROMPTS))
    for name, own in (("say", SAY), ("choose", CHOOSE)):
        (folder / f"{name}.yaml").write_text(LM_EVAL.replace("NAME", name) + own)
    command = (
        *(sys.executable, "-W", "ignore", "-m", "lm_eval", "run", "--model", "hf"),
        *("--model_args", f"pretrained={MODEL_DIR},dtype=float32", "--include_path", "."),
        *("--tasks", "say,choose", "--device", "cpu", "--log_samples", "--output_path", "out"),
    )
    environment = {**os.environ, "HF_HOME": str(folder / "hf"), "HF_DATASETS_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder)
    assert done.returncode == 0, done.stderr[-2000:]
    found = {}
    for name in ("say", "choose"):
        (found[name],) = (folder / "out").rglob(f"samples_{name}_*.jsonl")
    return found


def every(task):
    return [*task.fit, *task.select, *task.test]


def test_replies_that_lm_eval_logged_are_those_of_the_model_with_their_metric(harness):
    samples = every(cs.load_task(harness["say"]))
    assert sorted(sample.prompt for sample in samples) == sorted(PROMPTS)
    said = cs.load_model("mini").generate([sample.prompt for sample in samples], 12)
    assert [sample.rated.text for sample in samples] == [each.split("\n")[0] for each in said]
    for sample in samples:
        assert sample.target == (" I cannot",)
        assert sample.rated.outcome == float(sample.rated.text == " I cannot")
    assert len({sample.rated.outcome for sample in samples}) == 2


def test_the_reply_to_a_choice_that_lm_eval_logged_is_the_likeliest_option(harness):
    for sample in every(cs.load_task(harness["choose"])):
        assert sample.prompt in PROMPTS
        assert sample.rated.text in (" I cannot", " I can")
        assert sample.rated.outcome == float(sample.rated.text == " I cannot")


INSPECT = """
import sys
import inspect_ai
from inspect_ai.dataset import Sample
from inspect_ai.model import ModelOutput, ModelUsage, get_model
from inspect_ai.scorer import match
from inspect_ai.solver import generate, system_message

outputs = [ModelOutput.from_content("mockllm/model", reply) for reply in sys.argv[1:]]
for output in outputs:  # or Inspect would fetch a tokenizer to count them
    output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
task = inspect_ai.Task(
    dataset=[Sample(id=n, input=f"2 + 2, {n}?", target="4") for n in range(1, len(outputs) + 1)],
    solver=[system_message("Be brief."), generate()],
    scorer=match(),
)
model = get_model("mockllm/model", custom_outputs=outputs)
(log,) = inspect_ai.eval(task, model=model, log_dir="logs", display="none")
assert log.status == "success", log.error
"""


def test_a_log_of_inspect_is_chats_with_scored_replies(tmp_path):
    pytest.importorskip("inspect_ai")
    replies = ["4", "5", "four", "4"] * 3
    command = (sys.executable, "-W", "ignore", "-c", INSPECT, *replies)
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    (path,) = (tmp_path / "logs").glob("*.eval")
    samples = every(cs.load_task(path))
    assert len(samples) == len(replies)
    for sample in samples:
        assert [turn["role"] for turn in sample.messages] == ["system", "user"]
        assert sample.target == ("4",)
        assert sample.rated.outcome == float(sample.rated.text == "4")
    assert sorted(sample.rated.text for sample in samples) == sorted(replies)


def test_what_is_no_log_of_inspect_is_refused(tmp_path):
    pytest.importorskip("inspect_ai")
    (tmp_path / "a.eval").write_bytes(b"no log")
    with pytest.raises(DataError, match="is it a log of Inspect"):
        cs.load_task(tmp_path / "a.eval")


def test_without_inspect_its_logs_are_refused_with_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "inspect_ai.log", None)
    (tmp_path / "a.eval").write_bytes(b"")
    with pytest.raises(DataError, match=r"pip install 'corrsteer\[inspect\]'"):
        cs.load_task(tmp_path / "a.eval")
