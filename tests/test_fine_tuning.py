"""Fine-tuning: what is trained on, that it learns, and what it leaves behind.

Run where TRL and PEFT are installed: `pip install 'corrsteer[sft]'`.
"""

import dataclasses
import json
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
import torch

import corrsteer as cs
from corrsteer.cli import main
from corrsteer.errors import ArtifactError, DataError, ModelError, SettingsError
from corrsteer.json_text import to_json
from corrsteer.method.arms import ArmRunner, limited
from corrsteer.runs.records import as_json
from corrsteer.runs.verdict import Verdict
from corrsteer.samples import Sample
from corrsteer.scoring.rules import RULES
from corrsteer.tasks.base import Task, target_reply

KEYS = {
    "schema",
    "run",
    "model",
    "task",
    "strategy",
    "settings",
    "features",
    "baseline",
    "steered",
    "delta",
    "side_effects",
    "recommended",
    "controls",
    "guards",
    "seconds",
    "peak_memory_mb",
}


@pytest.fixture
def task():
    """60 questions whose right reply is always `yes`."""
    rows = [Sample(f"q{i}", f"say {i}:", ("yes",)) for i in range(60)]
    return Task(
        "yes",
        tuple(rows[:32]),
        tuple(rows[32:40]),
        tuple(rows[40:]),
        RULES["contains"],
        4,
        reference=target_reply,
    )


@pytest.fixture
def guard(task):
    return dataclasses.replace(task, name="guard", test=task.select)


@pytest.fixture
def fresh(hub):
    """The tiny model, to be trained."""
    return cs.load_model(str(hub / "model"), sae=str(hub / "saes"))


@pytest.fixture
def sft():
    pytest.importorskip("trl")
    pytest.importorskip("peft")
    from corrsteer.studies import fine_tuning as sft

    return sft


# --- what is trained on; needs no TRL ------------------------------------------------------------


def examples(lm, task, **settings):
    from corrsteer.studies.fine_tuning import TuningSettings, training_examples

    return training_examples(lm, task, TuningSettings(**settings))


def test_trains_on_the_prompts_of_the_evaluation_and_on_the_reference_with_eos(lm, task):
    found = examples(lm, task)
    assert len(found) == 32
    for sample, example in zip(task.fit, found, strict=True):
        assert list(example.prompt) == lm.prompt_ids(sample)
        assert lm.decode(example.reply[:-1]) == " yes"
        assert example.reply[-1] in lm.decoder.eos_ids
        labels = example.columns()["labels"]
        assert labels == [-100] * len(example.prompt) + list(example.reply)


def test_samples_are_those_that_train_draws_and_none_is_tested(lm, task):
    found = examples(lm, task, samples=10, seed=3)
    drawn = limited(task.fit, 10, 3)
    assert [list(e.prompt) for e in found] == [lm.prompt_ids(sample) for sample in drawn]
    tested = {sample.id for sample in ArmRunner(lm, task, "test").samples}
    assert tested.isdisjoint(sample.id for sample in drawn)


def test_mini_prompts_keep_their_bos_and_replies_end():
    lm, task = cs.load_model("mini"), cs.load_task("mini-mmlu")
    example = examples(lm, task, samples=1)[0]
    assert example.prompt[0] == lm.tokenizer.bos_token_id
    assert example.reply[-1] == lm.tokenizer.eos_token_id
    assert example.prompt.count(lm.tokenizer.bos_token_id) == 1
    assert lm.tokenizer.bos_token_id not in example.reply


@pytest.mark.parametrize("scorer", ["refusal"])
def test_refusals_are_taught_by_a_text(lm, task, scorer):
    refuse = tuple(dataclasses.replace(s, target=("refuse",)) for s in task.fit)
    refusals = dataclasses.replace(task, fit=refuse, scorer=RULES[scorer], reference=None)
    assert lm.decode(examples(lm, refusals)[0].reply[:-1]) == " I cannot"
    assert lm.decode(examples(lm, refusals, refusal_text="no")[0].reply[:-1]) == " no"


def test_samples_to_answer_need_an_answer(lm, task):
    answer = tuple(dataclasses.replace(s, target=("answer",)) for s in task.fit)
    answers = dataclasses.replace(task, fit=answer, scorer=RULES["refusal"], reference=None)
    with pytest.raises(DataError, match="--answer-text"):
        examples(lm, answers)
    assert lm.decode(examples(lm, answers, answer_text="Sure")[0].reply[:-1]) == " Sure"


def test_a_task_without_replies_is_refused(lm, task):
    from corrsteer.scoring.registry import load_scorer

    judged = dataclasses.replace(task, scorer=load_scorer("regex:x"), reference=None)
    with pytest.raises(DataError, match="no reference replies to train on"):
        examples(lm, judged)


def test_a_reply_that_the_tokenizer_cannot_spell_is_refused(lm, task):
    odd = dataclasses.replace(task, reference=lambda sample: " \u4f60")
    with pytest.raises(ModelError, match="cannot spell"):
        examples(lm, odd)


def test_samples_longer_than_the_model_are_left_out_and_told(lm, task, caplog, monkeypatch):
    most = max(len(lm.prompt_ids(sample)) for sample in task.fit) + len(" yes") + 1
    monkeypatch.setattr(type(lm), "most_positions", most)
    long = dataclasses.replace(
        task, reference=lambda sample: " yes" * (9 if sample.id == "q7" else 1)
    )
    assert len(examples(lm, long)) == 31
    assert "1 of 32 samples are longer with their reference reply" in caplog.text
    monkeypatch.setattr(type(lm), "most_positions", most - 1)
    with pytest.raises(DataError, match=f"into the {most - 1} positions of .*; give shorter"):
        examples(lm, dataclasses.replace(long, fit=task.fit[20:22]))


def test_an_empty_fit_split_is_refused(lm, task):
    with pytest.raises(DataError, match="fit split of yes is empty"):
        examples(lm, dataclasses.replace(task, fit=()))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 1.0, "steps": 3}, "give one of them"),
        ({"epochs": 0.0}, "epochs is 0"),
        ({"steps": 0}, "steps is 0"),
        ({"samples": 0}, "samples is 0"),
        ({"learning_rate": -1.0}, "learning_rate is -1"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"lora_rank": 0}, "lora_rank is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"refusal_text": " "}, "refusal_text is empty"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    from corrsteer.studies.fine_tuning import TuningSettings

    with pytest.raises(SettingsError, match=message):
        TuningSettings(**settings)


def test_without_the_extra_one_line_says_how_to_get_it(capsys, monkeypatch):
    from corrsteer.studies import fine_tuning as sft

    monkeypatch.setattr(sft, "LIBRARIES", ("a_library_that_is_not_there",))
    with pytest.raises(SystemExit, match="2"):
        main(["sft", "--task", "mini-mmlu"])
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "pip install 'corrsteer[sft]'" in told


def test_importing_the_module_loads_no_training_library():
    code = (
        "import sys; import corrsteer.cli.sft;"
        "print(sorted({'trl', 'peft', 'accelerate'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- training ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["full", "lora"])
def test_it_learns_and_tells_so_in_the_shape_of_a_run(sft, fresh, task, guard, tmp_path, method):
    settings = sft.TuningSettings(method=method, steps=60, learning_rate=0.02, test_limit=12)
    out = tmp_path / "tuned"
    document = as_json(sft.fine_tune(fresh, task, [guard], settings, out))
    losses = document["training"]["losses"]
    assert losses[-1] < 0.5 * losses[0]
    assert set(document) >= KEYS
    assert document["strategy"] == "sft"
    assert document["task"]["n_fit"] == 32
    assert document["baseline"]["n"] == document["steered"]["n"] == 12
    assert document["baseline"]["accuracy"] == 0
    assert document["steered"]["accuracy"] == 1
    assert document["side_effects"]["improved"] == 12
    assert document["guards"]["guard"]["steered"] == 1
    assert (out / "evaluation.json").read_text() == to_json(document)
    rows = pq.read_table(out / "predictions.parquet").to_pylist()
    assert [row["id"] for row in rows] == [s.id for s in limited(task.test, 12, 42)]
    assert all(row["steered_text"] == " yes" for row in rows)
    assert not list(out.rglob("*.bin"))
    assert not list(out.rglob("*.pt"))


def test_the_verdict_names_a_guard_that_loses(sft, fresh, task, tmp_path):
    before = ArmRunner(fresh, task, "test").baseline.texts
    kept = tuple(
        dataclasses.replace(sample, target=(text,))
        for sample, text in zip(task.test, before, strict=True)
    )
    harmed = dataclasses.replace(task, name="kept", test=kept, scorer=RULES["exact"])
    settings = sft.TuningSettings(steps=60, learning_rate=0.02)
    document = sft.fine_tune(fresh, task, [harmed], settings, tmp_path / "a")
    assert document.verdict == Verdict(
        "harms-guard",
        "Fine-tuning harms a guard task: it changes test accuracy by +100.0 points "
        "[+65.4, +100.0], but guard kept changes by -100.0 points [-100.0, -65.4].",
        ("guard kept changes by -100.0 points [-100.0, -65.4]",),
    )


def test_the_saved_model_replies_as_the_tuned_one(sft, fresh, task, tmp_path):
    sft.fine_tune(fresh, task, [], sft.TuningSettings(steps=5, learning_rate=0.01), tmp_path / "a")
    again = cs.load_model(str(tmp_path / "a" / "model"))
    prompts = [sample.prompt for sample in task.test]
    assert again.generate(prompts, 6) == fresh.generate(prompts, 6)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT's own
def test_the_saved_adapter_gives_the_tuned_model_again(sft, hub, fresh, task, tmp_path):
    from peft import PeftModel

    settings = sft.TuningSettings(method="lora", steps=5, learning_rate=0.05)
    sft.fine_tune(fresh, task, [], settings, tmp_path / "a")
    base = cs.load_model(str(hub / "model"))
    prompts = [sample.prompt for sample in task.test]
    untuned = base.generate(prompts, 6)
    PeftModel.from_pretrained(base.model, str(tmp_path / "a" / "adapter"))
    assert base.generate(prompts, 6) == fresh.generate(prompts, 6) != untuned


def test_the_same_seed_gives_the_same_weights(sft, hub, task):
    weights = []
    for _ in range(2):
        lm = cs.load_model(str(hub / "model"), sae=str(hub / "saes"))
        settings = sft.TuningSettings(method="lora", steps=3, learning_rate=0.01)
        sft.tune(lm, sft.training_examples(lm, task, settings), settings)
        weights.append({name: p.clone() for name, p in lm.model.named_parameters()})
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_the_model_is_left_in_its_dtype_frozen_and_with_its_own_forward(sft, hub, task):
    lm = cs.load_model(str(hub / "model"), dtype="bfloat16")
    settings = sft.TuningSettings(steps=2)
    sft.tune(lm, sft.training_examples(lm, task, settings), settings)
    assert {p.dtype for p in lm.model.parameters()} == {torch.bfloat16}
    assert not any(p.requires_grad for p in lm.model.parameters())
    assert not lm.model.training
    assert "forward" not in vars(lm.model)


def test_a_diverging_training_is_told(sft, fresh, task, tmp_path, monkeypatch):
    with torch.no_grad():
        fresh.model.get_input_embeddings().weight[5:] = float("inf")
    settings = sft.TuningSettings(steps=2)
    found = sft.training_examples(fresh, task, settings)
    with pytest.raises(cs.errors.NonFiniteError, match="give a --learning-rate below"):
        sft.tune(fresh, found, settings)


def test_a_folder_in_use_is_refused_before_anything_is_done(sft, fresh, task, tmp_path):
    (tmp_path / "kept.txt").write_text("mine")
    with pytest.raises(ArtifactError, match="holds other files"):
        sft.fine_tune(fresh, task, [], sft.TuningSettings(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]


def test_the_command_prints_one_json_object(sft, hub, capsys, tmp_path):
    rows = [{"prompt": f"say {i}:", "target": "no"} for i in range(40)]
    (tmp_path / "no.jsonl").write_text("\n".join(map(json.dumps, rows)))
    arguments = ["sft", "--model", hub / "model", "--task", tmp_path / "no.jsonl"]
    arguments += ["--scorer", "exact", "--max-new-tokens", 4, "--steps", 2, "--lora", "--json"]
    main([str(argument) for argument in [*arguments, "--out", tmp_path / "run"]])
    document = json.loads(capsys.readouterr().out)
    assert set(document) >= KEYS
    assert document["settings"]["method"] == "lora"
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").exists()
